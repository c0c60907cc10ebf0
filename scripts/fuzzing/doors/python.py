"""What is called from Python, and what the environment says."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from fuzzing.case import Case, Draw, Place
from fuzzing.doors.damage import values
from fuzzing.doors.numbers import FEW, OFFLINE, PATIENCE, TEXTS
from fuzzing.kept import NAVIGATION

VARIABLES = [
    *("COLUMNS", "LINES", "NO_COLOR", "TERM", "LANG", "LC_ALL", "HOME", "TMPDIR", "PYTHONHASHSEED", "XDG_CACHE_HOME"),
    *("METARL_CACHE", "METARL_DATA", "METARL_OFFLINE", "OMP_NUM_THREADS", "MUJOCO_GL", "CUDA_VISIBLE_DEVICES"),
]


def sources(draw: Draw, place: Place) -> Case:
    """`metarl.make_family` and `make_dataset` with presets and options of any kind, and what is made used a little."""
    import metarl
    from metarl.registry import datasets, families, source_class

    name = draw(st.sampled_from([*sorted(families()), *sorted(datasets())]))
    fields = [field.name for field in dataclasses.fields(source_class(name))]
    options: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 3))):
        options[draw(st.sampled_from([*fields, *fields, "rubbish"]))] = values(draw)

    def make() -> None:
        made = (metarl.make_family if name in families() else metarl.make_dataset)(name, **options)
        if name in families():
            assert made.horizon > 0
            metarl.measure(metarl.make_agent("random", made), tasks=1, episodes=1, steps=0)

    return Case(["python", name, repr(options)[:300]], OFFLINE, patience=PATIENCE, hungry=True, call=make)


def environments(draw: Draw, place: Place) -> Case:
    """A small training, list or evaluation in an environment whose variables say anything."""
    chosen = draw(st.lists(st.sampled_from(VARIABLES), min_size=1, max_size=3, unique=True))
    texts = st.one_of(st.sampled_from([text for text in TEXTS if "\0" not in text]), st.integers().map(str))
    said = {name: draw(texts) for name in chosen}
    few = [
        word for name, value in FEW.items() if name in ("tasks", "episodes", "threads") for word in (f"--{name}", value)
    ]
    words = draw(
        st.sampled_from(
            [
                ["list", "families"],
                ["list", "datasets", "--json"],
                ["train", "maml-trpo", "--family", NAVIGATION, "--out", "run", "--iterations", "1", *few],
                ["evaluate", "random", "--family", NAVIGATION, "--tasks", "1", "--episodes", "1", "--steps", "0"],
                ["evaluate", "pixels", "--dataset", "omniglot", "--tasks", "1"],
                ["report", str(place.kept / "navigation"), "--out", "page"],
            ]
        )
    )
    return Case(words, OFFLINE | said, patience=PATIENCE, leaves=("*",))
