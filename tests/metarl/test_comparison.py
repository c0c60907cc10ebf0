from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from metarl.errors import UserError
from metarl.evaluation.axes import FINAL, common_axis, first_reaching
from metarl.evaluation.comparison import Comparison, compare, profiles
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.references import with_common_references
from metarl.evaluation.splits import compare_splits
from metarl.learning.contract import Budget
from metarl.reporting.table import Table
from metarl.reporting.tables import (
    evaluation_table,
    protocol_table,
    score_table,
    split_table,
    summary_table,
    task_table,
)
from metarl.reporting.wording import formatter


def curve(*scores: float, agent: str = "maml", noise: float = 0.0, **changes: Any) -> AdaptationCurve:
    """A curve of four tasks around the scores; the tasks differ by `noise`."""
    values = np.array(scores) + noise * np.arange(4.0)[:, None]
    steps = len(scores)
    given: dict[str, Any] = {
        "agent": agent,
        "family": "metarl/Navigation2D-v0",
        "preset": "maml2017",
        "split": "test",
        "task_hash": "ab" * 32,
        "seeds": (0,),
        "protocol": "as tested",
        "score": "return",
        "gradient_steps": tuple(range(steps)),
        "env_steps": tuple(100 * k for k in range(steps)),
        "shots": None,
        "per_task": values[None],
        "budget": Budget(2, 1),
    }
    return AdaptationCurve(**(given | changes))


IDLE: dict[str, Any] = {"gradient_steps": None, "env_steps": None}


# What is compared


def test_differences_are_of_last_scores_to_the_agent_named() -> None:
    first, second = curve(0.0, 5.0, 7.0, noise=9.0), curve(0.0, 8.0, agent="other", noise=9.0)
    ours, theirs = compare([first, second]).entries
    assert float(ours.difference.value) == 0.0
    assert [float(part) for part in (theirs.difference.value, theirs.difference.low)] == [1.0, 1.0]
    assert float(theirs.improvement.value) == 1.0
    ours, theirs = compare([first, second], against=1).entries
    assert (float(ours.difference.value), float(ours.improvement.value)) == (-1.0, 0.0)


def trained(shift: float = 0.0, seeds: int = 5, **changes: Any) -> AdaptationCurve:
    """A curve of so many seeds, each a bit better than the one before, on eight tasks."""
    last = shift + 0.1 * np.arange(seeds)[:, None, None] + np.arange(8.0)[:, None] + np.array([-1.0, 0.0])
    return curve(0.0, 1.0, **{"seeds": tuple(range(seeds)), "per_task": last, "agent": f"by {shift}"} | changes)


def test_p_needs_five_seeds_of_each_trained_agent() -> None:
    still = curve(agent="random", per_task=np.arange(8.0)[None, :, None] * np.ones(2), trained=False, **IDLE)
    found = compare([trained(seeds=5), trained(3.0, seeds=4), trained(2.0, seeds=5), still])
    assert [np.isfinite(entry.p) for entry in found.entries] == [False, False, True, True]
    assert found.entries[1].without_p == "it needs at least 5 training seeds of each trained agent"
    assert [entry.without_p for entry in found.entries[2:]] == [None, None]
    document = found.to_dict()["agents"]
    assert (document[1]["p_value"], document[1]["without_p_value"]) == (None, found.entries[1].without_p)
    table = summary_table(found)
    assert [row[table.head.index("p")] for row in table.rows][:2] == ["–", "–"]
    assert sum(note.startswith("No p: it needs at least 5") for note in table.notes) == 1
    assert "p" not in summary_table(compare([trained(seeds=4), still])).head


def test_p_is_corrected_for_the_number_of_comparisons() -> None:
    first, second, third = trained(0.0), trained(0.3), trained(0.35)
    alone = [compare([first, other]).entries[1].p for other in (second, third)]
    together = compare([first, second, third])
    assert [entry.uncorrected for entry in together.entries[1:]] == alone
    assert alone[1] < alone[0] < 0.05
    assert [entry.p for entry in together.entries[1:]] == pytest.approx([max(alone[0], 2 * alone[1]), 2 * alone[1]])
    assert any("corrected for 2 comparisons (Holm)" in note for note in summary_table(together).notes)


def test_two_tasks_cannot_give_a_p_below_a_half() -> None:
    ours, theirs = (trained(s, per_task=trained(s).per_task[:, [0, 1] * 4], task_of=(0, 1) * 4) for s in (0.0, 9.0))
    found = compare([ours, theirs])
    assert found.entries[1].p == 0.5
    assert any("With 2 tasks no p can be below 0.5." in note for note in summary_table(found).notes)


