from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.envs import make_family
from metarl.evaluation import (
    AdaptationCurve,
    comparable,
    labels,
    merge,
    merge_seeds,
    write_atomically,
)
from metarl.learner import Budget, Scores, UserError


def curve(values: Any = (((0.0, 1.0), (2.0, 5.0)),), **changes: Any) -> AdaptationCurve:
    values = np.asarray(values, dtype=np.float64)
    steps = values.shape[2]
    given: dict[str, Any] = {
        "agent": "some-agent",
        "family": "metarl/Navigation2D-v0",
        "preset": "maml2017",
        "split": "test",
        "task_hash": "ab" * 32,
        "seeds": tuple(range(values.shape[0])),
        "protocol": "as tested",
        "score": "return",
        "gradient_steps": tuple(range(steps)),
        "env_steps": tuple(100 * k for k in range(steps)),
        "shots": None,
        "per_task": values,
        "budget": Budget(steps - 1, 1) if steps > 1 else None,
    }
    return AdaptationCurve(**(given | changes))


# Derived quantities


def test_gain_is_paired_over_tasks() -> None:
    # The tasks differ by 1000, every one gains exactly 3: a paired interval has no width.
    base = np.array([0.0, 1000.0, 2000.0])
    found = curve(np.stack([base, base + 3.0], axis=-1)[None]).gain
    for part in (found.value, found.low, found.high):
        assert part.tolist() == [0.0, 3.0]


def test_gain_of_an_error_is_its_decrease() -> None:
    values = [[[4.0, 1.0], [2.0, 1.0]]]
    assert curve(values, score="mse").gain.value.tolist() == [0.0, 2.0]
    assert curve(values).gain.value.tolist() == [0.0, -2.0]


def test_area_is_the_trapezoid_over_the_budget() -> None:
    values = [[[0.0, 4.0, 6.0]]]
    assert curve(values).area.value == pytest.approx(3.5)  # (2 + 5) / 2
    uneven = curve(values, gradient_steps=None, env_steps=(0, 30, 40))
    assert uneven.area.value == pytest.approx((30 * 2 + 10 * 5) / 40)
    idle = curve(values, gradient_steps=None, env_steps=(0, 0, 0))
    assert idle.area.value == pytest.approx(3.5)
    assert curve([[[7.0]]]).area.value == 7.0


@pytest.mark.parametrize(
    ("score", "values", "random", "oracle", "expected"),
    [
        ("return", [[[-38.0, -3.0]]], -73.0, -3.0, [0.5, 1.0]),
        ("mse", [[[4.0, 0.5]]], 4.0, 0.0, [0.0, 0.875]),
    ],
)
def test_normalised_score_is_0_for_random_and_1_for_the_oracle(
    score: Any, values: Any, random: float, oracle: float, expected: list[float]
) -> None:
    found = curve(values, score=score, random=random, oracle=oracle).normalised
    assert found is not None
    assert found.tolist() == expected


def test_normalised_score_needs_two_distinct_references() -> None:
    assert curve(random=1.0).normalised is None
    assert curve(oracle=1.0).normalised is None
    assert curve(random=1.0, oracle=1.0).normalised is None


