"""The house rules that no linter knows: which way the imports point, and how the folders become packages."""

import ast
import graphlib
import importlib.util
import os
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"metarl": "metarl", "envs": "metarl.envs", "agents": "metarl.agents"}  # folder -> what it installs as
NOT_OURS = {".git", "build", "dist", "runs", "quickstart", "__pycache__"}
MODULES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if not path.is_symlink()]
MODULES = [path for path in MODULES if not {"envs", "agents"} & set(path.relative_to(ROOT).parts[1:-1])]


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax of a file, parsed once for all tests."""
    return ast.parse(path.read_text())


@cache
def name_of(path: Path) -> str:
    """The import name of a file of the tree."""
    folder, *parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in parts if part != "__init__")])


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    """Every imported name with its line; `from a import b` counts as `a.b`, which may be more than the module."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide which way they point"
            names += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return names


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_every_folder_has_modules():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(FOLDERS)
    assert "metarl.envs.navigation" in map(name_of, MODULES)
    assert len({name_of(path) for path in MODULES}) == len(MODULES)


# ---- which way the arrows point

# The floors, from the roof down; a room is a module or a package, and `metarl` itself is the public face.
FLOORS = (
    ("metarl", "__main__", "cli", "experiments"),
    ("agents", "fewshot", "reporting"),
    ("registry", "integrations", "learning", "evaluation", "runs", "envs"),
    ("sampling", "meta"),
    ("ops", "nets", "tasks"),
    (
        "parallel",
        "ranks",
        "ambient",
        "allocator",
        "interrupts",
        "streams",
        "documents",
        "files",
        "version",
        "naming",
        "plugins",
        "seeding",
        "errors",
    ),
)
# What a task is and what stands on the ground floor everybody may name, from any height; every other arrow crosses
# at most three floors, so that nobody reaches past the layer made for them.
FOUNDATIONS = {*FLOORS[-1], "tasks"}
LONGEST_ARROW = 3
REGISTRY = "metarl.registry"  # who may name families and agents, as strings
FACE = "metarl"  # who names what users meet, wherever it lies; nothing imports it


def room_of(name: str) -> str:
    """The room a module, or a name in it, belongs to: the first part below `metarl`, or `metarl` for the face."""
    parts = name.split(".")
    rooms = {room for floor in FLOORS for room in floor}
    return parts[1] if len(parts) > 1 and parts[1] in rooms else "metarl"


def floor_of(room: str) -> int:
    """The height of a room: 0 on the ground."""
    [height] = [height for height, floor in enumerate(reversed(FLOORS)) if room in floor]
    return height


def wrong_way(name: str, tree: ast.AST) -> list[tuple[str, int]]:
    """The imports of a module that point the wrong way; those inside functions and for types alone count too."""
    wrong = []
    room = room_of(name)
    for what, line in imports(tree):
        target = room_of(what)
        crossed = floor_of(room) - floor_of(target)
        if (
            inside(what, "envs", "agents")
            or (inside(what, "metarl") and crossed < 0)
            or (inside(what, "metarl") and crossed > LONGEST_ARROW and target not in FOUNDATIONS)
            or (room == "envs" and inside(what, "metarl") and target not in ("tasks", "seeding", "errors", "envs"))
            or (room == "agents" and target == "agents" and not of_one_agent(name, what))
            or (room not in ("envs", "agents") and name != FACE and inside(what, "metarl.envs", "metarl.agents"))
        ):
            wrong.append((what, line))
    return wrong


def of_one_agent(name: str, what: str) -> bool:
    """Whether an agent imports what is its own: no agent imports another, and the solvers are one."""
    solvers = "metarl.agents.solvers"
    return inside(what, name) or (inside(name, solvers) and inside(what, solvers))


def named(tree: ast.AST) -> list[tuple[str, int]]:
    """Modules of families and agents that are named by a string, to be imported by it."""
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    pattern = re.compile(r"metarl\.(envs|agents)(\.\w+)*(:\w+)?")
    return [(node.value, node.lineno) for node in texts if pattern.fullmatch(node.value)]