def test_what_diverged_is_the_worst_and_its_share_is_shown() -> None:
    values = trained().per_task.copy()
    values[0, 3, 1] = np.nan
    whole, failed = trained(-5.0), trained(per_task=values, agent="failed")
    found = compare([whole, failed], reach=3.0)
    entry = found.entries[1]
    assert float(entry.curve.mean[1]) == np.nanmean(values[..., 1])
    assert (np.isnan(entry.p), np.isnan(entry.difference.value)) == (True, True)
    assert float(entry.improvement.value) == pytest.approx(1 - 1 / 40)
    assert float(entry.middle.value) > -5.0
    assert entry.reached is None  # a mean that leaves out the worst reaches nothing
    assert compare([whole, trained()], reach=3.0).entries[1].reached == 1
    assert max(found.profile[1][1].value) == 1 - 1 / 40
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))["agents"][1]
    assert (document["diverged"], document["difference"]["value"]) == ([0.0, 1 / 40], None)
    table = summary_table(found)
    row = dict(zip(table.head, table.rows[1], strict=True))
    assert (row["return"], row["diverged"]) == (f"{np.nanmean(values[..., 1]):.2f}*", "2.5 %")
    assert row["better than by -5.0 by"] == "diverged"
    assert row["area"].endswith("*")
    assert any(note.startswith("* without the scores that diverged") for note in table.notes)
    table = score_table(found)
    assert [row[table.head.index("diverged")] for row in table.rows] == ["0 %", "0 %", "0 %", "2.5 %"]
    assert table.rows[3][table.head.index("gain")].endswith("*")
    assert "diverged" not in summary_table(compare([whole])).head


def test_all_diverged_is_a_word_and_no_number() -> None:
    found = compare([curve(0.0, 1.0), curve(0.0, np.nan, agent="failed")])
    row = dict(zip(summary_table(found).head, summary_table(found).rows[1], strict=True))
    assert {row["return"], row["IQM"].partition(" ")[0], row["area"]} == {"diverged"}
    assert (row["diverged"], row["P(better)"]) == ("100 %", "0.00")


def test_the_worst_tenth_is_shown_of_ten_tasks_and_more() -> None:
    last = np.arange(20.0)[::-1]
    ours = curve(0.0, 1.0, per_task=np.stack([np.zeros(20), last], -1)[None])
    table = summary_table(compare([ours]))
    assert dict(zip(table.head, table.rows[0], strict=True))["worst tenth"].startswith("0.50 [")
    error = curve(0.0, 1.0, per_task=ours.per_task, score="mse")
    (entry,) = compare([error]).entries
    assert float(entry.worst.value) == 18.5  # the worst error is the largest
    assert entry.worst.low <= entry.worst.value <= entry.worst.high
    assert any("Worst tenth: mean of the worst tenth of the scores (CVaR 10 %)." in note for note in table.notes)
    assert "worst tenth" not in summary_table(compare([curve(0.0, 1.0)])).head


def test_few_seeds_are_said_beside_their_intervals() -> None:
    one, few, many = trained(seeds=1, agent="a"), trained(seeds=3, agent="b"), trained(seeds=5, agent="c")
    notes = summary_table(compare([one, few, many])).notes
    assert any("One training seed of a: its intervals say nothing of another training." in note for note in notes)
    assert any("Fewer than 5 training seeds (b 3): intervals are too narrow." in note for note in notes)
    assert not any("training seed" in note for note in evaluation_table(many).notes)
    assert not any("training seed" in note for note in evaluation_table(trained(seeds=1, trained=False)).notes)


def test_agents_that_do_not_adapt_have_no_gain() -> None:
    still = curve(1.0, 4.0, agent="random", trained=False, **IDLE)
    table = evaluation_table(still)
    assert not {"gain", "gain, 95 %"} & set(table.head)
    assert (table.head, len(table.rows)) == (("return", "95 % interval"), 1)  # two measurements of one number
    both = compare([curve(0.0, 5.0), still])
    table = score_table(both)
    gain = table.head.index("gain")
    assert [row[1:] for row in table.rows[2:]] == [("", "", "4.00", "[4.00, 4.00]", "", "")]
    assert float(both.entries[1].area.value) == 4.0
    assert table.rows[1][gain] == "5.00"
    assert [agent["gain"] is None for agent in both.to_dict()["agents"]] == [False, True]