def test_axis_prefers_what_is_consumed() -> None:
    assert curve().axis == "gradient_steps"
    assert curve(gradient_steps=None).axis == "env_steps"
    idle = curve(gradient_steps=None, env_steps=None)
    assert idle.axis == "k"
    assert idle.along("k") == (0, 1)
    assert not idle.adapts
    with pytest.raises(UserError, match="some-agent consumes no environment steps"):
        idle.along("env_steps")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_task": np.zeros((1, 2))}, "seeds, tasks"),
        ({"per_task": np.zeros((1, 0, 2))}, "not empty"),
        ({"seeds": (0, 1)}, "one distinct seed"),
        ({"score": "reward"}, "must be one of return, accuracy, mse"),
        ({"env_steps": (0,)}, "env_steps must have 2"),
    ],
)
def test_a_curve_checks_itself(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curve(**changes)


# From scores


def scores(values: Any, env_steps: tuple[int, ...] = (0, 4000)) -> Scores:
    return Scores(np.asarray(values, dtype=np.float64), (0, 1), env_steps, None, "return", "as tested")


def test_from_scores_of_several_seeds() -> None:
    family = make_family("metarl/Navigation2D-v0", "pearl")
    tasks = family.fixed("test", 2)
    found = AdaptationCurve.from_scores(
        [scores([[3, 4], [5, 6]], (0, 10)), scores([[1, 2], [7, 8]], (0, 13))],
        agent="a",
        source=family,
        split="test",
        tasks=tasks,
        seeds=(9, 2),
        evaluation_seed=5,
        budget=Budget(1, 10),
        config={"sizes": (64, 64)},
    )
    assert (found.family, found.preset, found.options) == ("metarl/Navigation2D-v0", "pearl", {})
    assert found.task_hash == tasks.sha256()
    assert found.seeds == (2, 9)
    assert found.per_task.tolist() == [[[1, 2], [7, 8]], [[3, 4], [5, 6]]]
    assert found.env_steps == (0, 12)  # the rounded mean of 10 and 13
    assert found.unseen
    assert found.config == {"sizes": [64, 64]}
    assert not AdaptationCurve.from_scores(
        scores([[1, 2]]), agent="a", source=make_family("metarl/Navigation2D-v0", "promp"), split="test", tasks=tasks
    ).unseen


# Files


def test_json_holds_the_schema_and_round_trips(tmp_path: Path) -> None:
    saved = curve(random=-9.0, oracle=0.5, options={"arms": 5}, config={"sizes": (3, 4), "rate": 0.1})
    saved.save(tmp_path / "curve.json")
    document = json.loads((tmp_path / "curve.json").read_text())
    schema = (
        "version agent family preset split task_hash seeds protocol score gradient_steps env_steps shots "
        "per_task mean ci_low ci_high random oracle"
    )
    assert set(schema.split()) <= set(document)
    assert document["mean"] == [1.0, 3.0]
    assert document["per_task"] == [[[0.0, 1.0], [2.0, 5.0]]]
    assert document["seeds"] == [0]
    loaded = AdaptationCurve.load(tmp_path / "curve.json")
    assert loaded.to_dict() == saved.to_dict()
    assert loaded.budget == saved.budget
    assert merge([dataclasses.replace(loaded, seeds=(7,)), saved]).seeds == (0, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["curve.json"]


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path: Path) -> None:
    saved = curve([[[0.0, np.nan], [1.0, np.inf]]], config={"limit": float("inf")})
    saved.save(tmp_path / "curve.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads((tmp_path / "curve.json").read_text(), parse_constant=refuse)
    assert document["per_task"] == [[[0.0, None], [1.0, None]]]
    assert document["mean"] == [0.5, None]
    loaded = AdaptationCurve.load(tmp_path / "curve.json")
    assert np.isnan(loaded.per_task[0, :, 1]).all()


def test_csv_has_a_row_for_each_seed_task_and_step(tmp_path: Path) -> None:
    curve(np.arange(8.0).reshape(2, 2, 2) / 3, seeds=(4, 6)).save(tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert rows[5] == {
        "seed": "6",
        "task": "0",
        "k": "1",
        "gradient_steps": "1",
        "env_steps": "100",
        "shots": "",
        "score": repr(5 / 3),
    }


DAMAGE: list[tuple[dict[str, Any], str]] = [
    ({"version": 2}, "version must be 1, got 2"),
    ({"agent": 3}, "'agent' must be str, got int"),
    ({"seeds": None}, "'seeds' must be list, got NoneType"),
    ({"seeds": ["0"]}, "'seeds' must hold integers"),
    ({"seeds": [0, 1]}, "one distinct seed"),
    ({"per_task": [[[0.0, 1.0], [2.0]]]}, "'per_task' is malformed"),
    ({"per_task": [[["a", "b"]]]}, "'per_task' is malformed"),
    ({"per_task": []}, "per_task must be"),
    ({"gradient_steps": [0, 1.5]}, "'gradient_steps' must hold integers"),
    ({"env_steps": [0]}, "env_steps must have 2 entries"),
    ({"random": True}, "'random' must be int or float or null, got bool"),
    ({"budget": {"steps": 1, "rounds": 2}}, "'budget' is malformed"),
    ({"budget": {"steps": -1, "episodes": 2}}, "steps >= 0"),
    ({"score": "reward"}, "score must be one of"),
    ({"mean": [9.0, 9.0]}, "mean is not the mean"),
    ({"mean": None}, "mean is not the mean"),
    ({"mean": ["x"]}, "could not convert"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[message for _, message in DAMAGE])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, damage: dict[str, Any], message: str) -> None:
    path = tmp_path / "curve.json"
    path.write_text(json.dumps(curve().to_dict() | damage))
    with pytest.raises(UserError, match=message) as caught:
        AdaptationCurve.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"version": 1}'])
def test_a_file_that_is_no_curve_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curve.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        AdaptationCurve.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot read a curve"):
        AdaptationCurve.load(tmp_path / name)


def test_writing_where_it_cannot_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*: No such file"):
        write_atomically(tmp_path / "no" / "file", b"data")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "folder", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# Several curves


def test_merge_joins_seeds_in_order() -> None:
    merged = merge([curve([[[1.0, 2.0]]], seeds=(5,)), curve([[[3.0, 4.0]]], seeds=(1,))])
    assert merged.seeds == (1, 5)
    assert merged.per_task.tolist() == [[[3.0, 4.0]], [[1.0, 2.0]]]


@pytest.mark.parametrize(
    "change",
    [{"agent": "other"}, {"config": {"rate": 1}}, {"evaluation_seed": 1}, {"task_hash": "cd"}, {"protocol": "else"}],
    ids=lambda change: next(iter(change)),
)
def test_merge_refuses_what_differs_in_more_than_the_seed(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="differ in more than the seed"):
        merge([curve(), curve(seeds=(1,), **change)])
    assert len(merge_seeds([curve(), curve(seeds=(1,), **change)])) == 2


def test_merge_refuses_a_seed_given_twice() -> None:
    with pytest.raises(UserError, match="occurs twice"):
        merge([curve(), curve()])


def test_merge_seeds_keeps_the_order_of_agents() -> None:
    found = merge_seeds([curve(agent="b", seeds=(1,)), curve(agent="a"), curve(agent="b")])
    assert [(c.agent, c.seeds) for c in found] == [("b", (0, 1)), ("a", (0,))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "metarl/Other-v0"}, "family metarl/Navigation2D-v0 is not metarl/Other-v0"),
        ({"preset": "pearl"}, "preset maml2017 is not pearl"),
        ({"options": {"arms": 5}}, 'family options {} is not {"arms": 5}'),
        ({"split": "ood"}, "split test is not ood"),
        ({"task_hash": "cd" * 32}, r"tasks abababababab\.\.\. is not cdcdcdcdcdcd\.\.\."),
        ({"score": "mse"}, "kind of score return is not mse"),
        ({"budget": Budget(1, 7)}, "budget 1 steps of 1 episodes is not 1 steps of 7 episodes"),
        ({"budget": None, "env_steps": (0, 999)}, 'budget {"env_steps": 100} is not {"env_steps": 999}'),
    ],
)
def test_comparable_names_what_differs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"cannot compare some-agent with rival: {message}"):
        comparable([curve(), curve(agent="rival", **change)])


