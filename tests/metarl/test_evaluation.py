from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metarl.envs import make_family
from metarl.errors import UserError
from metarl.evaluation.comparison import compare
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.measure import curve_of
from metarl.evaluation.merging import comparable, labels, merge, merge_seeds
from metarl.learning.contract import Budget, Scores
from metarl.tasks import Tasks


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
    assert idle.area.value == 6.0  # it does not adapt: the last score, and no noise before it
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


# Repeats of one task


def first_rows(labels: list[int]) -> tuple[int, ...]:
    """Where each label was first."""
    return tuple(labels.index(label) for label in labels)


SCORES = st.floats(-100.0, 100.0).map(lambda x: round(x, 3))
PATTERN = st.lists(st.integers(0, 4), min_size=2, max_size=12)


def pair(ours: Any, theirs: Any, task_of: tuple[int, ...] | None = None, **changes: Any) -> list[AdaptationCurve]:
    return [curve(values, agent=agent, task_of=task_of, **changes) for agent, values in (("a", ours), ("b", theirs))]


def numbers(curves: list[AdaptationCurve]) -> dict[str, Any]:
    """Everything that a comparison says of two agents."""
    document = compare(curves, reach=0.0).to_dict()
    return {"agents": document["agents"], "profile": document["performance_profile"]}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == pytest.approx(b, rel=1e-9, abs=1e-9)) if isinstance(a, float) else bool(a == b)


@settings(max_examples=15)
@given(PATTERN, st.data())
def test_any_repeats_give_the_numbers_of_the_distinct_tasks(labels: list[int], data: st.DataObject) -> None:
    distinct = list(dict.fromkeys(labels))
    draw = hnp.arrays(np.float64, (5, len(distinct), 2), elements=SCORES)
    ours, theirs = data.draw(draw), data.draw(draw)
    rows = [distinct.index(label) for label in labels]
    changes = {"trained": data.draw(st.booleans())}
    repeated = pair(ours[:, rows], theirs[:, rows], first_rows(labels), **changes)
    assert same(numbers(repeated), numbers(pair(ours, theirs, tuple(range(len(distinct))), **changes)))


def test_means_weigh_distinct_tasks_equally_and_average_repeats() -> None:
    # One task measured three times (0, 3, 6), one once (9): (3 + 9) / 2, where rows would give 4.5.
    found = curve([[[0.0], [9.0], [3.0], [6.0]]], task_of=(0, 1, 0, 0))
    assert (found.tasks, found.mean.tolist(), found.to_dict()["mean"]) == (2, [6.0], [6.0])
    assert (found.interval.low.tolist(), found.interval.high.tolist()) == ([3.0], [9.0])  # two tasks, not four


@settings(max_examples=15)
@given(st.permutations(range(6)), st.permutations(range(5)), st.integers(0, 2**32))
def test_the_order_of_tasks_and_seeds_is_nothing(tasks: list[int], seeds: list[int], world: int) -> None:
    ours, theirs = np.random.default_rng(world).normal(size=(2, 5, 6, 2))
    turned = [values[seeds][:, tasks] for values in (ours, theirs)]
    first, second = (numbers(pair(*values, tuple(range(6))))["agents"][1] for values in ((ours, theirs), turned))
    assert first["p_value"] == pytest.approx(second["p_value"])
    for name in ("score", "interquartile_mean", "difference", "probability_of_improvement", "area"):
        assert np.allclose(first[name]["value"], second[name]["value"])
        width = np.subtract(first[name]["high"], first[name]["low"])
        for end in ("low", "high"):  # of other resamples
            assert np.all(np.abs(np.subtract(first[name][end], second[name][end])) <= 0.2 * width)


