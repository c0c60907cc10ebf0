"""Statistics of scores over seeds and tasks: pure functions of arrays.

Scores come as `(S, T, ...)`: S training seeds, each judged on the same T tasks. What is said about them
follows Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021:
intervals beside every number, the interquartile mean, performance profiles, the probability of improvement.

How to resample is where this differs by default. Their bootstrap is stratified: tasks are a fixed list of
games, every game has runs of its own, so runs are drawn anew within each task. A meta-learner's run is judged
on all tasks, and the tasks are a sample too: a seed that trained badly is bad on every task at once, which a
stratified bootstrap would average away. So seeds and tasks are drawn independently and crossed here (Owen, "The
pigeonhole bootstrap", 2007), and intervals speak of new seeds on new tasks. `scheme="stratified"` gives the
other, for runs that were trained on one task each.

Few seeds make narrow intervals, as with any percentile bootstrap: where the luck of the seed is as large as the
differences between tasks, "95 %" held the truth in 80 % of simulated worlds with 3 seeds, in 87 % with 5 and
92 % with 10 (300 worlds, 40 tasks); where it is a tenth of them, in 95 % with 3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from metarl.seeding import Key

RESAMPLES = 2000  # bootstrap resamples
FLIPS = 9999  # sign flips of a permutation test
CONFIDENCE = 0.95
BLOCK = 2_000_000  # numbers held at once

Values = NDArray[np.float64]
Scheme = Literal["crossed", "stratified"]
Statistic = Callable[[Values, Values], Values]


@dataclass(frozen=True)
class Interval:
    """A statistic and its 95 % bootstrap interval, each `(...)`; the ends are NaN where nothing can be resampled."""

    value: Values
    low: Values
    high: Values


def mean(counts: Values, scores: Values) -> Values:
    """Mean of scores that occur several times.

    Args:
        counts: `(B, N)`, how often each score occurs in each of B resamples.
        scores: `(N, C)`.

    Returns:
        `(B, C)`.
    """
    return np.asarray(counts @ scores / counts.sum(1, keepdims=True))


def interquartile_mean(counts: Values, scores: Values) -> Values:
    """Mean of the middle half: a quarter of the scores, rounded down, is cut from either end (`scipy.stats.trim_mean`).

    It is steadier than the median and, unlike the mean, not carried by a few tasks (Agarwal et al. 2021).
    Arguments and result as `mean`.
    """
    total = counts[0].sum()
    cut = math.floor(total / 4)
    columns = []
    for column in scores.T:
        order = np.argsort(column, kind="stable")
        reached = np.clip(np.cumsum(counts[:, order], axis=1), cut, total - cut)
        kept = np.diff(reached, axis=1, prepend=cut)
        columns.append(kept @ column[order] / (total - 2 * cut))
    return np.stack(columns, axis=1)


def bootstrap(values: Values, *, factors: int = 2, statistic: Statistic = mean, scheme: Scheme = "crossed") -> Interval:
    """A statistic of scores with its 95 % percentile bootstrap interval.

    A factor with one level is not resampled; where none is left there is no interval, and its ends are NaN.
    The resamples come from one fixed stream, so the same scores always get the same interval.

    Args:
        values: `(S, T, ...)`, or `(n_1, ..., n_F, ...)` for `factors` = F.
        factors: leading axes to resample; the scores of all their combinations are one sample.
        statistic: `mean` or `interquartile_mean`.
        scheme: "crossed" draws the levels of each factor independently of the others; "stratified" draws
            seeds anew within each task, and keeps the tasks (`factors` must be 2).

    Returns:
        The statistic and the ends of its interval, each `(...)`.
    """
    levels, rest = values.shape[:factors], values.shape[factors:]
    flat = values.reshape(math.prod(levels), -1)
    known = np.isfinite(flat).all(0)
    value = np.full(flat.shape[1], np.nan)
    low, high = value.copy(), value.copy()
    value[known] = statistic(np.ones((1, len(flat))), flat[:, known])[0]
    drawn, count = _plan(levels, scheme)
    if drawn and known.any():

        def resampled(*indices: NDArray[np.int64], axis: int = -1) -> Values:
            return statistic(count(indices), flat[:, known]).T  # (C, B)

        found = stats.bootstrap(
            drawn,
            resampled,
            n_resamples=RESAMPLES,
            batch=max(1, min(RESAMPLES, BLOCK // len(flat))),
            vectorized=True,
            paired=False,
            axis=-1,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=Key(0)("bootstrap").numpy(),
        ).confidence_interval
        low[known], high[known] = found.low, found.high
    return Interval(*(part.reshape(rest) for part in (value, low, high)))


def _plan(
    levels: tuple[int, ...], scheme: Scheme
) -> tuple[tuple[NDArray[np.int64], ...], Callable[[Sequence[NDArray[np.int64]]], Values]]:
    """What to draw from, and how often every score occurs `(B, N)` given B draws of each."""
    if scheme == "stratified":
        seeds, tasks = levels
        drawn = tuple(np.arange(seeds) for _ in range(tasks)) if seeds > 1 else ()
        return drawn, lambda indices: _joint([np.stack([_counts(i, seeds) for i in indices], axis=2)], levels)
    drawn = tuple(np.arange(n) for n in levels if n > 1)

    def count(indices: Sequence[NDArray[np.int64]]) -> Values:
        queue = iter(indices)
        parts = []
        for axis, n in enumerate(levels):
            if n > 1:
                counts = _counts(next(queue), n)
                parts.append(counts.reshape(-1, *(n if i == axis else 1 for i in range(len(levels)))))
        return _joint(parts, levels)

    return drawn, count


def _counts(indices: NDArray[np.int64], n: int) -> Values:
    """How often 0..n-1 occur in each row `(B, n)`."""
    offset = n * np.arange(len(indices))[:, None]
    return np.bincount((indices + offset).ravel(), minlength=n * len(indices)).reshape(-1, n).astype(np.float64)


def _joint(parts: Sequence[Values], levels: tuple[int, ...]) -> Values:
    """The product of counts that broadcast to `(B, *levels)`, as `(B, N)`."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole * part
    return np.broadcast_to(whole, (len(whole), *levels)).reshape(len(whole), -1)