def test_comparable_lets_agents_spend_the_budget_differently() -> None:
    comparable([curve(), curve(agent="recurrent", gradient_steps=None, env_steps=(0, 50))])
    comparable([curve(), curve(agent="random", gradient_steps=None, env_steps=(0, 0), budget=None)])
    with pytest.raises(UserError, match="nothing to compare"):
        comparable([])


def test_comparable_refuses_who_overspent() -> None:
    # Two steps of three episodes of at most 10 steps: 60 environment steps a task.
    budget = {"budget": Budget(2, 3), "per_task": np.zeros((1, 2, 3)), "gradient_steps": None}
    fair = curve(env_steps=(0, 30, 60), horizon=10, **budget)
    thrifty = curve(agent="recurrent", env_steps=(0, 10, 20), **budget)
    comparable([fair, thrifty])
    greedy = curve(agent="recurrent", env_steps=(0, 50, 100), **budget)
    with pytest.raises(
        UserError, match="recurrent: it consumed 100 environment steps a task, more than its budget of 2 "
    ):
        comparable([fair, greedy])
    with pytest.raises(UserError, match="2 steps of 3 episodes of 10 steps, 60"):
        comparable([greedy, fair])


def few_shot(agent: str, shots: tuple[int, ...], **changes: Any) -> AdaptationCurve:
    values = np.linspace(0.2, 0.9, len(shots)) * np.ones((1, 4, 1))
    given: dict[str, Any] = {"agent": agent, "family": "omniglot", "preset": None, "score": "accuracy", "shots": shots}
    return curve(values, **(given | {"gradient_steps": None, "env_steps": None, "per_task": values} | changes))


def test_comparable_counts_the_labelled_examples_of_few_shot_tasks() -> None:
    maml = few_shot("maml", (0, 5, 5, 5), gradient_steps=(0, 1, 2, 3), budget=Budget(3, 40))
    protonet = few_shot("protonet", (0, 1, 2, 3, 4, 5), budget=Budget(10, 1))  # --steps has no meaning for it
    comparable([maml, protonet])
    with pytest.raises(UserError, match=r'maml with protonet: budget \{"shots": 5\} is not \{"shots": 2\}'):
        comparable([maml, few_shot("protonet", (0, 1, 2))])


def test_labels_tell_namesakes_apart() -> None:
    curves = [
        curve(config={"rate": 1, "same": 2}),
        curve(config={"rate": 3, "same": 2}),
        curve(agent="other", config={"rate": 1}),
    ]
    assert labels(curves) == ["some-agent (rate=1)", "some-agent (rate=3)", "other"]
    assert labels([curve(), curve()]) == ["some-agent #1", "some-agent #2"]


def test_regret_survives_saving_and_is_the_mean_over_merged_seeds(tmp_path: Path) -> None:
    one, two = (curve([[[1.0]]], seeds=(i,), regret=regret) for i, regret in enumerate([(0.5, 0.25), (0.25, 0.75)]))
    assert merge([one, two]).regret == (0.375, 0.5)
    one.save(tmp_path / "curve.json")
    assert AdaptationCurve.load(tmp_path / "curve.json").regret == (0.5, 0.25)
    assert merge([curve([[[1.0]]], seeds=(0,)), curve([[[1.0]]], seeds=(1,))]).regret is None