@cache
def arrows() -> dict[str, set[str]]:
    """Every module's imports of modules of this project, wherever in the file they stand."""
    modules = {name_of(path): tree_of(path) for path in MODULES}
    graph: dict[str, set[str]] = {}
    for name, tree in modules.items():
        graph[name] = set()
        for what, _ in imports(tree):
            while what and what not in modules:  # `a.b.thing` is a thing of the module `a.b`
                what = what.rpartition(".")[0]
            graph[name] |= {what} - {"", name}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of the graph, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_every_module_stands_on_a_floor():
    rooms = [room for floor in FLOORS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert {name for path in MODULES if room_of(name := name_of(path)) == "metarl"} == {"metarl"}


def test_the_floors_are_those_that_contributing_draws():
    drawing = (ROOT / "CONTRIBUTING.md").read_text().split("From the roof down:\n```\n")[1].split("\n```")[0]
    drawn = [re.split(r"\s{2,}", line.replace(" (the public face)", "")) for line in drawing.splitlines()]
    assert [set(floor) for floor in drawn] == [set(floor) for floor in FLOORS]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path):
    name, tree = name_of(path), tree_of(path)
    assert wrong_way(name, tree) == []
    if room_of(name) not in ("envs", "agents") and name not in (REGISTRY, FACE):
        assert named(tree) == []


def test_no_import_goes_in_a_circle():
    graph = arrows()
    assert circle(graph) == []
    rooms: dict[str, set[str]] = {}
    for name, targets in graph.items():
        rooms.setdefault(room_of(name), set()).update({room_of(target) for target in targets} - {room_of(name)})
    assert circle(rooms) == []


def test_the_circle_is_told():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert sorted(set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}))) == ["a", "b", "c"]
    graph = arrows()
    assert "metarl.meta.inner" in graph["metarl.learning.gradient_adaptation"]
    assert circle(graph | {"metarl.tasks.data": {"metarl.tasks"}}) != []


@pytest.mark.parametrize(
    ("name", "code", "wrong"),
    [
        ("metarl.meta.inner", "from metarl.envs import make_family", True),
        ("metarl.meta.inner", "def f():\n    import metarl.agents.rl2", True),
        ("metarl.meta.inner", "if TYPE_CHECKING:\n    from metarl.runs.run import Run", True),
        ("metarl.meta.inner", "from metarl import envs", True),
        ("metarl.meta.inner", "from metarl import tasks", False),
        ("metarl.meta.inner", "from metarl.sampling.blocks import Block", False),
        ("metarl.meta.inner", "from metarl import load", True),
        ("metarl.registry", "from metarl import load", True),
        ("metarl", "from metarl.envs.wrappers.gym_family import GymFamily", False),
        ("metarl", "from metarl.ops import returns", True),
        ("metarl.experiments", "from metarl.envs import make_family", True),
        ("metarl.learning.contract", "from metarl.agents.rl2 import Config", True),
        ("metarl.learning.contract", "from metarl import envs", True),
        ("metarl.runs.run", "from metarl import __version__", True),
        ("metarl.runs.run", "from metarl.version import __version__", False),
        ("metarl.cli.train", "from metarl.sampling import rollout", False),
        ("metarl.cli.train", "from metarl.nets import mlp", True),
        ("metarl.cli.train", "from metarl.tasks import Tasks", False),
        ("metarl.reporting.page", "from metarl.fewshot import classifier", False),
        ("metarl.evaluation.curve", "from metarl.reporting import plots", True),
        ("metarl.tasks.data", "from metarl.sampling import rollout", True),
        ("metarl.errors", "from metarl.tasks import Tasks", True),
        ("metarl.envs.ant", "from metarl.sampling.rollout import collect", True),
        ("metarl.envs.ant", "from metarl.parallel import threads", True),
        ("metarl.cli.train", "def f():\n    if True:\n        from metarl import agents", True),
        ("metarl.cli.train", "from metarl.cli.options import parse", False),
        ("metarl.registry", "from metarl.cli.options import parse", True),
        ("metarl.envs.ant", "import metarl.agents", True),
        ("metarl.envs.ant", "from metarl import tasks, seeding", False),
        ("metarl.envs.ant", "from metarl.envs.mujoco.engine import Robot", False),
        ("metarl.agents.rl2", "from metarl.agents.maml_trpo import Config", True),
        ("metarl.agents.rl2", "from metarl.agents import maml_trpo", True),
        ("metarl.agents.rl2", "from metarl.agents.solvers.bandits import Gittins", True),
        ("metarl.agents.solvers.bandits", "from metarl.agents.solvers.beliefs import Belief", False),
        ("metarl.agents.solvers.bandits", "from metarl.agents.rl2 import Config", True),
        ("metarl.agents.rl2", "from metarl.sampling import rollout", False),
        ("metarl.agents.rl2", "import envs.ant", True),
        ("metarl.meta.outer", "from agents import rl2", True),
    ],
)
def test_the_import_rule_itself(name, code, wrong):
    assert bool(wrong_way(name, ast.parse(code))) == wrong