def test_few_tasks_have_a_row_each() -> None:
    values = np.array([[[-86.8, -15.4], [24.1, 217.3]]])
    arrays = {"direction": [1.0, -1.0]}
    found = curve(0.0, 1.0, per_task=values, task_of=(0, 1), task_arrays=arrays, env_steps=(0, 305))
    table = task_table([found], ["maml"])
    assert table is not None
    assert [row[:4] for row in table.rows] == [
        ("direction=+1", "0", "0", "-86.80"),
        ("direction=+1", "1", "305", "-15.40"),
        ("direction=-1", "0", "0", "24.10"),
        ("direction=-1", "1", "305", "217.30"),
    ]
    assert table.head == ("task", "k", "env steps", "return", "gain")  # one seed has no interval on one task
    seeds = curve(0.0, 1.0, per_task=np.concatenate([values, values + 1]), seeds=(0, 1), task_of=(0, 1))
    resampled = task_table([seeds], ["maml"])
    assert resampled is not None
    assert resampled.rows[0][-3] == "[-86.80, -85.80]"
    both = task_table([found, found], ["a", "b"])
    assert both is not None
    assert [row[0] for row in both.rows[::2]] == [f"{agent}, direction={sign}1" for agent in "ab" for sign in "+-"]
    assert task_table([curve(0.0, 1.0)], ["maml"]) is None  # a file of old: which rows are one task is unknown
    assert task_table([curve(0.0, 1.0, task_of=(0, 0, 0, 0))], ["maml"]) is None
    many = curve(0.0, per_task=np.zeros((1, 7, 1)), task_of=tuple(range(7)))
    assert task_table([many], ["maml"]) is None


def test_a_finite_family_of_old_says_that_its_rows_may_repeat() -> None:
    old = curve(0.0, 1.0, unseen=False)
    assert any(note.startswith("Measured before repeats") for note in evaluation_table(old).notes)
    assert not any("repeats" in note for note in evaluation_table(curve(0.0, task_of=(0, 1, 0, 1))).notes)
    first, second = (trained(s, unseen=False) for s in (0.0, 1.0))
    assert compare([first, second]).entries[1].without_p == "which rows are one task is unknown"
    told = compare([first, trained(1.0, unseen=False, task_of=(0, 1) * 4)])  # what one curve knows, all do
    assert [entry.curve.tasks for entry in told.entries] == [2, 2]
    assert told.entries[1].p == 0.5


def test_steps_need_not_be_round_nor_alike() -> None:
    slow = curve(0.0, 2.0, 6.0, env_steps=(0, 153, 305))
    quick = curve(0.0, 4.0, 5.0, agent="rl2", gradient_steps=None, env_steps=(0, 7, 11))
    found = compare([slow, quick], reach=4.0)
    assert found.axis == "env_steps"
    expected = [(153 * 1 + 152 * 4) / 305, (7 * 2 + 4 * 4.5 + 294 * 5) / 305]
    assert [float(entry.area.value) for entry in found.entries] == pytest.approx(expected)
    table = summary_table(found)
    assert [row[table.head.index("reaches 4.00 after")] for row in table.rows] == ["305 env steps", "7 env steps"]
    assert score_table(found).rows[1][2] == "153"


def test_a_lower_error_is_better() -> None:
    worse, better = curve(4.0, 2.0, score="mse", noise=0.1), curve(4.0, 1.0, agent="other", score="mse", noise=0.1)
    found = compare([worse, better], reach=2.5)
    assert float(found.entries[1].difference.value) == pytest.approx(1.0)
    assert float(found.entries[1].improvement.value) == 1.0
    assert [entry.reached for entry in found.entries] == [1, 1]
    assert float(found.entries[1].curve.gain.value[1]) == pytest.approx(3.0)
    thresholds, (share, best) = profiles(found.curves)
    assert thresholds[0] > thresholds[-1]  # from the worst to the best
    assert (best.value >= share.value).all()
    assert best.value[0] == 1.0


def test_steps_to_reach_a_score() -> None:
    found = curve(-9.0, -5.0, -2.0)
    assert [first_reaching(found, score) for score in (-10.0, -5.0, -4.9, -2.0, 0.0)] == [0, 1, 2, 2, None]
    error = curve(9.0, 5.0, 2.0, score="mse")
    assert [first_reaching(error, score) for score in (10.0, 5.0, 4.9, 0.0)] == [0, 1, 2, None]


def test_area_holds_the_last_score_to_the_end_of_the_common_axis() -> None:
    slow = curve(0.0, 4.0, 4.0, env_steps=(0, 100, 200))
    quick = curve(0.0, 4.0, agent="recurrent", gradient_steps=None, env_steps=(0, 10))
    still = curve(1.0, 1.0, agent="still", **IDLE)
    found = compare([slow, quick, still])
    assert found.axis == "env_steps"
    areas = [float(entry.area.value) for entry in found.entries]
    assert areas == pytest.approx([(2 * 100 + 4 * 100) / 200, (2 * 10 + 4 * 190) / 200, 1.0])