@settings(max_examples=40)
@given(
    hnp.arrays(np.float64, (3, 4, 2), elements=SCORES | st.sampled_from([np.nan, np.inf, -np.inf])),
    st.sampled_from(["return", "mse"]),
    st.sampled_from([None, (0, 1, 0, 3)]),
)
@pytest.mark.filterwarnings("error")
def test_any_scores_that_diverged_are_the_worst_and_make_no_other_number_nan(
    values: Any, score: Any, task_of: tuple[int, ...] | None
) -> None:
    whole = curve(np.zeros((3, 4, 2)), score=score, task_of=task_of)
    found = curve(values, score=score, task_of=task_of, agent="other", random=-1.0, oracle=1.0)
    compared = compare([whole, found], reach=0.0)
    entry = compared.entries[1]
    share = np.isnan(found.scores).mean((0, 1))
    assert found.diverged.tolist() == share.tolist()
    finite = [found.scores[..., k][np.isfinite(found.scores[..., k])] for k in range(2)]
    for k in range(2):
        assert np.isnan(found.mean[k]) == (share[k] == 1)
        assert share[k] == 1 or found.mean[k] == pytest.approx(finite[k].mean())
    better = (finite[1] > 0) if score == "return" else (finite[1] < 0)
    assert float(entry.improvement.value) == pytest.approx(
        (better.sum() + 0.5 * (finite[1] == 0).sum()) / found.scores[..., 1].size
    )
    assert not np.isnan(entry.middle.value)
    for profile in compared.profile[1]:
        assert np.isfinite([profile.value, profile.low, profile.high]).all()
    assert compared.profile[1][1].value.max() <= 1 - share[1] + 1e-12  # rounding
    json.dumps(compared.to_dict(), allow_nan=False)
    again = AdaptationCurve.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert np.array_equal(again.per_task, found.per_task, equal_nan=True)


def test_one_score_that_diverged_leaves_the_other_29() -> None:
    values = np.arange(30.0)[None, :, None] * np.ones(2)
    values[0, 7, 1] = np.nan
    found = curve(values)
    assert found.mean.tolist() == [14.5, pytest.approx((435 - 7) / 29)]
    assert found.diverged.tolist() == [0.0, 1 / 30]
    document = found.to_dict()
    assert document["diverged"] == [0.0, 1 / 30]
    of_old = document | {"mean": [14.5, None]}  # what files said before
    assert AdaptationCurve.from_dict(of_old).mean.tolist() == found.mean.tolist()
    with pytest.raises(UserError, match="mean is not the mean"):
        AdaptationCurve.from_dict(document | {"mean": [None, document["mean"][1]]})


def test_an_error_that_diverged_is_infinitely_large() -> None:
    assert curve([[[np.nan], [2.0]]], score="mse").ranked.tolist() == [[[np.inf], [2.0]]]
    assert curve([[[np.nan], [2.0]]], score="return").ranked.tolist() == [[[-np.inf], [2.0]]]


def test_a_repeat_that_diverged_makes_its_task_diverge() -> None:
    found = curve([[[1.0], [np.inf], [3.0], [5.0]]], task_of=(0, 0, 2, 2))
    assert (found.mean.tolist(), found.diverged.tolist()) == ([4.0], [0.5])


def test_a_curve_knows_which_rows_are_one_task(tmp_path: Path) -> None:
    family = make_family("metarl/HalfCheetahDirection-v0")
    tasks = Tasks({"direction": [1.0, -1.0, 1.0]})
    made = curve_of(scores([[0, 1], [2, 3], [4, 5]]), agent="a", source=family, split="test", tasks=tasks)
    made.save(tmp_path / "curve.json")
    for found in (
        made,
        AdaptationCurve.load(tmp_path / "curve.json"),
        merge([made, dataclasses.replace(made, seeds=(1,))]),
    ):
        assert (found.task_of, found.tasks, found.few_tasks) == ((0, 1, 0), 2, True)
        assert found.task_names == ("direction=+1", "direction=-1")
        assert found.mean.tolist() == [2.0, 3.0]
        assert found.of_task(0).mean.tolist() == [2.0, 3.0]
        assert found.of_task(1).mean.tolist() == [2.0, 3.0]
        assert [found.of_task(d).task_arrays for d in range(2)] == [{"direction": [1.0]}, {"direction": [-1.0]}]
    known = dataclasses.replace(made, seeds=(1,))
    of_old = dataclasses.replace(made, task_of=None, task_arrays=None)
    assert (of_old.tasks, of_old.repeats_unknown, of_old.few_tasks) == (3, True, False)
    assert merge([of_old, known]).task_of == (0, 1, 0)
    with pytest.raises(UserError, match="differ in which rows are one task"):
        comparable([made, dataclasses.replace(made, task_of=(0, 1, 2), task_arrays=None)])
    with pytest.raises(ValueError, match=r"scores of each of the 3 tasks, got \[2\]"):
        curve_of(scores([[0, 1], [2, 3]]), agent="a", source=family, split="test", tasks=tasks)


