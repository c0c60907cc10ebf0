from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from metarl.comparison import FINAL, Comparison, common_axis, compare, first_reaching, profiles, with_common_references
from metarl.evaluation import AdaptationCurve
from metarl.learner import Budget, UserError
from metarl.tables import Table, evaluation_table, formatter, protocol_table, score_table, summary_table


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
    assert (float(ours.difference.value), ours.p) == (0.0, 1.0)
    assert [float(part) for part in (theirs.difference.value, theirs.difference.low)] == [1.0, 1.0]
    assert (theirs.p, float(theirs.improvement.value)) == (2 / 16, 1.0)  # all four signs alike, or all turned
    ours, theirs = compare([first, second], against=1).entries
    assert (float(ours.difference.value), float(ours.improvement.value)) == (-1.0, 0.0)


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
    assert common_axis([curve(0.0, 0.0, **IDLE)]) == "k"
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
    assert (rows[1]["p"], rows[1]["P(better)"]) == ("0.125", "1.00")
    assert rows[1]["IQM"].startswith("-0.50 [")
    assert rows[1]["normalised"] == f"{59.5 / 59:.3f}"
    assert any("bootstrap" in note for note in table.notes)
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
