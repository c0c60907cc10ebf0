"""A bandit's curve: what each pull is expected to pay and to cost, within the trial in which an agent adapts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.statistics import Values


@dataclass(frozen=True, eq=False)
class Pulls:
    """The pulls of one agent, means over tasks, seeds and trials.

    Attributes:
        regret: `(n,)` mean of the best arm minus mean of the arm pulled.
        reward: `(n,)` mean of the arm pulled, or None where the mean of the best arm is unknown.
    """

    regret: Values
    reward: Values | None


def counted_pulls(curves: Sequence[AdaptationCurve]) -> list[Pulls]:
    """The pulls of every curve.

    Raises:
        UserError: one of them has none.
    """
    pulls = each_pull(curves)
    if pulls is None:
        raise UserError("these agents do not all count the same pulls of a bandit; draw them against another axis")
    return pulls


def each_pull(curves: Sequence[AdaptationCurve]) -> list[Pulls] | None:
    """The pulls of every curve; None where one of them has none.

    An agent that does not adapt need not count: each of its pulls pays the same, its return over the pulls.
    """
    counted = {len(curve.regret) for curve in curves if curve.regret is not None}
    if len(counted) != 1:
        return None
    (pulls,) = counted
    best = next((curve.best_arm for curve in curves if curve.best_arm is not None), None)
    each = []
    for curve in curves:
        if curve.regret is not None:
            regret = np.asarray(curve.regret)
        elif best is None or curve.adapts or curve.horizon != pulls or curve.diverged.any():
            return None
        else:
            regret = np.full(pulls, best - float(curve.mean.mean()) / pulls)
        each.append(Pulls(regret, None if best is None else best - regret))
    return each