# One agent beside another. All scores here are better when higher: negate errors.


def difference(ours: Values, theirs: Values) -> Interval:
    """Mean of ours minus theirs, paired by task.

    Both meet the same tasks, which are resampled together; seed 0 of one agent has nothing to do with seed 0
    of another, so seeds are resampled apart.

    Args:
        ours: `(S, T)`.
        theirs: `(R, T)`.

    Returns:
        Each `()`.
    """
    return bootstrap(ours[:, None] - theirs[None], factors=3)


def p_value(ours: Values, theirs: Values) -> float:
    """Two-sided p-value of a mean difference of 0, paired by task, with seeds averaged.

    A permutation test: if the agents were alike, each task's difference could as well have the other sign.
    With up to 13 tasks all signs are tried, with more 9,999 drawn ones, so p is at least 0.0001. Seeds are not
    resampled: p speaks of these trained agents on new tasks, the interval of `difference` of new seeds too.

    Args:
        ours: `(S, T)`.
        theirs: `(R, T)`.
    """
    paired = ours.mean(0) - theirs.mean(0)
    tasks = len(paired)
    if not np.isfinite(paired).all():
        return math.nan
    if 2**tasks <= FLIPS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=tasks)))
    else:
        drawn = Key(0)("sign flips").numpy().integers(0, 2, size=(FLIPS, tasks))
        signs = np.concatenate([np.ones((1, tasks)), 2.0 * drawn - 1])  # what was seen is one of the possible
    null = np.abs(signs @ paired)
    return float(np.mean(null >= abs(paired.sum()) * (1 - 1e-12)))  # rounding must not part equal sums


def probability_of_improvement(ours: Values, theirs: Values) -> Interval:
    """How often a run of ours scores higher on a task than one of theirs; ties count half (Agarwal et al. 2021).

    Args:
        ours: `(S, T)`.
        theirs: `(R, T)`.

    Returns:
        Each `()`, between 0 and 1; 0.5 says nothing.
    """
    return bootstrap((1 + np.sign(ours[:, None] - theirs[None])) / 2, factors=3)


def performance_profile(scores: Values, thresholds: Values) -> Interval:
    """Share of tasks and seeds whose score is above each threshold (Agarwal et al. 2021).

    Args:
        scores: `(S, T)`.
        thresholds: `(N,)`.

    Returns:
        Each `(N,)`; they never rise.
    """
    above = np.where(np.isfinite(scores)[..., None], scores[..., None] > thresholds, np.nan)
    return bootstrap(above)
