"""Agents measured from Python, beside references that are measured once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from metarl import registry
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.evaluation import measure as measuring
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.measure import ReferenceWarning, frozen_tasks, measure, measure_run, oracle_score, reference
from metarl.learning.contract import Budget, Scores

FAMILY = make_family("metarl/Navigation2D-v0")
RUN = Path(__file__).parents[2] / "results" / "navigation" / "runs" / "ppo-oracle-0"
BUDGET = Budget(1, 2)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_REFERENCES", {})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The references that were made, in order."""
    names: list[str] = []
    make = registry.make_untrained

    def counted(name: str, source: Any) -> Any:
        names.append(name)
        return make(name, source)

    monkeypatch.setattr(registry, "make_untrained", counted)
    return names


def test_an_agent_is_measured_beside_references_that_are_measured_once(made: list[str]) -> None:
    tasks = frozen_tasks(FAMILY, "test", 3)
    still = registry.make_untrained("stand-still", FAMILY)
    made.clear()
    curve = measure(still, source=FAMILY, tasks=tasks, name="mine", budget=BUDGET, seed=3, training_seed=7)
    assert (curve.agent, curve.seeds, curve.evaluation_seed, curve.per_task.shape) == ("mine", (7,), 3, (1, 3, 2))
    for name, score in (("random", curve.random), ("oracle", curve.oracle)):
        alone = registry.make_untrained(name, FAMILY).curve(tasks, Budget(0, 2), 3)
        assert score == pytest.approx(alone.values.mean())
    made.clear()
    again = measure(still, source=FAMILY, tasks=tasks, name="mine", budget=Budget(0, 2), seed=3)
    assert (again.random, again.oracle, made) == (curve.random, curve.oracle, [])  # their steps do not matter


def test_no_more_references_are_kept_than_a_few(monkeypatch: pytest.MonkeyPatch, made: list[str]) -> None:
    monkeypatch.setattr(measuring, "REMEMBERED", 2)
    for seed in (0, 1, 2, 2, 1, 0):
        reference("random", FAMILY, frozen_tasks(FAMILY, "test", 1), BUDGET, seed)
    assert len(measuring._REFERENCES) == 2
    assert len(made) == 4  # 0, which was first, is made again


@pytest.mark.parametrize(
    ("source", "tasks", "budget", "seed"),
    [
        (FAMILY, ("test", 3), BUDGET, 1),
        (FAMILY, ("test", 3), Budget(1, 3), 0),
        (FAMILY, ("test", 4), BUDGET, 0),
        (FAMILY, ("ood", 3), BUDGET, 0),
        (make_family("metarl/Navigation2D-v0", "pearl"), ("test", 3), BUDGET, 0),
    ],
)
def test_other_problems_have_references_of_their_own(
    source: Any, tasks: tuple[str, int], budget: Budget, seed: int, made: list[str]
) -> None:
    first = reference("random", FAMILY, FAMILY.fixed("test", 3), BUDGET, 0)
    other = reference("random", source, source.fixed(*tasks), budget, seed)
    assert made == ["random", "random"]
    assert first != other


def test_a_reference_that_is_not_finite_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def curve(tasks: Any, budget: Budget, seed: int) -> Scores:
        return Scores(np.full((len(tasks), 1), np.nan), None, (0,), None, "return", "diverges")

    monkeypatch.setattr(registry, "make_untrained", lambda name, source: SimpleNamespace(curve=curve))
    with pytest.warns(ReferenceWarning, match="the reference 'random' got scores that are not finite"):
        assert reference("random", FAMILY, FAMILY.fixed("test", 2), BUDGET) is None


def test_classifiers_have_references_by_their_nature(made: list[str]) -> None:
    glyphs = registry.make_source("glyphs", {"ways": 4})
    tasks: Any = None  # not looked at
    assert [reference(name, glyphs, tasks, BUDGET) for name in ("random", "oracle")] == [0.25, 1.0]
    sine = registry.make_source("sinusoid", {})
    assert reference("random", sine, tasks, BUDGET) is None
    assert made == []


def test_a_run_is_measured_by_its_folder() -> None:
    curve = measure_run(RUN, split="validation", tasks=2, budget=Budget(0, 1))
    opened = registry.open_run(RUN)
    tasks = opened.source.fixed("validation", 2)
    assert (curve.agent, curve.split, curve.tasks, curve.config["iterations"]) == ("ppo-oracle", "validation", 2, 100)
    np.testing.assert_array_equal(curve.per_task[0], opened.load().curve(tasks, Budget(0, 1), 0).values)
    assert oracle_score(curve, opened.source, tasks) == pytest.approx(curve.mean[0])
    again = measure_run(RUN, split="validation", tasks=2, budget=Budget(0, 1), oracle=-1.5)
    assert (again.oracle, again.random) == (-1.5, curve.random)
    with pytest.raises(UserError, match="measured on another problem"):
        oracle_score(curve, opened.source, opened.source.fixed("test", 2))
    with pytest.raises(UserError, match="is a curve of random; give an evaluated run of ppo-oracle"):
        oracle_score(AdaptationCurve.from_dict(curve.to_dict() | {"agent": "random"}), opened.source, tasks)
    with pytest.raises(UserError, match="unknown split of metarl/Navigation2D-v0 'tset'; did you mean test"):
        measure_run(RUN, split="tset")