def test_the_rule_of_named_modules_itself():
    assert named(ast.parse("load('metarl.agents.rl2')"))
    assert named(ast.parse("Entry('metarl.agents.baselines:Random')"))
    assert not named(ast.parse("'see metarl.agents.rl2'"))


# ---- sizes

LONGEST_FILE, LONGEST_AGENT = 350, 200
# Files that were longer when the rule came. A number may only shrink; a file within the bounds leaves the list.
STILL_LONGER: dict[str, int] = {}


def too_long(sizes: dict[str, int], still_longer: dict[str, int]) -> list[str]:
    """What is longer than its bound, and what no longer needs an exception."""
    complaints = []
    for name, lines in sizes.items():
        agent = name.startswith("agents/") and name.count("/") == 1
        bound = LONGEST_AGENT if agent else LONGEST_FILE
        if lines > still_longer.get(name, bound):
            complaints.append(f"{name} has {lines} lines; {still_longer.get(name, bound)} are allowed")
        elif name in still_longer and lines <= bound:
            complaints.append(f"{name} has {lines} lines and needs no exception any more: take it off the list")
    return complaints + [f"{name} is gone: take it off the list" for name in still_longer.keys() - sizes.keys()]


def test_no_file_grows_too_long():
    files = [*MODULES, *sorted((ROOT / "scripts").glob("*.py"))]
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert too_long(sizes, STILL_LONGER) == []


def test_the_rule_of_sizes_itself():
    assert too_long({"metarl/a.py": 350, "agents/b.py": 200, "agents/solvers/c.py": 350}, {}) == []
    for sizes in ({"metarl/a.py": 351}, {"agents/b.py": 201}, {"agents/solvers/c.py": 351}):
        assert too_long(sizes, {}) != []
    assert too_long({"metarl/a.py": 400}, {"metarl/a.py": 400}) == []
    for lines in (401, 350):
        assert too_long({"metarl/a.py": lines}, {"metarl/a.py": 400}) != []
    assert too_long({}, {"metarl/a.py": 400}) != []


