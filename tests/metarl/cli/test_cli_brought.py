"""Families, data sets and agents of somebody else's, by name and by entry points."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import NAVIGATION, QUICK, SMALL, metarl, refused
from PIL import Image

from metarl import load, plugins, registry
from metarl.evaluation.curve import AdaptationCurve
from metarl.fewshot.classifier import FewShotClassifier
from metarl.runs.run import Run

FAMILIES = """
from dataclasses import dataclass
from metarl.envs.navigation import Navigation2D
from metarl.tasks import TaskFamily

@dataclass(frozen=True)
class Far(Navigation2D):
    name = "mine/Far-v0"
    wind: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.wind < 0:
            raise ValueError(f"wind is {self.wind}; it cannot be negative")
        if self.wind > 100:
            raise RuntimeError("a storm")

@dataclass(frozen=True)
class Half(TaskFamily):
    name = "mine/Half-v0"
    presets = ("mine",)
    preset: str = "mine"

@dataclass(frozen=True)
class Crash(Far):
    def draw(self, n, uniform, split):
        return {}["goal"]

class Plain(Far):
    size: int = 3

@dataclass(frozen=True)
class Endless(Far):
    horizon = 0

@dataclass(frozen=True)
class Halves(Far):
    horizon = 2.5

@dataclass(frozen=True)
class Bare(Far):
    def draw(self, n, uniform, split):
        return super().draw(n, uniform, split).arrays

@dataclass(frozen=True)
class Stubborn(Far):
    def draw(self, n, uniform, split):
        return super().draw(3, uniform, split)

class Nothing:
    pass

far = Far("pearl")
"""
AGENTS = """
from dataclasses import dataclass
from metarl.agents.baselines import StandStill

@dataclass(frozen=True)
class Config:
    iterations: int = 3
    size: float = 0.5

def train(config, source, run):
    run.restore()
    with run.loop(config.iterations, checkpoint_every=1, state=lambda: {"size": config.size}) as loop:
        for _ in loop:
            loop.log({"size": config.size}, {})

def load(run, source):
    return StandStill(source)

class Still(StandStill):
    "Does nothing at all."

class Learner:
    "Learns nothing."
    Config = Config
    def train(self, config, source, run):
        train(config, source, run)
    def load(self, run, source):
        return load(run, source)

class Curveless:
    def __init__(self, source):
        pass

class Broken:
    def __init__(self, source):
        raise KeyError("weights")