def test_the_axis_is_what_every_curve_climbs() -> None:
    maml, recurrent = curve(0.0, 1.0), curve(0.0, 1.0, agent="rl2", gradient_steps=None)
    assert common_axis([maml]) == "gradient_steps"
    assert common_axis([maml, recurrent]) == "env_steps"
    assert common_axis([maml, curve(0.0, 0.0, agent="still", **IDLE)]) == "gradient_steps"
    assert common_axis([curve(0.0, 0.0, **IDLE)]) == FINAL
    assert common_axis([curve(0.0, 0.0, **IDLE), curve(0.0, 0.0, agent="still", **IDLE)]) == FINAL
    images = curve(0.2, 0.9, 0.9, env_steps=None, shots=(0, 5, 5))
    metric = curve(0.2, 0.8, 0.9, agent="protonet", **IDLE | {"shots": (0, 1, 5)})
    assert common_axis([images, metric]) == FINAL  # one shots axis, which MAML climbs in one jump
    assert common_axis([metric, metric]) == "shots"
    one_shot = curve(0.2, 0.8, agent="protonet", **IDLE | {"shots": (0, 1)})
    assert common_axis([one_shot, one_shot]) == FINAL  # chance, and one score


def test_another_axis_must_be_counted() -> None:
    with pytest.raises(UserError, match="rl2 consumes no gradient steps"):
        compare([curve(0.0, 1.0), curve(0.0, 1.0, agent="rl2", gradient_steps=None)], axis="gradient_steps")


# Several splits


def on_splits() -> list[AdaptationCurve]:
    test = [curve(0.0, 5.0, noise=1.0), curve(1.0, 3.0, agent="rl2", gradient_steps=None, noise=1.0)]
    far = {"split": "ood", "task_hash": "cd" * 32}
    return [*test, curve(-9.0, -2.0, noise=2.0, **far), curve(0.0, -7.0, agent="b", noise=2.0, **far)]


def test_splits_are_compared_within_and_shown_beside_each_other() -> None:
    curves = on_splits()
    test, ood = compare_splits(curves, against=1)
    assert [test.labels, ood.labels] == [["maml", "rl2"], ["maml", "b"]]
    assert [test.against, ood.against] == [1, 0]  # ood lacks rl2
    alone = compare(curves[:2], against=1)
    assert [entry.to_dict() for entry in test.entries] == [entry.to_dict() for entry in alone.entries]
    table = split_table([test, ood])
    assert table.head == ("agent", "test (4 tasks)", "ood (4 tasks)")
    rows = {row[0]: row[1:] for row in table.rows}
    assert [cell.partition(" ")[0] for cell in rows["maml"]] == ["6.50", "1.00"]
    assert rows["maml"][0] == "6.50 [5.50, 7.50]"
    assert (rows["rl2"][1], rows["b"][0]) == ("–", "–")
    assert len(compare_splits(curves[:2])) == 1


def test_splits_of_other_problems_are_refused() -> None:
    for change, message in (
        ({"preset": "pearl"}, "preset maml2017 is not pearl"),
        ({"family": "metarl/Other-v0"}, "family metarl/Navigation2D-v0 is not metarl/Other-v0"),
        ({"score": "mse"}, "kind of score return is not mse"),
        ({"options": {"steps": 1}}, "family options"),
    ):
        with pytest.raises(UserError, match=message):
            compare_splits([curve(0.0), curve(0.0, split="ood", **change)])
    with pytest.raises(UserError, match="tasks abab"):
        compare_splits([curve(0.0), curve(0.0, task_hash="ef" * 32)])
    with pytest.raises(UserError, match="nothing to compare"):
        compare_splits([])


def test_references_are_common() -> None:
    curves = [curve(0.0, random=-70.0, oracle=-1.0), curve(0.0, agent="b", random=-60.0), curve(0.0, agent="c")]
    assert [(c.random, c.oracle) for c in with_common_references(curves)] == [(-65.0, -1.0)] * 3
    assert [(c.random, c.oracle) for c in with_common_references(curves[2:])] == [(None, None)]


def test_a_compared_oracle_stands_in_where_none_is_known() -> None:
    trained = curve(-2.5, -1.5, agent="ppo-oracle", **IDLE)
    found = with_common_references([curve(-40.0, -4.0, random=-60.0), trained])
    assert [c.oracle for c in found] == [-2.0, -2.0]
    assert found[0].normalised is not None
    assert found[0].normalised[-1] == pytest.approx(56 / 58)
    known = with_common_references([curve(-40.0, -4.0, oracle=-1.0), trained])
    assert known[1].oracle == -1.0


