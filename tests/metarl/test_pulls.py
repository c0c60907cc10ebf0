from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from metarl.errors import UserError
from metarl.evaluation.axes import FINAL, PULLS, common_axis
from metarl.evaluation.comparison import compare
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.measure import curve_of
from metarl.evaluation.merging import merge
from metarl.evaluation.pulls import each_pull
from metarl.learning.contract import Scores
from metarl.reporting.plots import figure
from metarl.reporting.tables import summary_table
from metarl.tasks import Tasks


def bandit(*regret: float, agent: str = "gittins", **changes: Any) -> AdaptationCurve:
    fields: dict[str, Any] = {
        "agent": agent,
        "family": "metarl/BernoulliBandit-v0",
        "preset": "duan2016",
        "split": "test",
        "task_hash": "ab" * 32,
        "seeds": (0,),
        "protocol": "as tested",
        "score": "return",
        "gradient_steps": None,
        "env_steps": (0,),
        "shots": None,
        "per_task": np.array([[[1.0], [2.0], [2.4]]]),
        "regret": regret or None,
        "best_arm": 0.9,
        "horizon": 3,
        "trained": False,
    }
    return AdaptationCurve(**(fields | changes))


def random(**changes: Any) -> AdaptationCurve:
    measured = {"per_task": np.array([[[1.0, 2.0], [1.5, 1.5], [1.0, 2.0]]]), "env_steps": None, "best_arm": None}
    return bandit(agent="random", **(measured | changes))


def test_a_pull_pays_the_best_arm_less_what_it_cost() -> None:
    learning, still = each_pull([bandit(0.5, 0.3, 0.1), random()]) or []
    assert learning.regret.tolist() == [0.5, 0.3, 0.1]
    assert learning.reward == pytest.approx([0.4, 0.6, 0.8])
    assert still.reward == pytest.approx([0.5] * 3)  # 1.5 in a trial of three pulls, all alike
    assert still.regret == pytest.approx([0.4] * 3)
    (old,) = each_pull([bandit(0.5, 0.3, 0.1, best_arm=None)]) or []
    assert old.reward is None


@pytest.mark.parametrize(
    "other",
    [
        bandit(0.5, 0.3),
        random(horizon=4),
        random(env_steps=(0, 3)),
        random(per_task=np.full((1, 3, 2), np.nan)),
        random(horizon=None),
    ],
    ids=["other pulls", "other trials", "adapts", "diverged", "unknown trial"],
)
def test_pulls_that_are_not_known_are_not_made_up(other: AdaptationCurve) -> None:
    curves = [bandit(0.5, 0.3, 0.1), other]
    assert each_pull(curves) is None
    assert common_axis(curves) != PULLS
    with pytest.raises(UserError, match="do not all count the same pulls of a bandit; draw them against another axis"):
        compare(curves, axis="pulls")


def test_bandits_are_compared_and_drawn_by_pull() -> None:
    curves = [bandit(0.5, 0.3, 0.1), bandit(0.5, 0.4, 0.4, agent="thompson"), random()]
    compared = compare(curves)
    assert (compared.axis, common_axis([random()])) == (PULLS, FINAL)
    table = summary_table(compared)
    regret = table.head.index("regret")
    assert [row[regret] for row in table.rows] == ["0.90", "1.30", "1.20"]
    assert "area" not in table.head
    assert compared.to_dict()["agents"][0]["reward"] == pytest.approx([0.4, 0.6, 0.8])
    panels = {ax.get_ylabel(): ax for ax in figure(curves).axes}
    drawn = {
        what: [np.asarray(line.get_ydata(), float).round(6).tolist() for line in ax.get_lines()]
        for what, ax in panels.items()
    }
    assert drawn["expected regret of a pull"] == [[0.5, 0.3, 0.1], [0.5, 0.4, 0.4], [0.4, 0.4, 0.4]]
    assert drawn["expected reward of a pull"][:2] == [[0.4, 0.6, 0.8], [0.4, 0.5, 0.5]]
    assert set(drawn["expected reward of a pull"][3]) == {0.9}
    assert drawn["expected regret so far"][0] == [0.5, 0.8, 0.9]
    names = [text.get_text() for text in figure(curves).legends[0].get_texts()]
    assert names == ["gittins", "thompson", "random", "best arm"]
    assert len(figure([bandit(0.5, 0.3, 0.1, best_arm=None)]).axes) == 2  # a file of old knows no reward


def test_a_regret_that_falls_far_is_drawn_on_a_logarithmic_scale() -> None:
    axes = figure([bandit(0.5, 0.1, 0.01), random()]).axes
    assert [ax.get_yscale() for ax in axes] == ["linear", "log", "linear"]
    assert [ax.get_yscale() for ax in figure([bandit(0.5, 0.1, 0.0)]).axes] == ["linear"] * 3  # no logarithm of 0


def test_the_best_arm_is_measured_with_the_regret(tmp_path: Any) -> None:
    from metarl.envs import make_family

    family = make_family("metarl/BernoulliBandit-v0", arms=2, pulls=2)
    tasks = Tasks({"mean": np.array([[0.2, 0.8], [0.6, 0.5]])}, split="test")
    scores = Scores(np.ones((2, 1)), None, (0,), None, "return", "as tested", regret=np.array([[0.6, 0.0], [0.0, 0.1]]))
    measured = curve_of([scores, scores], agent="a", source=family, split="test", tasks=tasks, seeds=(0, 1))
    assert measured.best_arm == pytest.approx((0.8 + 0.6) / 2)
    measured.save(tmp_path / "a.json")
    assert AdaptationCurve.load(tmp_path / "a.json").best_arm == measured.best_arm
    assert merge([measured]).best_arm == measured.best_arm