def test_regret_weighs_distinct_tasks_equally() -> None:
    family, tasks = make_family("metarl/BernoulliBandit-v0"), Tasks({"means": [[0.1], [0.9], [0.1]]})
    regret = np.array([[0.0, 1.0], [6.0, 3.0], [2.0, 5.0]])
    given = Scores(np.zeros((3, 1)), None, (0,), None, "return", "as tested", regret)
    made = curve_of(given, agent="a", source=family, split="test", tasks=tasks)
    assert made.regret == (3.5, 3.0)  # of (0 + 2) / 2 and 6, and so on


def test_names_of_tasks_are_short_and_distinct() -> None:
    def named(arrays: dict[str, Any], n: int = 2) -> tuple[str, ...]:
        return curve(np.zeros((1, n, 1)), task_of=tuple(range(n)), task_arrays=arrays or None).task_names

    assert named({"goal": [[-2.0, 2.0], [2.0, 0.5]]}) == ("goal=(-2, +2)", "goal=(+2, +0.5)")
    assert named({"velocity": [0.5, 1.0], "slope": [3, 4]}) == ("velocity=0.5, slope=3", "velocity=1, slope=4")
    assert named({"x": [1.0, 1.0 + 1e-9]}) == ("task 0", "task 1")  # alike to six digits
    assert named({}) == ("task 0", "task 1")
    large = Tasks({"transition": np.arange(14.0).reshape(2, 7)})
    family = make_family("metarl/HalfCheetahDirection-v0")
    made = curve_of(scores([[0, 1], [2, 3]]), agent="a", source=family, split="test", tasks=large)
    assert (made.task_arrays, made.few_tasks, made.task_names) == (None, True, ("task 0", "task 1"))
    for arrays in ({"x": [1.0]}, {"x": ["a", "b"]}, {"x": 3.0}, {"x": [[0.0] * 7] * 2}, {"x": [[1.0], [1.0, 2.0]]}):
        with pytest.raises(ValueError, match=r"task_arrays|inhomogeneous"):
            named(arrays)


def test_agents_that_are_not_trained_are_known_by_their_files() -> None:
    document = curve(config={"rate": 1}).to_dict()
    assert document["trained"]
    of_old = {name: value for name, value in document.items() if name not in ("trained", "task_of", "task_arrays")}
    assert AdaptationCurve.from_dict(of_old).trained
    assert not AdaptationCurve.from_dict(of_old | {"config": {}}).trained  # as of old: only those had none
    assert AdaptationCurve.from_dict(of_old).task_of is None
    assert not AdaptationCurve.from_dict(document | {"trained": False}).trained


def test_steps_consumed_are_rounded_and_never_fall() -> None:
    assert curve(env_steps=(0, 152.7)).env_steps == (0, 153)
    with pytest.raises(ValueError, match="env_steps counts what was consumed and cannot fall"):
        curve(env_steps=(10, 9))


# From scores


def scores(values: Any, env_steps: tuple[int, ...] = (0, 4000)) -> Scores:
    return Scores(np.asarray(values, dtype=np.float64), (0, 1), env_steps, None, "return", "as tested")