number = 3
"""
HOLLOW = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Config:
    size: int = 1
def train(config, source, run): pass
def load(run, source): pass
"""
OTHERS = {  # learners that are none
    "object": HOLLOW + "Config = Config()\n",
    "thawed": HOLLOW.replace("(frozen=True)", ""),
    "three": HOLLOW + "train = 3\n",
    "short": HOLLOW + "def load(run): pass\n",
    "hollow": HOLLOW,
}
DATA = """
from dataclasses import dataclass
import numpy as np
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.datasets.sinusoid import Sinusoid

@dataclass(frozen=True)
class Waves(Sinusoid):
    pass

@dataclass(frozen=True, kw_only=True)
class Blots(ImageSource):
    name = "mine/blots"
    queries: int = 2

    def load(self):
        if self.data_root is not None:
            assert (self.data_root / "blots").exists()
        drawn = np.random.default_rng(0).integers(0, 256, (40, 1, 16, 16), np.uint8)
        return Images(drawn, tuple(map(str, range(10))), (4,) * 10, ("",) * 10)

    def split_classes(self, images):
        return {"train": range(4), "validation": range(4, 7), "test": range(7, 10)}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with modules of a user's in it."""
    monkeypatch.chdir(tmp_path)
    ours = [place for place in sys.path if not Path(place, "worlds.py").exists()]  # a module of the tests' own
    monkeypatch.setattr(sys, "path", [place for place in ours if place not in ("", str(tmp_path))])
    for name, text in {"worlds": FAMILIES, "minds": AGENTS, "birds": DATA}.items():
        (tmp_path / f"{name}.py").write_text(text)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("worlds", "minds", "birds", "broken"):
            del sys.modules[name]


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as an installed package that registers them, with some that are broken."""
    site = folder / "site"
    info = site / "aviary-1.0.dist-info"
    info.mkdir(parents=True)
    for name in ("worlds", "minds", "birds"):
        (folder / f"{name}.py").rename(site / f"{name}.py")
    (site / "broken.py").write_text("import nowhere")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aviary\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[metarl.families]\nmine/Far-v0 = worlds:Far\nmine/Gone-v0 = broken:Far\nmine/Half-v0 = worlds:Half\n"
        f"{NAVIGATION} = worlds:Far\n"
        "[metarl.agents]\nminds = minds\nstill = minds:Still\nbroken = broken\nlearner = minds:Learner\n"
        "[metarl.datasets]\nwaves = birds:Waves\nno-waves = birds:Nothing\n"
    )
    monkeypatch.syspath_prepend(str(site))
    return site


def test_a_family_of_ones_own_is_trained_on_evaluated_and_filmed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--family", "worlds:Far", "--wind", "2", "--preset", "pearl", "--out", "run", *SMALL]
    assert metarl("train", "maml-trpo", *words).code == 0
    assert Run.open("run").source == {"name": "mine/Far-v0", "options": {"preset": "pearl", "wind": 2.0}}
    assert metarl("train", "maml-trpo", *words, "--resume").code == 0
    said = metarl("evaluate", "run", *QUICK)
    assert said.code == 0, said
    assert AdaptationCurve.load("run/curve.json").family == "mine/Far-v0"
    assert metarl("video", "run", "--out", "film.gif", *QUICK[2:]).code == 0
    assert "--wind FLOAT" in metarl("train", "maml-trpo", "--family", "worlds:Far", "--help").out
    for name in ("worlds", "minds"):
        sys.modules.pop(name, None)
    sys.path.remove(str(folder))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    told = refused(metarl("evaluate", "../run", *QUICK, "--trust"))
    assert "what ../run was trained on is worlds:Far; there is no module worlds, installed or in the current" in told


def test_agents_of_ones_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("minds", "minds:Learner")):
        run = f"run{number}"
        assert metarl("train", name, "--family", NAVIGATION, "--out", run, "--size", "0.25").code == 0
        assert (Run.open(run).learner, Run.open(run).config) == (name, {"iterations": 3, "size": 0.25})
        assert metarl("evaluate", run, *QUICK).code == 0
    with monkeypatch.context() as elsewhere:
        (folder / "elsewhere").mkdir()
        elsewhere.chdir(folder / "elsewhere")
        told = refused(metarl("train", "--resume", "../run0", "--trust"))
    assert "unknown agent in ../run0/config.json 'minds'; " in told
    assert told.endswith("; or go where the module minds lies\n")
    assert metarl("evaluate", "minds:Still", "--family", "worlds:Far", *QUICK, "--json", "a.json").code == 0
    assert AdaptationCurve.load("a.json").agent == "minds:Still"
    said = refused(metarl("train", "minds:Still", "--family", NAVIGATION, "--out", "x"))
    assert "minds:Still needs no training: metarl evaluate minds:Still --family ID" in said
    assert "minds:Learner must be trained first" in refused(metarl("evaluate", "minds:Learner"))


def test_a_data_set_of_ones_own(folder: Path) -> None:
    words = ["--dataset", "birds:Waves", "--out", "run", "--iterations", "1", "--shots", "5", "--strategy", "loop"]
    said = metarl("train", "maml", *words)
    assert said.code == 0, said
    said = metarl("evaluate", "run", "--tasks", "3", "--steps", "1")
    assert said.code == 0, said


@pytest.mark.parametrize("rooted", [False, True], ids=["rootless", "rooted"])
def test_a_run_on_pictures_of_ones_own_classifies_new_ones(folder: Path, rooted: bool) -> None:
    (folder / "data").mkdir()
    (folder / "data/blots").touch()
    words = ["--dataset", "birds:Blots", "--ways", "3", "--train-ways", "3", "--out", "run", "--iterations", "1"]
    assert metarl("train", "protonet", *words, *(["--data-root", "data"] if rooted else [])).code == 0
    rng = np.random.default_rng(1)
    for label in ("a", "b"):
        (folder / "support" / label).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(folder / "support" / label / "1.png")
    one = folder / "support/a/1.png"
    said = metarl("predict", "run", "--support", "support", "--query", str(one), "--json", "said.json")
    assert (said.code, said.err) == (0, "")
    assert "protonet trained on mine/blots" in said.out
    [told] = json.loads(Path("said.json").read_text())["predictions"]
    files = [one, folder / "support/b/1.png"]
    for classifier in (load("run"), FewShotClassifier("run")):
        probabilities = classifier.fit(files, ["a", "b"]).predict_proba([one])[0]
        np.testing.assert_array_equal(probabilities, list(told["probabilities"].values()))
    (folder / "birds.py").unlink()
    sys.modules.pop("birds")
    line = refused(metarl("predict", "run", "--support", "support", "--query", str(one)))
    assert "what run was trained on is birds:Blots; there is no module birds" in line


TRAIN = ["train", "maml-trpo", "--out", "x", *SMALL, "--family"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*TRAIN, "nowhere:Far"], "there is no module nowhere, installed or in the current folder"),
        ([*TRAIN, "worlds:Fra"], "worlds has no Fra: did you mean Far?"),
        ([*TRAIN, "worlds"], "name your own as module:Name"),
        ([*TRAIN, "worlds.deep"], "name your own as module:Name"),
        ([*TRAIN, "worlds:Nothing"], "worlds:Nothing is the class Nothing; name a class below metarl.tasks.TaskFamily"),
        ([*TRAIN, "worlds:far"], "worlds:far is of type Far; name a class below"),
        ([*TRAIN, "worlds:Half"], "family worlds:Half lacks action_space, draw, horizon, make_vec, observation_space"),
        ([*TRAIN, "worlds:Plain"], "write @dataclass(frozen=True) above its class"),
        ([*TRAIN, "worlds:Crash"], "worlds:Crash cannot be used: KeyError: 'goal' (worlds.py, line 27)"),
        ([*TRAIN, "worlds:Endless"], "mine/Far-v0: horizon is 0; it must be a whole number of steps, at least 1"),
        ([*TRAIN, "worlds:Halves"], "mine/Far-v0: horizon is 2.5; it must be a whole number"),
        ([*TRAIN, "worlds:Bare"], "mine/Far-v0: draw must return metarl.Tasks, got "),
        ([*TRAIN, "worlds:Stubborn"], "mine/Far-v0: draw was asked for 2 tasks and gave 3"),
        ([*TRAIN, "birds:Waves"], "family birds:Waves is a data set: give it as --dataset"),
        ([*TRAIN, "worlds:Far", "--wind", "-1"], "wind is -1.0; it cannot be negative"),
        ([*TRAIN, "worlds:Far", "--wind", "200"], "worlds:Far: RuntimeError: a storm (worlds.py, line 16)"),
        ([*TRAIN, "worlds:Far", "--preset", "perl"], "unknown preset of worlds:Far 'perl'; did you mean pearl?"),
        (["train", "maml", "--dataset", "worlds:Far", "--out", "x"], "is a task family: give it as --family"),
        (
            ["train", "worlds", "--family", NAVIGATION, "--out", "x"],
            "is no learner: it lacks Config, train, load",
        ),
        (
            ["train", "minds:number", "--family", NAVIGATION, "--out", "x"],
            "number is of type int; name a learner",
        ),
        (["train", "minds", "--out", "x"], "minds needs either --family or --dataset"),
        (
            ["evaluate", "minds:Curveless", "--family", NAVIGATION],
            "of type Curveless, which has no curve(tasks, budget",
        ),
        (["evaluate", "minds:Broken", "--family", NAVIGATION], "cannot be made: KeyError: 'weights' (minds.py, line 3"),
    ],
)
def test_what_is_no_such_thing_is_refused_in_one_line(folder: Path, words: list[str], told: str) -> None:
    before = sorted(folder.iterdir())
    assert told in refused(metarl(*words))
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("object", "its Config must be a dataclass"),
        ("thawed", "its Config must be frozen: write @dataclass(frozen=True) above it"),
        ("three", "its train must be a function of config, source and run"),
        ("short", "its load must be a function of run and source, not (run)"),
    ],
)
def test_a_learner_that_could_not_be_asked_is_refused_before_it_begins(folder: Path, name: str, told: str) -> None:
    (folder / f"learner_{name}.py").write_text(OTHERS[name])
    said = refused(metarl("train", f"learner_{name}", "--family", NAVIGATION, "--out", "run"))
    assert told in said
    assert not Path("run").exists()


def test_a_learner_that_loads_nothing_is_told_so(folder: Path) -> None:
    (folder / "learner_hollow.py").write_text(OTHERS["hollow"])
    assert metarl("train", "learner_hollow", "--family", NAVIGATION, "--out", "run").code == 0
    said = refused(metarl("evaluate", "run", *QUICK))
    assert "learner_hollow loaded something of type NoneType, which has no curve(tasks, budget, seed)" in said


def test_what_packages_add_is_found_by_its_name(installed: Path) -> None:
    assert metarl("train", "maml-trpo", "--family", "mine/Far-v0", "--out", "run", *SMALL).code == 0
    assert metarl("evaluate", "run", *QUICK).code == 0
    assert metarl("train", "minds", "--family", "mine/Far-v0", "--out", "other").code == 0
    assert metarl("evaluate", "other", *QUICK).code == 0
    assert metarl("evaluate", "still", "--family", NAVIGATION, *QUICK).code == 0
    assert metarl("train", "maml", "--dataset", "waves", "--out", "waves", "--iterations", "1").code == 0
    assert registry.make_source("mine/Far-v0", {}).name == "mine/Far-v0"


def test_a_broken_package_is_shown_as_such_and_breaks_nothing_else(installed: Path) -> None:
    reason = "importing broken failed: ModuleNotFoundError: No module named 'nowhere'"
    for kind, broken in {
        "families": {"mine/Gone-v0": reason, "mine/Half-v0": "lacks action_space", NAVIGATION: "the name of another"},
        "agents": {"broken": reason},
        "datasets": {"no-waves": "birds has no Nothing"},
    }.items():
        said = metarl("list", kind)
        assert said.code == 0, said
        rows = json.loads(metarl("list", kind, "--json").out)
        errors = {next(iter(row.values())): row["error"] for row in rows if "error" in row}
        assert errors.keys() == broken.keys()
        for name, told in broken.items():
            assert told in errors[name]
            assert "aviary" in errors[name]
            assert f"broken: {errors[name]}\n" in said.out
        whole = [row for row in rows if "error" not in row]
        assert {"families": "mine/Far-v0", "agents": "still", "datasets": "waves"}[kind] in said.out
        assert kind != "agents" or {row["agent"]: row["what"] for row in whole}["still"] == "Does nothing at all."
    assert reason in refused(metarl("train", "broken", "--out", "x"))
    assert reason in refused(metarl("train", "maml-trpo", "--family", "mine/Gone-v0", "--out", "x"))
    assert "did you mean mine/Far-v0?" in refused(metarl("train", "maml-trpo", "--family", "mine/Far", "--out", "x"))
    words = ["train", "maml-trpo", "--family", NAVIGATION, "--out", "run", *SMALL]
    assert metarl(*words).code == 0  # the package cannot take a name of ours
    assert Run.open("run").recall("where") is None


def test_two_packages_with_one_name_are_told_apart(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = installed / "zoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[metarl.families]\nmine/Far-v0 = worlds:Crash\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    plugins._plugins.cache_clear()
    told = refused(metarl("train", "maml-trpo", "--family", "mine/Far-v0", "--out", "x"))
    assert "two packages add 'mine/Far-v0' to metarl.families" in told
    assert "worlds:Crash (zoo)" in told


def test_a_class_of_a_script_is_refused_when_the_script_is_gone(folder: Path) -> None:
    assert metarl("train", "maml-trpo", "--family", "worlds:Far", "--out", "run", *SMALL).code == 0
    record = json.loads(Path("run/config.json").read_text())
    record["choices"]["where"] = "__main__:Far"
    Path("run/config.json").write_text(json.dumps(record))
    told = refused(metarl("evaluate", "run", *QUICK))
    assert "run was trained on the class Far of a script: move the class into a module, and train anew" in told
