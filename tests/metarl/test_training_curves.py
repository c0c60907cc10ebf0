"""Trainings beside one another, from what runs logged: sums by hand, seeds that differ, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from metarl.agents import maml_trpo, rl2
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.evaluation.statistics import bootstrap
from metarl.evaluation.training_curves import training_curves
from metarl.evaluation.training_runs import measures, training_run
from metarl.reporting.figures.training_curves import training_curves_figure
from metarl.reporting.training_tables import end_table, way_table
from metarl.runs.run import Run

FAMILY = make_family("metarl/Navigation2D-v0")
MAML = maml_trpo.Config(validate_every=2, validation_tasks=7)


def logged(
    folder: Path,
    after: Sequence[float | None],
    *,
    seed: int = 0,
    steps: Sequence[int] = (10, 20, 30, 40, 50, 60),
    config: object = MAML,
    learner: str = "maml-trpo",
    family: object = FAMILY,
    names: tuple[str, str] = ("0", "1"),
) -> Path:
    """A run with these returns after adaptation, one in two iterations; before it they are 5 less."""
    run = Run.create(folder, learner=learner, config=config, source=family, seed=seed)
    for i in range(2 * len(after)):
        metrics = {"episodes/steps": float(steps[i])}
        if i % 2 and (value := after[i // 2]) is not None:
            metrics |= {f"return/validation_{name}": value + shift for name, shift in zip(names, (-5, 0), strict=True)}
        elif i % 2:
            metrics |= {"return/validation_0": -9.0, "validation/diverged": 0.5}
        run.log(i, metrics, {"sampling_s": 6.0 * (seed + 1), "update_s": 12.0})
    return folder


def test_steps_and_minutes_add_up_by_hand(tmp_path: Path) -> None:
    run = training_run(logged(tmp_path / "run", [-3.0, -2.0, -1.0]))
    assert run.iterations.tolist() == [2, 4, 6]
    assert run.env_steps.tolist() == [30, 100, 210]
    assert run.minutes is not None
    assert run.minutes == pytest.approx([0.6, 1.2, 1.8])
    assert run.after.tolist() == [-3, -2, -1]
    assert run.before is not None
    assert run.before.tolist() == [-8, -7, -6]


def test_seeds_are_one_curve_whose_steps_may_differ(tmp_path: Path) -> None:
    folders = [
        logged(tmp_path / "b", [0.0, 6.0], seed=1, steps=(30, 30, 30, 30)),
        logged(tmp_path / "a", [-4.0, 2.0], seed=0),
    ]
    [curve] = training_curves(folders)
    assert (curve.label, curve.seeds) == ("maml-trpo", (0, 1))
    assert curve.env_steps.tolist() == [[30, 100], [60, 120]]
    assert curve.minutes == pytest.approx(np.array([[0.6, 1.2], [0.8, 1.6]]))
    assert curve.interval.value.tolist() == [-2, 4]
    expected = bootstrap(np.array([[-4.0, 2.0], [0.0, 6.0]]), factors=1)
    assert curve.interval.low.tolist() == expected.low.tolist() == [-4, 2]
    assert curve.at(1) == {"iteration": 4, "env_steps": 110.0, "minutes": pytest.approx(1.4)}
    assert [curve.reaching(score) for score in (-2.0, 3.9, 5.0)] == [0, 1, None]
    assert curve.remarks == []


def test_a_mean_ends_where_a_seed_does(tmp_path: Path) -> None:
    folders = [logged(tmp_path / "long", [1.0, 2.0, 3.0]), logged(tmp_path / "short", [5.0], seed=1)]
    [curve] = training_curves(folders)
    assert curve.interval.value.tolist() == [3]
    [remark] = curve.remarks
    assert remark.startswith("maml-trpo ends at iteration 2, where all its seeds were validated: ")
    assert remark.endswith("short 2.")


def test_a_validation_that_diverged_is_left_out_and_said(tmp_path: Path) -> None:
    [curve] = training_curves([logged(tmp_path / "run", [1.0, None, 3.0])])
    assert curve.iterations.tolist() == [2, 6]
    assert curve.interval.value.tolist() == [1, 3]
    assert "1 validations in which a task diverged are left out" in curve.remarks[0]


def test_lost_timings_cost_the_minutes_alone(tmp_path: Path) -> None:
    folder = logged(tmp_path / "run", [1.0, 2.0])
    lines = (folder / "timings.jsonl").read_text().splitlines(keepends=True)
    (folder / "timings.jsonl").write_text("".join([lines[0], *lines[2:]]))
    [curve] = training_curves([folder])
    assert curve.minutes is None
    assert curve.env_steps.tolist() == [[30, 100]]
    assert "timings.jsonl has lost lines, so maml-trpo has no minutes" in curve.remarks[0]
    assert end_table([curve], None).rows[0][-1] == "–"
    left, right = training_curves_figure([curve], "title").axes
    assert (len(left.get_lines()), len(right.get_lines())) == (1, 0)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["0", "1"], ("0", "1")),
        (["0", "2", "10"], ("0", "10")),
        (["0"], (None, "0")),
        (["trial", "first", "last"], ("first", "last")),
        (["trial"], (None, "trial")),
        ([], (None, None)),
    ],
)
def test_what_was_measured(names: list[str], expected: tuple[str | None, str | None]) -> None:
    assert measures([{"iteration": 0}, {f"return/validation_{name}": 0.0 for name in names}]) == expected


def test_agents_are_told_apart_and_measured_their_own_way(tmp_path: Path) -> None:
    other = maml_trpo.Config(validate_every=2, validation_tasks=7, max_kl=0.5)
    memory = rl2.Config(validate_every=2, validation_tasks=9)
    folders = [
        logged(tmp_path / "a", [1.0]),
        logged(tmp_path / "b", [2.0], config=other),
        logged(tmp_path / "c", [3.0], config=memory, learner="rl2", names=("first", "last")),
    ]
    curves = training_curves(folders)
    assert [curve.label for curve in curves] == ["maml-trpo (max_kl=0.02)", "maml-trpo (max_kl=0.5)", "rl2"]
    table = end_table(curves, 2.5)
    assert [row[4] for row in table.rows] == [*["1 gradient step, 7 tasks"] * 2, "the last episode of a trial, 9 tasks"]
    assert [row[-2:] for row in table.rows] == [("never", "–"), ("never", "–"), ("30", "0.60")]
    assert [row[5] for row in way_table(curves).rows] == ["1.00", "2.00", "3.00"]
    assert len(training_curves_figure(curves, "title").axes[1].get_lines()) == 3


def test_what_an_agent_adapts_by_is_told(tmp_path: Path) -> None:
    config = rl2.Config(validate_every=2, validation_tasks=9)
    folders = [
        logged(tmp_path / "a", [1.0], config=config, learner="other", names=("0", "2")),
        logged(tmp_path / "b", [1.0], config=config, learner="oracle", names=("x", "0")),
        logged(tmp_path / "c", [1.0], config=config, learner="bandit", names=("x", "trial")),
    ]
    told = [row[4] for row in end_table(training_curves(folders), None).rows]
    assert told == [f"{what}, 9 tasks" for what in ("2 bits of adaptation", "no adaptation", "a whole trial")]


def test_a_seed_of_a_version_that_lacked_an_option_is_of_the_same_agent(tmp_path: Path) -> None:
    folders = [logged(tmp_path / "old", [1.0]), logged(tmp_path / "new", [2.0], seed=1)]
    record = json.loads((folders[0] / "config.json").read_text())
    del record["config"]["gae_lambda"]
    (folders[0] / "config.json").write_text(json.dumps(record))
    [curve] = training_curves(folders)
    assert curve.seeds == (0, 1)


def test_agents_are_called_as_one_wishes(tmp_path: Path) -> None:
    other = maml_trpo.Config(validate_every=2, validation_tasks=7, max_kl=0.5)
    folders = [
        logged(tmp_path / "a", [1.0]),
        logged(tmp_path / "b", [2.0], config=other),
        logged(tmp_path / "c", [3.0], config=other, seed=1),
    ]
    curves = training_curves(folders, [None, "wide", "wide"])
    assert [(curve.label, curve.seeds) for curve in curves] == [("maml-trpo (max_kl=0.02)", (0,)), ("wide", (0, 1))]
    with pytest.raises(UserError, match="wide is the name of two agents, one of them "):
        training_curves(folders, ["wide", "wide", None])


def test_agents_of_very_different_budgets_stand_on_a_logarithmic_axis(tmp_path: Path) -> None:
    few = logged(tmp_path / "a", [1.0], steps=(1, 1))
    many = logged(tmp_path / "b", [1.0], steps=(100, 100), config=maml_trpo.Config(validate_every=2))
    left, right = training_curves_figure(training_curves([few, many]), "title").axes
    assert (left.get_xscale(), right.get_xscale()) == ("log", "linear")


def test_what_cannot_stand_beside_another_is_refused(tmp_path: Path) -> None:
    one = logged(tmp_path / "one", [1.0])
    twice = logged(tmp_path / "twice", [1.0])
    pearl = logged(tmp_path / "pearl", [1.0], family=make_family("metarl/Navigation2D-v0", preset="pearl"), seed=1)
    with pytest.raises(UserError, match=r"a training seed occurs twice in \[0, 0\]"):
        training_curves([one, twice])
    with pytest.raises(UserError, match="preset maml2017 is not pearl"):
        training_curves([one, pearl])
    with pytest.raises(UserError, match="give at least one run folder"):
        training_curves([])
    with pytest.raises(UserError, match="holds no run"):
        training_curves([tmp_path])


def test_a_run_that_logged_too_little_says_what_to_do(tmp_path: Path) -> None:
    silent = Run.create(tmp_path / "silent", learner="maml-trpo", config=maml_trpo.Config(), source=FAMILY, seed=0)
    silent.log(0, {"episodes/steps": 3.0}, {})
    with pytest.raises(UserError, match=r"silent has no validation returns: train it with --validate-every N"):
        training_run(silent.folder)
    early = Run.create(tmp_path / "early", learner="maml-trpo", config=MAML, source=FAMILY, seed=0)
    early.log(0, {"episodes/steps": 3.0}, {})
    with pytest.raises(UserError, match=r"it has not come to its first, after 2 iterations; train it further"):
        training_run(early.folder)
    gaps = Run.create(tmp_path / "gaps", learner="maml-trpo", config=MAML, source=FAMILY, seed=0)
    gaps.log(1, {"episodes/steps": 3.0, "return/validation_1": 1.0}, {})
    with pytest.raises(UserError, match=r"gaps does not log 'episodes/steps' in every iteration"):
        training_run(gaps.folder)
    older = Run.create(tmp_path / "older", learner="rl2", config=rl2.Config(), source=FAMILY, seed=0)
    older.log(0, {"return/validation_last": 1.0}, {})
    with pytest.raises(UserError, match=r"runs of earlier versions of rl2 lack it"):
        training_run(older.folder)