def test_the_package_list_is_the_tree():
    packages = {name_of(path) for path in MODULES if path.name == "__init__.py"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages
    folders = {path.parent for path in MODULES}
    assert {ROOT / folder for folder in folders if not (folder / "__init__.py").exists()} == set()
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {name: folder for folder, name in FOLDERS.items()}


@pytest.mark.parametrize("folder", ["envs", "agents"])
def test_folders_refuse_their_bare_names(folder):
    spec = importlib.util.spec_from_file_location(folder, ROOT / folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.raises(ImportError, match=f"import metarl.{folder}, not {folder}"):
        spec.loader.exec_module(module)
    assert folder not in sys.modules


@pytest.mark.parametrize("folder", ["envs", "agents"])
def test_links_lead_to_the_folders(folder):
    link = ROOT / "metarl" / folder
    if not link.is_symlink():
        assert link.read_text().strip() == f"../{folder}", "a checkout without symlinks holds their target as text"
        pytest.skip("this checkout has no symlinks")
    assert os.readlink(link) == f"../{folder}"  # relative, so that it survives a clone
    assert link.resolve() == ROOT / folder


def test_one_module_has_one_copy():
    import metarl.envs.navigation
    from metarl.tasks import TaskFamily

    assert issubclass(metarl.envs.navigation.Navigation2D, TaskFamily)
    assert sum(name.endswith("navigation") for name in sys.modules if inside(name, "metarl", "envs")) == 1


def test_tools_know_all_three_folders():
    tool = PROJECT["tool"]
    assert set(FOLDERS) <= set(tool["coverage"]["run"]["source"])
    assert {"envs", "agents"} <= set(tool["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"])
    assert {"metarl/envs", "metarl/agents"} == set(tool["ruff"]["extend-exclude"])  # not twice through the links
    assert "D" in tool["ruff"]["lint"]["select"]


def public_without_docstring(tree: ast.Module) -> list[str]:
    """Public modules, classes, functions and methods without a docstring; overrides count too."""
    bare = [] if ast.get_docstring(tree) else ["the module"]

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                if not ast.get_docstring(node):
                    bare.append(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    look(node.body, f"{prefix}{node.name}.")

    look(tree.body, "")
    return bare


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_everything_public_says_what_it_is(path):
    assert public_without_docstring(tree_of(path)) == []


GLOBAL_STATE = {
    "np.random": "default_rng|Generator|Philox|SeedSequence|PCG64|MT19937|BitGenerator|RandomState",
    "numpy.random": "default_rng|Generator|Philox|SeedSequence|PCG64|MT19937|BitGenerator|RandomState",
}
# Others' code draws from the global generators; one place lends them keyed states and puts theirs back.
LENDERS = {"metarl.seeding": {"np.random.get_state", "np.random.set_state"}}
SEEDING = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "random.seed"}


def global_randomness(tree: ast.AST) -> list[tuple[str, int]]:
    """Uses of the global generators of NumPy, torch (seeding) and the standard library."""
    uses = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            module, _, function = called.rpartition(".")
            numpys = module in GLOBAL_STATE and not re.fullmatch(GLOBAL_STATE[module], function)
            if numpys or called in SEEDING or called in ("set_random_seed", "seed_everything"):
                uses.append((called, node.lineno))
        elif isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
            uses.append(("import random", node.lineno))
    return uses


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_global_random_state(path):
    used = {called for called, _ in global_randomness(tree_of(path))}
    assert used - LENDERS.get(name_of(path), set()) == set()


def test_the_randomness_rule_itself():
    for code in ("np.random.seed(0)", "np.random.rand(3)", "torch.manual_seed(1)", "import random"):
        assert global_randomness(ast.parse(code)), code
    for code in ("np.random.default_rng(0)", "torch.Generator().manual_seed(1)", "rng.random(3)"):
        assert not global_randomness(ast.parse(code)), code


def test_no_room_is_named_after_nothing():
    vague = re.compile(r"(utils?|helpers?|misc|common|managers?|handlers?|stuff|base|core|shared|tools?)")
    files = (*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").rglob("*.py"))
    assert [path for path in files if vague.fullmatch(path.stem)] == []
    assert [path for path in MODULES if vague.fullmatch(path.parent.name)] == []


# Words that say where a value was, not what it is.
EMPTY_WORDS = {"found", "held", "given", "taken"}


def empty_names(tree: ast.AST) -> list[tuple[str, int]]:
    """Variables and arguments whose names say nothing of what they are."""
    stored = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names = [(node.id, node.lineno) for node in stored]
    names += [(node.arg, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.arg)]
    return [(name, line) for name, line in names if name in EMPTY_WORDS]


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "scripts").rglob("*.py"))], ids=lambda path: path.stem)
def test_variables_are_named_after_what_they_are(path):
    assert empty_names(tree_of(path)) == []


def test_the_rule_of_names_itself():
    for code in (
        "found = 1",
        "for held in x: pass",
        "def f(given): pass",
        "with a as taken: pass",
        "[1 for found in x]",
    ):
        assert empty_names(ast.parse(code)), code
    assert not empty_names(ast.parse("x.found = f(given)"))


def test_test_files_have_unique_names():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


