"""What curves are drawn and compared against: what was consumed before each score."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from metarl.evaluation.curve import UNITS, AdaptationCurve
from metarl.evaluation.pulls import each_pull

FINAL = "final"  # the axis of curves that count nothing in common: their last scores only
PULLS = "pulls"  # the axis of bandits: what each pull pays and costs


def common_axis(curves: Sequence[AdaptationCurve]) -> str:
    """What the curves are best drawn against.

    Pulls of bandits; the first of gradient steps, environment steps and shots that rises from score to score in every
    curve that adapts; a single curve's own axis; else `FINAL`: MAML's gradient steps and ProtoNet's shots have no
    axis in common, only the labelled examples that both have in the end.
    """
    if each_pull(curves) is not None:
        return PULLS
    adapting = [curve for curve in curves if curve.adapts]
    if len(adapting) == len(curves) == 1:
        return curves[0].axis
    for name in UNITS:
        if adapting and all(_rises(getattr(curve, name)) for curve in adapting):
            return FINAL if name == "shots" and all(curve.steps == 1 for curve in adapting) else name
    return FINAL


def _rises(positions: Sequence[int] | None) -> bool:
    return positions is not None and all(a < b for a, b in itertools.pairwise(positions))


def first_reaching(curve: AdaptationCurve, score: float) -> int | None:
    """The least k whose mean score is at least the wanted one (at most, for an error); None if there is none.

    A mean that leaves out scores which diverged reaches nothing.
    """
    good = curve.mean >= score if curve.higher_is_better else curve.mean <= score
    good &= curve.diverged == 0
    return int(np.argmax(good)) if good.any() else None


def consumed(curve: AdaptationCurve, k: int) -> dict[str, int]:
    """What had been consumed before score k, in every unit that the curve counts."""
    return {"k": k} | {name: axis[k] for name in UNITS if (axis := getattr(curve, name)) is not None}