def test_problems_that_differ_are_refused() -> None:
    with pytest.raises(UserError, match="split test is not ood"):
        compare([curve(0.0), curve(0.0, agent="oracle", split="ood")])


def test_every_number_is_plain_data() -> None:
    compared = compare([curve(0.0, 1.0, random=-1.0, oracle=2.0), curve(0.0, 2.0, agent="b")], reach=1.5)
    document = json.loads(json.dumps(compared.to_dict(), allow_nan=False))
    assert (document["random"], document["oracle"], document["reach"]) == (-1.0, 2.0, 1.5)
    first, second = document["agents"]
    assert first["reached"] is None
    assert second["reached"] == {"k": 1, "gradient_steps": 1, "env_steps": 100}
    assert second["difference"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert first["normalised"] == pytest.approx([1 / 3, 2 / 3])
    profile = document["performance_profile"]
    assert profile["of"] == "normalised score"
    assert {len(shares["value"]) for shares in profile["shares"].values()} == {len(profile["thresholds"])}


# Tables


@pytest.fixture
def compared() -> Comparison:
    maml = curve(-40.0, -10.0, -4.0, noise=1.0, random=-60.0, oracle=-1.0)
    return compare([maml, curve(-30.0, -2.0, agent="a|b", noise=1.0, gradient_steps=None)], reach=-3.0)


def test_the_summary_says_what_each_agent_reached(compared: Comparison) -> None:
    table = summary_table(compared)
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    assert rows[0]["return"] == "-2.50"
    assert rows[0]["better than maml by"] == "–"
    assert rows[0]["reaches -3.00 after"] == "200 env steps"
    assert rows[1]["better than maml by"] == "2.00 [2.00, 2.00]"
    assert rows[1]["P(better)"] == "1.00"
    assert rows[1]["IQM"].startswith("-0.50 [")
    assert rows[1]["normalised"] == f"{59.5 / 59:.3f}"
    assert any("bootstrap" in note for note in table.notes)
    assert "No p: it needs at least 5 training seeds of each trained agent." in table.notes
    assert table.notes[-1] == "random -60.00; oracle -1.00"


def test_the_protocol_table_says_how_each_agent_was_judged(compared: Comparison) -> None:
    rows = protocol_table(compared).rows
    assert [label for label, _ in rows] == list(compared.labels)
    assert [told for _, told in rows] == [curve.protocol for curve in compared.curves]


def test_the_score_table_has_a_row_for_each_bit_of_adaptation(compared: Comparison) -> None:
    table = score_table(compared)
    assert [row[:3] for row in table.rows] == [
        ("maml", "0", "0"),
        ("maml", "1", "100"),
        ("maml", "2", "200"),
        ("a|b", "0", "0"),
        ("a|b", "1", "100"),
    ]
    assert table.head[3] == "return"
    assert [row[3] for row in table.rows] == ["-38.50", "-8.50", "-2.50", "-28.50", "-0.50"]


def test_one_curve_has_no_differences() -> None:
    one = compare([curve(0.0, 1.0)])
    assert "p" not in summary_table(one).head
    assert evaluation_table(one.curves[0]).head[:3] == ("k", "env steps", "return")


def test_markdown_and_html_escape_what_is_not_theirs(compared: Comparison) -> None:
    text = score_table(compared).markdown().splitlines()
    rows = [line for line in text if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert any("a\\|b" in line for line in rows)
    table = Table(("<b>", "n"), (("<script>", "1 & 2"), ("<script>", "3")), title='"t"', notes=("<i>",))
    page = table.html()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert page.count("&lt;script&gt;") == 1  # the repeated name is left blank
    assert "1 &amp; 2" in page


def test_a_terminal_crops_nothing(compared: Comparison) -> None:
    screen = io.StringIO()
    Console(file=screen, width=120).print(summary_table(compared).rich())
    for row in summary_table(compared).rows:
        assert all(number in screen.getvalue() for number in re.findall(r"[-\d.]+", " ".join(row)))


def test_numbers_are_written_as_their_kind_is() -> None:
    assert formatter(curve(0.0))(-12.345) == "-12.35"
    assert formatter(curve(0.0))(-0.0001) == "0.00"
    assert formatter(curve(0.0, score="accuracy"))(0.98765) == "98.77"
    assert formatter(curve(0.0, score="mse"))(0.12345) == "0.1235"
