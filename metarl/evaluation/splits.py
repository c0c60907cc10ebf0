"""Curves of one problem on several of its splits: compared within each, and shown beside each other.

Test and out-of-distribution tasks are different tasks, so nothing is paired across splits and no p-value is of two.
"""

from __future__ import annotations

from collections.abc import Sequence

from metarl.errors import UserError
from metarl.evaluation.comparison import Comparison, compare
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import IDENTITY, same

ACROSS = {field: what for field, what in IDENTITY.items() if field not in ("split", "task_hash")}


def compare_splits(
    curves: Sequence[AdaptationCurve], *, against: int = 0, reach: float | None = None, axis: str | None = None
) -> list[Comparison]:
    """A comparison for each split, in order of first appearance; see `comparison.compare`.

    Args:
        curves: of one problem, on one split or several.
        against: index of the agent that the others are compared to; in a split that lacks it, the first.
        reach: a score whose steps are reported.
        axis: what to compare against.

    Raises:
        UserError: they are of different problems, or those of one split are not comparable.
    """
    if not curves:
        raise UserError("nothing to compare: give at least one run or curve")
    for other in curves[1:]:
        for field, what in ACROSS.items():
            same(curves[0], other, what, getattr(curves[0], field), getattr(other, field))
    groups: dict[str, list[AdaptationCurve]] = {}
    for curve in curves:
        groups.setdefault(curve.split, []).append(curve)
    chosen = agent_of(curves[against])
    places = [next((i for i, c in enumerate(group) if agent_of(c) == chosen), 0) for group in groups.values()]
    return [
        compare(group, against=place, reach=reach, axis=axis)
        for group, place in zip(groups.values(), places, strict=True)
    ]


def agent_of(curve: AdaptationCurve) -> tuple[str, str]:
    """What an agent is known by on another split: its name and options."""
    return curve.agent, repr(sorted(curve.config.items()))
