"""The house rules that no linter knows: which way the imports point, and how the folders become packages."""

import ast
import importlib.util
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"metarl": "metarl", "envs": "metarl.envs", "agents": "metarl.agents"}  # folder -> what it installs as
NOT_OURS = {".git", "build", "dist", "runs", "quickstart", "__pycache__"}
MODULES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if not path.is_symlink()]
MODULES = [path for path in MODULES if not {"envs", "agents"} & set(path.relative_to(ROOT).parts[1:-1])]


def name_of(path: Path) -> str:
    """The import name of a file of the tree."""
    folder, *parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in parts if part != "__init__")])


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    """Every imported name with its line; `from a import b` counts as `a.b`, which may be more than the module."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide which way they point"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def wrong_way(name: str, tree: ast.AST) -> list[tuple[str, int]]:
    """The imports of a module that point the wrong way."""
    found = imports(tree)
    if inside(name, "metarl.envs"):
        allowed = ("metarl.tasks", "metarl.seeding", "metarl.errors", "metarl.envs")
        wrong = [(what, line) for what, line in found if inside(what, "metarl") and not inside(what, *allowed)]
    elif inside(name, "metarl.agents"):
        wrong = [(what, line) for what, line in found if inside(what, "metarl.agents") and not inside(what, name)]
    elif name == "metarl.cli":
        lazy = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef)
            for node in ast.walk(function)
        }
        eager = ast.Module([node for node in ast.walk(tree) if isinstance(node, ast.stmt) and id(node) not in lazy], [])
        eager.body = [node for node in eager.body if isinstance(node, ast.Import | ast.ImportFrom)]
        wrong = [(what, line) for what, line in imports(eager) if inside(what, "metarl.envs", "metarl.agents")]
    else:
        wrong = [(what, line) for what, line in found if inside(what, "metarl.envs", "metarl.agents", "metarl.cli")]
    return wrong + [(what, line) for what, line in found if inside(what, "envs", "agents")]


def test_every_folder_has_modules():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(FOLDERS)
    assert "metarl.envs.navigation" in map(name_of, MODULES)
    assert len({name_of(path) for path in MODULES}) == len(MODULES)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path):
    assert wrong_way(name_of(path), ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    ("name", "code", "wrong"),
    [
        ("metarl.meta.inner", "from metarl.envs import make_family", True),
        ("metarl.meta.inner", "def f():\n    import metarl.agents.rl2", True),
        ("metarl.meta.inner", "from metarl import envs", True),
        ("metarl.meta.inner", "from metarl import tasks", False),
        ("metarl.cli", "import metarl.envs", True),
        ("metarl.cli", "if True:\n    from metarl import agents", True),
        ("metarl.cli", "def f():\n    if True:\n        from metarl import agents", False),
        ("metarl.envs.ant", "from metarl.rollout import collect", True),
        ("metarl.envs.ant", "import metarl.agents", True),
        ("metarl.envs.ant", "from metarl import tasks, seeding", False),
        ("metarl.envs.ant", "from metarl.envs.batched_mujoco import Robot", False),
        ("metarl.agents.rl2", "from metarl.agents.maml_trpo import Config", True),
        ("metarl.agents.rl2", "from metarl.agents import maml_trpo", True),
        ("metarl.agents.rl2", "from metarl import rollout", False),
        ("metarl.agents.rl2", "import envs.ant", True),
        ("metarl.meta.outer", "from agents import rl2", True),
    ],
)
def test_the_import_rule_itself(name, code, wrong):
    assert bool(wrong_way(name, ast.parse(code))) == wrong


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
    assert public_without_docstring(ast.parse(path.read_text())) == []


GLOBAL_STATE = {
    "np.random": "default_rng|Generator|Philox|SeedSequence|PCG64|MT19937|BitGenerator|RandomState",
    "numpy.random": "default_rng|Generator|Philox|SeedSequence|PCG64|MT19937|BitGenerator|RandomState",
}
# Others' code draws from the global generators; one place lends them keyed states and puts theirs back.
LENDERS = {"metarl.seeding": {"np.random.get_state", "np.random.set_state"}}
SEEDING = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "random.seed"}


def global_randomness(tree: ast.AST) -> list[tuple[str, int]]:
    """Uses of the global generators of NumPy, torch (seeding) and the standard library."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            module, _, function = called.rpartition(".")
            numpys = module in GLOBAL_STATE and not re.fullmatch(GLOBAL_STATE[module], function)
            if numpys or called in SEEDING or called in ("set_random_seed", "seed_everything"):
                found.append((called, node.lineno))
        elif isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
            found.append(("import random", node.lineno))
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_global_random_state(path):
    used = {called for called, _ in global_randomness(ast.parse(path.read_text()))}
    assert used - LENDERS.get(name_of(path), set()) == set()


def test_the_randomness_rule_itself():
    for code in ("np.random.seed(0)", "np.random.rand(3)", "torch.manual_seed(1)", "import random"):
        assert global_randomness(ast.parse(code)), code
    for code in ("np.random.default_rng(0)", "torch.Generator().manual_seed(1)", "rng.random(3)"):
        assert not global_randomness(ast.parse(code)), code


def test_no_room_is_named_after_nothing():
    vague = {"utils.py", "helpers.py", "misc.py", "util.py", "helper.py", "common.py"}
    assert [path for path in (*MODULES, *(ROOT / "tests").rglob("*.py")) if path.name in vague] == []


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
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [
                (f"{called}({word.arg}=...)", node.lineno)
                for word in node.keywords
                if word.arg in ("create_graph", "differentiable") and ast.unparse(word.value) != "False"
            ]
            if called.split(".")[-1] in ("grad", "grad_and_value", "jacrev", "hessian") and "func" in called.split("."):
                found.append((called, node.lineno))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [name for name, _ in imports(ast.Module([node], []))]
            found += [(name, node.lineno) for name in names if inside(name, "higher", "learn2learn", "torchopt")]
            found += [(n, node.lineno) for n in names if re.fullmatch(r"torch\.func\.(grad|grad_and_value|hessian)", n)]
    return found


INNER_LOOP = {  # the one inner loop, and the meta-gradient that differentiates through it
    "metarl.meta.inner": {"torch.func.grad", "torch.autograd.grad(create_graph=...)"},
    "metarl.meta.outer": {"torch.func.grad", "torch.func.grad_and_value"},
    "metarl.ops.trust_region": {"torch.autograd.grad(create_graph=...)"},  # the curvature of a KL: no update
}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_there_is_one_inner_loop(path):
    """No other module holds what differentiating through a parameter update takes."""
    found = differentiable_updates(ast.parse(path.read_text()))
    assert {what for what, _ in found} <= INNER_LOOP.get(name_of(path), set()), found


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