HOMES = re.compile(rb"/(home|Users)/\w+/|/root/" + rb"\w")  # where people and machines keep their checkouts


def test_no_file_holds_a_machine_path():
    places = [str(place).encode() for place in (ROOT, sys.prefix) if len(Path(place).parts) > 2]
    hits = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS and not name.startswith(".")]
        folders[:] = [name for name in folders if not name.endswith(".egg-info")]
        for path in (Path(folder, file) for file in files if file != "MUJOCO_LOG.TXT"):
            if not path.is_symlink() and path != Path(__file__):
                content = path.read_bytes()
                if HOMES.search(content) or any(place in content for place in places):
                    hits.append(path.relative_to(ROOT).as_posix())
    assert hits == []


# ---- one inner loop


def differentiable_updates(tree: ast.AST) -> list[tuple[str, int]]:
    """Places that could differentiate through a parameter update other than by `metarl.meta.inner`.

    A second derivative takes one of: `create_graph` in torch.autograd, two nested gradient transforms of
    torch.func, a differentiable optimiser, or a library of its own.
    """
    places = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            places += [
                (f"{called}({word.arg}=...)", node.lineno)
                for word in node.keywords
                if word.arg in ("create_graph", "differentiable") and ast.unparse(word.value) != "False"
            ]
            if called.split(".")[-1] in ("grad", "grad_and_value", "jacrev", "hessian") and "func" in called.split("."):
                places.append((called, node.lineno))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [name for name, _ in imports(ast.Module([node], []))]
            places += [(name, node.lineno) for name in names if inside(name, "higher", "learn2learn", "torchopt")]
            places += [
                (n, node.lineno) for n in names if re.fullmatch(r"torch\.func\.(grad|grad_and_value|hessian)", n)
            ]
    return places


INNER_LOOP = {  # the one inner loop, and the meta-gradient that differentiates through it
    "metarl.meta.inner": {"torch.func.grad", "torch.autograd.grad(create_graph=...)"},
    "metarl.meta.outer": {"torch.func.grad", "torch.func.grad_and_value"},
    "metarl.ops.trust_region": {"torch.autograd.grad(create_graph=...)"},  # the curvature of a KL: no update
}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_there_is_one_inner_loop(path):
    """No other module holds what differentiating through a parameter update takes."""
    places = differentiable_updates(tree_of(path))
    assert {what for what, _ in places} <= INNER_LOOP.get(name_of(path), set()), places


def test_the_inner_loop_rule_itself():
    for code in (
        "torch.autograd.grad(loss, params, create_graph=True)",
        "loss.backward(create_graph=second)",
        "torch.func.grad(torch.func.grad(f))(x)",
        "torch.func.hessian(f)(x)",
        "torch.optim.SGD(params, lr=1, differentiable=True)",
        "from torch.func import grad",
        "import higher",
        "from learn2learn.algorithms import MAML",
    ):
        assert differentiable_updates(ast.parse(code)), code
    for code in (
        "torch.autograd.grad(loss, params)",
        "torch.autograd.backward(loss)",
        "torch.autograd.grad(loss, params, create_graph=False)",
        "torch.func.vmap(f)(x)",
        "inner.adapt(params, loss, data, rule)",
    ):
        assert not differentiable_updates(ast.parse(code)), code


# ---- the name pip knows


def strangers(text: str) -> list[str]:
    """Commands that would install a stranger's package: `metarl` on the package index is not this one."""
    return re.findall(r"pip install(?: -\S+)* ['\"]?metarl(?![\w-]).*", text)


def test_no_text_installs_a_stranger():
    texts = [*MODULES, *(ROOT / "scripts").iterdir(), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile"]
    assert [path for path in texts if path.is_file() and strangers(path.read_text())] == []
    assert PROJECT["project"]["name"] == "metarl-suite"


def test_the_installing_rule_itself():
    for text in ("pip install 'metarl[video]'", "pip install metarl", "pip install -U metarl"):
        assert strangers(text), text
    for text in ("pip install 'metarl-suite[video]'", "pip install -e .", "pip install metarl-suite"):
        assert not strangers(text), text
