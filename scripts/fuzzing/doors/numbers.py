"""Option values that no one means: every command, every agent, family and data set, every field."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from fuzzing.case import Case, Draw, Place
from fuzzing.kept import NAVIGATION, RUNS

HUGE = ["1000000", "1000000000", "10000000000000", "1000000000000000000", str(2**31), str(2**63), str(2**200)]
NUMBERS = [
    *HUGE,
    *("0", "1", "2", "3", "7", "-1", "-0", "+1", "00", "1_0", "١٢", "²", "0x10", "1e3", "1e400", "-1e400", "1e-400"),
    *("nan", "-nan", "inf", "-inf", "infinity", "-0.0", "0.5", "1.0", "1e308", "5e-324", ".", "", " ", "None", "none"),
]
TEXTS = [
    "",
    " ",
    "-",
    "--",
    "\x1b[31mred",
    "a\nb",
    "a\0b",
    "é",
    "\udc80",
    "../up",
    "x" * 5000,
    "mlp:",
    ":",
    "a:b:c",
    "$(",
]
WORDS = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.text(max_size=12),
)
COUNTS = st.one_of(st.sampled_from([*HUGE, "0", "1", "2", "5", "-1"]), st.integers(0, 10**9).map(str))
FEW = {"iterations": "1", "tasks": "2", "episodes": "1", "threads": "1", "trials": "4", "minibatches": "2", "envs": "2"}
PATIENCE = 1.0  # seconds that an input may train or judge


def trainings(draw: Draw, place: Place) -> Case:
    """`metarl train`, with an agent, a source that may not suit it, and wild values of some options."""
    from metarl.cli.training import TrainOptions
    from metarl.registry import AGENTS, agents, learner

    name = draw(st.sampled_from(sorted(agents())))
    fits = "family" if name in AGENTS else "dataset"
    kind, source = _source(draw, fits)
    own = dataclasses.fields(learner(name).Config)
    words = ["train", name, f"--{kind}", source, "--out", "run", *_few(own)]
    words += wild(draw, [*own, *dataclasses.fields(_class(source)), *dataclasses.fields(TrainOptions)])
    return Case(words, OFFLINE, patience=PATIENCE, hungry=True)


def evaluations(draw: Draw, place: Place) -> Case:
    """`metarl evaluate`, of a run or of an agent that needs no training."""
    from metarl.cli.evaluate import EvaluateOptions
    from metarl.registry import UNTRAINED

    options: list[Any] = [*dataclasses.fields(EvaluateOptions)]
    few = ["--tasks", "2", "--episodes", "1", "--steps", "1"]
    if draw(st.booleans()):
        run = draw(st.sampled_from(sorted(RUNS)))
        shutil.copytree(place.kept / run, place.folder / "run")
        words = ["evaluate", "run", *few]
    else:
        name = draw(st.sampled_from(sorted(UNTRAINED)))
        kind, source = _source(draw, UNTRAINED[name].source or "family")
        options += dataclasses.fields(_class(source))
        words = ["evaluate", name, f"--{kind}", source, *few]
    words += wild(draw, options)
    return Case(words, OFFLINE, may_change=("run/curve*", "run/tasks*", "run"), patience=PATIENCE, hungry=True)


def others(draw: Draw, place: Place) -> Case:
    """The commands that show what was trained."""
    from metarl.cli.compare import CompareOptions
    from metarl.cli.listing import ListOptions
    from metarl.cli.predict import PredictOptions
    from metarl.cli.quickstart import QuickstartOptions
    from metarl.cli.report import ReportOptions
    from metarl.cli.video import VideoOptions

    navigation, curve = str(place.kept / "navigation"), str(place.kept / "random.json")
    commands: dict[str, tuple[list[str], Any]] = {
        "compare": ([navigation, curve, "--out", "x.svg"], CompareOptions),
        "report": ([navigation, "--out", "page"], ReportOptions),
        "video": ([navigation, "--out", "x.gif", "--steps", "1", "--episodes", "1"], VideoOptions),
        "list": ([draw(st.sampled_from(["families", "agents", "datasets"]))], ListOptions),
        "predict": ([str(place.kept / "glyphs"), "--support", "classes", "--query", "x.png"], PredictOptions),
        "quickstart": (["--out", "run"], QuickstartOptions),
    }
    command = draw(st.sampled_from(sorted(commands)))
    words, options = commands[command]
    return Case([command, *words, *wild(draw, dataclasses.fields(options))], OFFLINE, patience=PATIENCE, hungry=True)


OFFLINE = {"METARL_OFFLINE": "1", "METARL_CACHE": "cache", "METARL_DATA": "data"}


def wild(draw: Draw, fields: Sequence[Any]) -> list[str]:
    """Some options, each with values that may not suit it."""
    words: list[str] = []
    for _ in range(draw(st.integers(0, 3))):
        field = draw(st.sampled_from(list(fields)))
        counts = "int" in str(field.type) and draw(st.booleans())
        values = draw(st.lists(COUNTS if counts else WORDS, min_size=0 if draw(st.booleans()) else 1, max_size=2))
        flag = f"--{field.name.replace('_', '-')}"
        words += [f"{flag}={values[0]}"] if values and draw(st.booleans()) else [flag, *values]
    return words


def _few(fields: Sequence[Any]) -> list[str]:
    """Options that keep a training short."""
    names = {field.name for field in fields}
    return [word for name, value in FEW.items() if name in names for word in (f"--{name}", value)]


def _source(draw: Draw, fits: str) -> tuple[str, str]:
    """A family or a data set, seldom of the wrong kind."""
    from metarl.registry import datasets, families

    kind = fits if draw(st.integers(0, 9)) else draw(st.sampled_from(["family", "dataset"]))
    table = families() if kind == "family" else datasets()
    simple = NAVIGATION if kind == "family" else "sinusoid"
    return kind, simple if draw(st.booleans()) else draw(st.sampled_from(sorted(table)))


def _class(source: str) -> Any:
    from metarl.registry import source_class

    return source_class(source)
