from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from metarl.envs import make_family
from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.distinct import FEW_TASKS
from metarl.evaluation.task_arrays import MOST, task_numbers, told, with_task_arrays
from metarl.reporting.figures.style import render
from metarl.reporting.figures.tasks import tasks_figure
from metarl.reporting.plots import plot_tasks
from metarl.tasks import Tasks

RESULTS = Path(__file__).resolve().parents[2] / "results"
MANY = FEW_TASKS + 1


def arrays(n: int, **sizes: int) -> Tasks:
    return Tasks({name: np.arange(float(n * size)).reshape(n, size) for name, size in sizes.items()})


def test_a_curve_keeps_what_places_its_tasks() -> None:
    assert list(told(arrays(2, goal=2, colour=4), "return") or {}) == ["colour", "goal"]
    assert told(arrays(2, goal=7), "return") is None
    assert list(told(arrays(MANY, goal=2), "return") or {}) == ["goal"]
    assert list(told(arrays(MANY, amplitude=1, phase=1, support_x=10), "mse") or {}) == ["amplitude", "phase"]
    assert told(arrays(MANY, goal=3), "return") is None
    assert told(arrays(MANY, a=1, b=1, c=1), "return") is None
    assert told(arrays(MANY, classes=2), "accuracy") is None  # two classes are no place
    assert told(arrays(MOST + 1, speed=1), "return") is None
    with pytest.raises(ValueError, match="task_arrays of 7 tasks are for at most 2 numbers each"):
        curve(MANY, task_arrays={"goal": np.zeros((MANY, 3))})


def curve(n: int, **changes: Any) -> AdaptationCurve:
    fields: dict[str, Any] = {
        "agent": "maml",
        "family": "metarl/HalfCheetahVelocity-v0",
        "preset": "maml2017",
        "split": "test",
        "task_hash": "ab" * 32,
        "seeds": (0, 1),
        "protocol": "as tested",
        "score": "return",
        "gradient_steps": (0, 1),
        "env_steps": (0, 200),
        "shots": None,
        "per_task": np.arange(n * 4.0).reshape(2, n, 2),
        "task_of": tuple(range(n)),
    }
    return AdaptationCurve(**(fields | changes))


def test_frozen_tasks_of_old_curves_are_drawn_again(tmp_path: Path) -> None:
    old = AdaptationCurve.load(RESULTS / "navigation" / "maml-trpo-0.json")
    assert old.task_arrays is None
    (placed,) = with_task_arrays([old])
    goals = make_family("metarl/Navigation2D-v0").fixed("test", old.tasks).arrays["goal"]
    assert placed.task_arrays is not None
    assert_array_equal(placed.task_arrays["goal"], goals)
    placed.save(tmp_path / "a.json")
    assert_array_equal((AdaptationCurve.load(tmp_path / "a.json").task_arrays or {})["goal"], goals)
    plot_tasks([old], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_tasks_that_are_not_those_of_the_curve_are_not_taken_for_them() -> None:
    assert with_task_arrays([curve(MANY)])[0].task_arrays is None  # another hash
    assert with_task_arrays([curve(MANY, split="unknown")])[0].task_arrays is None
    assert with_task_arrays([curve(MANY, family="antigravity:Family")])[0].task_arrays is None
    known = {"velocity": np.linspace(0, 1, MANY)}
    both = with_task_arrays([curve(MANY), curve(MANY, task_arrays=known)])
    assert_array_equal((both[0].task_arrays or {})["velocity"], known["velocity"])


def test_dots_are_where_the_numbers_are() -> None:
    speeds = np.linspace(0, 2, MANY)
    first = curve(MANY, task_arrays={"velocity": speeds, "same": np.ones(MANY)})
    still = {"gradient_steps": None, "env_steps": None, "agent": "random"}
    panels = tasks_figure([first, curve(MANY, task_arrays={"velocity": speeds}, **still)]).axes
    assert [ax.get_xlabel() for ax in panels] == ["velocity"] * 2
    before, after = (dots.get_offsets() for dots in panels[0].collections)
    assert_array_equal(before, np.stack([speeds, first.scores[..., 0].mean(0)], 1))
    assert_array_equal(after, np.stack([speeds, first.scores[..., 1].mean(0)], 1))
    assert len(panels[1].collections) == 1  # it does not adapt: nothing is before
    assert panels[1].get_title(loc="left") == "random\n(does not adapt)"


def test_places_are_maps_before_and_after_in_one_scale() -> None:
    goals = np.random.default_rng(0).normal(size=(MANY, 2))
    placed = curve(MANY, task_arrays={"goal": goals})
    *panels, bar = tasks_figure([placed]).axes
    assert [ax.get_title(loc="left") for ax in panels] == ["maml\nbefore", "maml\nafter"]
    for k, ax in enumerate(panels):
        (dots,) = ax.collections
        assert_array_equal(dots.get_offsets(), goals)
        assert_array_equal(dots.get_array(), placed.scores[..., k].mean(0))
    assert panels[0].collections[0].norm is panels[1].collections[0].norm
    assert bar.get_ylabel() == "return"
    assert (panels[0].get_xlabel(), panels[0].get_ylabel()) == ("goal[0]", "goal[1]")


def test_a_task_on_which_all_diverged_has_no_dot_and_breaks_nothing() -> None:
    scores = np.arange(MANY * 4.0).reshape(2, MANY, 2)
    scores[0, 1, 1] = scores[:, 2, 1] = np.nan
    for kept in ({"goal": np.eye(MANY)[:, :2]}, {"speed": np.arange(MANY)}):
        drawn = tasks_figure([curve(MANY, per_task=scores, task_arrays=kept)])
        assert render(lambda drawn=drawn: drawn, "svg")
    (after,) = tasks_figure([curve(MANY, per_task=scores, task_arrays=kept)]).axes[0].collections[1:]
    shown = np.asarray(after.get_offsets())[:, 1]
    assert shown[1] == scores[1, 1, 1]


def test_tasks_without_a_place_are_refused() -> None:
    arms = {"mean": np.arange(6.0).reshape(2, 3)}
    for none in (curve(MANY), curve(2, task_arrays=arms), curve(2, task_arrays={"same": [1, 1]})):
        assert task_numbers(none) is None
        with pytest.raises(UserError, match=r"cannot be placed: .* one or two numbers that tell them apart"):
            tasks_figure([none])
