"""Several curves of one problem beside one another: every number that a comparison reports.

Scores are compared at the end of what each agent did with the budget, in pairs of the same task, always to
one of the agents, with common references and on a common axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from metarl.evaluation import statistics
from metarl.evaluation.axes import PULLS, common_axis, consumed, first_reaching
from metarl.evaluation.curve import UNITS, AdaptationCurve
from metarl.evaluation.merging import comparable, labels
from metarl.evaluation.pulls import Pulls, counted_pulls, each_pull
from metarl.evaluation.references import with_common_references
from metarl.evaluation.statistics import Interval, Values
from metarl.evaluation.storage import finite_or_none

THRESHOLDS = 101  # of a performance profile
WORST = 0.005  # share of scores below its first threshold: one hopeless task must not stretch the picture


@dataclass(frozen=True, eq=False)
class Entry:
    """One agent in a comparison.

    Attributes:
        label: a distinct name.
        curve: its curve, with the comparison's references.
        difference: mean last score minus that of the agent compared to, paired by task; positive is better,
            errors included; NaN where a score diverged. See `statistics.difference`.
        p: p-value of no difference for new seeds and tasks, corrected for the number of comparisons (Holm); NaN where
            `without_p` says why there is none. See `statistics.p_value`.
        uncorrected: the same, of this comparison alone.
        without_p: why there is no p-value, or None.
        improvement: probability that a run of it does better on a task than one of the agent compared to.
        area: mean score over the common axis, the last score being held to its end; over its own where none is.
        reached: k of the first mean score that reaches the wanted one, or None; see `first_reaching`.
        pulls: what each pull of a bandit pays and costs, where all agents of the comparison have pulls, or None.
    """

    label: str
    curve: AdaptationCurve
    difference: Interval
    p: float
    uncorrected: float
    without_p: str | None
    improvement: Interval
    area: Interval
    reached: int | None
    pulls: Pulls | None

    @cached_property
    def middle(self) -> Interval:
        """Interquartile mean of the last score over seeds and tasks; infinite where it holds one that diverged."""
        return statistics.bootstrap(self.curve.ranked[..., -1], statistic=statistics.interquartile_mean)

    @cached_property
    def worst(self) -> Interval:
        """Mean of the worst tenth of the last scores over seeds and tasks; infinite likewise."""
        sign = 1.0 if self.curve.higher_is_better else -1.0
        tail = statistics.bootstrap(sign * self.curve.ranked[..., -1], statistic=statistics.worst_tenth)
        low, high = (tail.low, tail.high) if sign > 0 else (tail.high, tail.low)
        return Interval(sign * tail.value, sign * low, sign * high)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        curve = self.curve
        document = {
            "label": self.label,
            "agent": curve.agent,
            "seeds": curve.seeds,
            "trained": curve.trained,
            "tasks": curve.tasks,
            "score": _plain(curve.interval),
            "diverged": curve.diverged.tolist(),
            "gain": _plain(curve.gain) if curve.adapts else None,
            "normalised": None if curve.normalised is None else curve.normalised.tolist(),
            "interquartile_mean": _plain(self.middle),
            "worst_tenth": _plain(self.worst),
            "regret": None if self.pulls is None else self.pulls.regret.tolist(),
            "reward": None if self.pulls is None or self.pulls.reward is None else self.pulls.reward.tolist(),
            "area": _plain(self.area),
            "difference": _plain(self.difference),
            "p_value": self.p,
            "p_value_uncorrected": self.uncorrected,
            "without_p_value": self.without_p,
            "probability_of_improvement": _plain(self.improvement),
            "reached": None if self.reached is None else consumed(curve, self.reached),
        }
        plain: dict[str, Any] = finite_or_none(document)
        return plain


@dataclass(frozen=True, eq=False)
class Comparison:
    """Curves of one problem and what is said about them.

    Attributes:
        entries: an agent each, in the order given.
        against: index of the agent that the others are compared to.
        axis: a key of `UNITS` that every adapting curve counts, `PULLS`, or `FINAL`.
        reach: the score whose steps are reported, or None.
    """

    entries: tuple[Entry, ...]
    against: int
    axis: str
    reach: float | None

    @property
    def curves(self) -> list[AdaptationCurve]:
        """The curves, with common references."""
        return [entry.curve for entry in self.entries]

    @property
    def labels(self) -> list[str]:
        """A distinct name for each curve."""
        return [entry.label for entry in self.entries]

    @cached_property
    def profile(self) -> tuple[Values, list[Interval]]:
        """Thresholds `(N,)` and each agent's performance profile `(N,)`: see `profiles`."""
        return profiles(self.curves)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the curves."""
        first = self.curves[0]
        thresholds, shares = self.profile
        return {
            "against": self.labels[self.against],
            "axis": self.axis,
            "reach": self.reach,
            "random": first.random,
            "oracle": first.oracle,
            "agents": [entry.to_dict() for entry in self.entries],
            "performance_profile": {
                "of": "score" if first.normalised is None else "normalised score",
                "thresholds": thresholds.tolist(),
                "shares": {name: _plain(share) for name, share in zip(self.labels, shares, strict=True)},
            },
        }


def compare(
    curves: Sequence[AdaptationCurve], *, against: int = 0, reach: float | None = None, axis: str | None = None
) -> Comparison:
    """Put curves beside one another.

    Args:
        curves: of the same problem; those that differ only in seeds should be merged before.
        against: index of the agent that the others are compared to.
        reach: a score; how much adaptation each agent needs to reach it is reported.
        axis: a key of `UNITS`, `PULLS`, `FINAL`, or None for what every adapting curve counts.

    Raises:
        UserError: they are not comparable, or one that adapts does not count `axis`.
    """
    comparable(curves)
    curves = with_common_references(curves)
    axis = axis or common_axis(curves)
    pulls: Sequence[Pulls | None] | None = counted_pulls(curves) if axis == PULLS else each_pull(curves)
    reference = curves[against]
    other = reference.better[..., -1]
    why = [None if i == against else without_p(curve, reference) for i, curve in enumerate(curves)]
    tested = [i != against and reason is None for i, reason in enumerate(why)]
    p = [
        float(statistics.p_value(curve.better[..., -1], other)) if known else math.nan
        for curve, known in zip(curves, tested, strict=True)
    ]
    end = max((curve.along(axis)[-1] for curve in curves if curve.adapts), default=0) if axis in UNITS else None
    entries = tuple(
        Entry(
            label=label,
            curve=curve,
            difference=statistics.difference(curve.better[..., -1], other),
            p=float(corrected),
            uncorrected=alone,
            without_p=reason,
            improvement=statistics.probability_of_improvement(curve.better[..., -1], other),
            area=curve.area if end is None else curve.area_until(axis, end),
            reached=None if reach is None else first_reaching(curve, reach),
            pulls=each,
        )
        for label, curve, alone, corrected, reason, each in zip(
            labels(curves), curves, p, statistics.holm(p), why, pulls or [None] * len(curves), strict=True
        )
    )
    return Comparison(entries, against, axis, reach)


def without_p(curve: AdaptationCurve, other: AdaptationCurve) -> str | None:
    """Why there is no p-value of the difference between two agents, in words; None where there is one."""
    if any(c.trained and len(c.seeds) < statistics.FEW_SEEDS for c in (curve, other)):
        return f"it needs at least {statistics.FEW_SEEDS} training seeds of each trained agent"
    if curve.diverged[-1] or other.diverged[-1]:
        return "where scores diverged there is no difference of means; P(better) counts them as worst"
    if curve.repeats_unknown:
        return "which rows are one task is unknown"
    return None


def profiles(curves: Sequence[AdaptationCurve]) -> tuple[Values, list[Interval]]:
    """Share of tasks and seeds whose last score is better than each threshold; one that diverged is better than none.

    Scores are normalised where the curves know random and oracle; elsewhere an error is better below a threshold.

    Returns:
        Thresholds `(N,)`, from the worst to the best, and for every curve its shares `(N,)`.
    """
    first = curves[0]
    sign = 1.0
    if first.normalised is None or first.random is None or first.oracle is None:
        sign = 1.0 if first.higher_is_better else -1.0
        last = [sign * curve.scores[..., -1] for curve in curves]
    else:
        last = [(curve.scores[..., -1] - first.random) / (first.oracle - first.random) for curve in curves]
    pooled = np.concatenate([values.ravel() for values in last])
    pooled = pooled[np.isfinite(pooled)]
    low, high = np.quantile(pooled, [WORST, 1.0]) if pooled.size else (0.0, 1.0)
    thresholds = np.linspace(low, high, THRESHOLDS)
    return sign * thresholds, [statistics.performance_profile(values, thresholds) for values in last]


def _plain(interval: Interval) -> dict[str, Any]:
    return {name: np.asarray(getattr(interval, name)).tolist() for name in ("value", "low", "high")}