def test_from_scores_of_several_seeds() -> None:
    family = make_family("metarl/Navigation2D-v0", "pearl")
    tasks = family.fixed("test", 2)
    found = curve_of(
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
    assert not curve_of(
        scores([[1, 2]]),
        agent="a",
        source=make_family("metarl/Navigation2D-v0", "promp"),
        split="test",
        tasks=tasks[:1],
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
    assert document["diverged"] == [0.0, 1.0]
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
        "repeat": "0",
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
    ({"task_of": [0, 1, 2]}, "task_of must name, for each of 2 rows"),
    ({"task_of": [1, 1]}, "task_of must name, for each of 2 rows"),
    ({"task_of": [0.0, 1.0]}, "'task_of' must hold integers"),
    ({"task_arrays": {"x": [1.0]}}, "numbers of each of the 2 tasks"),
    ({"trained": 1}, "'trained' must be bool, got int"),
    ({"env_steps": [5, 0]}, "cannot fall"),
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


def test_comparable_holds_a_known_budget_against_those_that_know_none() -> None:
    budget = {"budget": Budget(2, 3), "per_task": np.zeros((1, 2, 3)), "gradient_steps": (0, 1, 2)}
    known = curve(env_steps=(0, 17, 31), horizon=10, **budget)  # episodes end early: counts are what they are
    unknown = budget | {"agent": "other", "budget": None}
    comparable([known, curve(env_steps=(0, 29, 60), **unknown)])
    with pytest.raises(UserError, match="other: it consumed 61 environment steps a task, more than the budget of 2 "):
        comparable([known, curve(env_steps=(0, 29, 61), **unknown)])


def test_comparable_refuses_who_overspent() -> None:
    # Two steps of three episodes of at most 10 steps: 60 environment steps a task.
    budget = {"budget": Budget(2, 3), "per_task": np.zeros((1, 2, 3)), "gradient_steps": (0, 1, 2)}
    fair = curve(env_steps=(0, 30, 60), horizon=10, **budget)
    recurrent = budget | {"agent": "recurrent", "gradient_steps": None}
    thrifty = curve(env_steps=(0, 10, 20), **recurrent)
    comparable([fair, thrifty])
    greedy = curve(env_steps=(0, 50, 100), **recurrent)
    with pytest.raises(
        UserError, match="recurrent: it consumed 100 environment steps a task, more than the budget of 2 "
    ):
        comparable([fair, greedy])
    with pytest.raises(UserError, match="2 steps of 3 episodes of 10 steps, 60"):
        comparable([greedy, fair])


def test_budgets_that_change_nothing_forbid_nothing() -> None:
    learner = curve(np.zeros((1, 2, 3)), budget=Budget(2, 3), env_steps=(0, 30, 60), horizon=10)
    still = {"gradient_steps": None, "env_steps": None, "trained": False}
    oracle = curve(np.zeros((1, 2, 1)), agent="oracle", budget=Budget(0, 500), **still)
    random = curve(np.zeros((1, 2, 6)), agent="random", budget=Budget(5, 1), **still)
    trial = {"agent": "recurrent", "gradient_steps": None, "env_steps": (0, 12)}  # --steps has no meaning for it
    recurrent = [curve(budget=Budget(*asked), seeds=(i,), **trial) for i, asked in enumerate([(0, 1), (7, 40)])]
    for order in itertools.permutations([learner, oracle, random, *recurrent]):
        comparable(order)
    assert [c.seeds for c in merge_seeds(recurrent)] == [(0, 1)]
    slower = curve(np.zeros((1, 2, 3)), agent="slower", budget=Budget(2, 4))
    for order in itertools.permutations([learner, oracle, slower]):
        with pytest.raises(UserError, match=r"budget 2 steps of (3|4) episodes is not 2 steps of (3|4) episodes$"):
            comparable(order)
    with pytest.raises(UserError, match="recurrent: it consumed 61 environment steps a task, more than the budget"):
        comparable([curve(budget=Budget(9, 9), **trial | {"env_steps": (0, 61)}), learner])


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
