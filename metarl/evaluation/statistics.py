"""Statistics of scores over seeds and tasks: pure functions of arrays.

Scores come as `(S, T, ...)`: S training seeds, each judged on the same T distinct tasks. What is said about them
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
92 % with 10 (300 worlds, 40 tasks); where it is a tenth of them, in 95 % with 3. Tables say so below `FEW_SEEDS`.

A score that is not finite is of a run that diverged. Means leave it out, and whoever shows one shows the share left
out; statistics by rank take infinities, and count the worst one in its place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
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
FEW_SEEDS = 5  # below, intervals are too narrow, and what seeds differ by is too poorly known for a p-value

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
    """Mean of the finite among scores that occur several times.

    Args:
        counts: `(B, N)`, how often each score occurs in each of B resamples.
        scores: `(N, C)`.

    Returns:
        `(B, C)`; NaN where no score is finite.
    """
    finite = np.isfinite(scores)
    total, number = counts @ np.where(finite, scores, 0.0), counts @ finite
    return np.asarray(np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0))


def interquartile_mean(counts: Values, scores: Values) -> Values:
    """Mean of the middle half: a quarter of the scores, rounded down, is cut from either end (`scipy.stats.trim_mean`).

    It is steadier than the median and, unlike the mean, not carried by a few tasks (Agarwal et al. 2021).
    Arguments and result as `mean`, but infinite scores take their rank: the mean is one where the middle half has one.
    """
    total = counts[0].sum()
    cut = math.floor(total / 4)
    columns = []
    for column in scores.T:
        order = np.argsort(column, kind="stable")
        reached = np.clip(np.cumsum(counts[:, order], axis=1), cut, total - cut)
        kept = np.diff(reached, axis=1, prepend=cut)
        ranked = column[order]
        middle = kept @ np.where(np.isinf(ranked), 0.0, ranked) / (total - 2 * cut)
        for worst in (-np.inf, np.inf):
            middle[kept @ (ranked == worst) > 0] = worst
        columns.append(middle)
    return np.stack(columns, axis=1)


def worst_tenth(counts: Values, scores: Values) -> Values:
    """Mean of the worst tenth of the scores: conditional value at risk at 10 % (Rockafellar & Uryasev 2000).

    A tenth of N scores is N / 10 of them, the last one counting in part: of 15 scores it is the worst and half the
    second, over 1.5. Arguments and result as `mean`, but infinite scores take their rank: where the tail has one,
    it is the mean. Higher is better: negate errors.
    """
    tail = counts[0].sum() / 10
    columns = []
    for column in scores.T:
        order = np.argsort(column, kind="stable")
        kept = np.diff(np.minimum(np.cumsum(counts[:, order], axis=1), tail), axis=1, prepend=0.0)
        ranked = column[order]
        worst = kept @ np.where(np.isinf(ranked), 0.0, ranked) / tail
        for infinite in (np.inf, -np.inf):
            worst[kept @ (ranked == infinite) > 0] = infinite
        columns.append(worst)
    return np.stack(columns, axis=1)


def bootstrap(values: Values, *, factors: int = 2, statistic: Statistic = mean, scheme: Scheme = "crossed") -> Interval:
    """A statistic of scores with its 95 % percentile bootstrap interval.

    A factor with one level is not resampled; where none is left there is no interval, and its ends are NaN. So they
    are where a resample may hold no finite score. The resamples come from one fixed stream, so the same scores
    always get the same interval.

    Args:
        values: `(S, T, ...)`, or `(n_1, ..., n_F, ...)` for `factors` = F.
        factors: leading axes to resample; the scores of all their combinations are one sample.
        statistic: `mean`, `interquartile_mean` or `worst_tenth`.
        scheme: "crossed" draws the levels of each factor independently of the others; "stratified" draws
            seeds anew within each task, and keeps the tasks (`factors` must be 2).

    Returns:
        The statistic and the ends of its interval, each `(...)`.
    """
    levels, rest = values.shape[:factors], values.shape[factors:]
    flat = values.reshape(math.prod(levels), -1)
    value = statistic(np.ones((1, len(flat))), flat)[0]
    low, high = np.full((2, len(value)), np.nan)
    drawn, count = _plan(levels, scheme)
    if drawn:
        resampled = np.concatenate([statistic(count(indices), flat) for indices in _draws(drawn, len(flat))])
        tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        endless = np.isinf(resampled).any(0)  # between infinities nothing can be interpolated
        low[~endless], high[~endless] = np.quantile(resampled[:, ~endless], tails, axis=0)
        low[endless], high[endless] = np.quantile(resampled[:, endless], tails, axis=0, method="nearest")
    return Interval(*(part.reshape(rest) for part in (value, low, high)))


def _draws(drawn: Sequence[NDArray[np.int64]], size: int) -> Iterator[list[NDArray[np.int64]]]:
    """`RESAMPLES` draws with replacement of each factor's levels, in blocks of a bounded size."""
    rng, block = Key(0)("bootstrap").numpy(), max(1, min(RESAMPLES, BLOCK // size))
    for done in range(0, RESAMPLES, block):
        several = min(block, RESAMPLES - done)
        yield [rng.integers(0, len(levels), (several, len(levels))) for levels in drawn]


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
        Each `()`; NaN where a score is not finite: a mean that left it out would favour the agent that diverged.
    """
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return Interval(*(np.array(np.nan) for _ in range(3)))
    return bootstrap(ours[:, None] - theirs[None], factors=3)


def p_value(ours: Values, theirs: Values) -> Values:
    """Two-sided p-value of no difference between two agents, for new training seeds and new tasks.

    The larger of two, as either alone takes one kind of luck for a difference:

    - Student's t of the mean difference, whose variance is that of either agent's seeds (each averaged over tasks) plus
      that of the tasks (paired, averaged over seeds), with Welch's and Satterthwaite's degrees of freedom. What a
      seed does on one task alone is counted in both, so it errs on the safe side. It takes the means of seeds
      for roughly normal.
    - Sign flips of the tasks' differences: if the agents were alike, each could as well have the other sign. With
      up to 13 tasks all signs are tried, with more 9,999 drawn ones. So T tasks cannot give less than 2 / 2^T.

    An agent with one seed adds no luck of the seed: right for one that is not trained, wrong for any other.
    Sources, from memory: Welch 1947 and Satterthwaite 1946 for the degrees of freedom; Clark, "The
    language-as-fixed-effect fallacy", 1973, whose min F' adds the variances of two crossed samples likewise.

    Args:
        ours: `(S, T, ...)`.
        theirs: `(R, T, ...)`.

    Returns:
        `(...)`; NaN where a score is not finite.
    """
    paired = ours.mean(0) - theirs.mean(0)
    p = np.maximum(_flipped(paired), _crossed(ours, theirs, paired))
    return np.where(np.isfinite(paired).all(0), p, np.nan)


def _flipped(paired: Values) -> Values:
    """Share of sign flips of `(T, ...)` differences whose mean is as far from 0 as theirs, `(...)`."""
    tasks = len(paired)
    if 2**tasks <= FLIPS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=tasks)))
    else:
        drawn = Key(0)("sign flips").numpy().integers(0, 2, size=(FLIPS, tasks))
        signs = np.concatenate([np.ones((1, tasks)), 2.0 * drawn - 1])  # what was seen is one of the possible
    sizes = np.sort(np.abs(paired), axis=0)  # so that the order of tasks is nothing
    null = np.abs(np.tensordot(signs, sizes, axes=1))
    return np.asarray(np.mean(null >= np.abs(paired.sum(0)) * (1 - 1e-12), axis=0))  # rounding must not part equal sums


def _crossed(ours: Values, theirs: Values, paired: Values) -> Values:
    """Welch's t-test of a mean difference, the tasks being a third source of variance beside both agents' seeds."""
    tasks = len(paired)
    if tasks == 1:
        return np.ones(paired.shape[1:])
    variances, freedoms = [paired.var(0, ddof=1) / tasks], [tasks - 1]
    for scores in (ours, theirs):
        if (seeds := len(scores)) > 1:
            variances.append(scores.mean(1).var(0, ddof=1) / seeds)
            freedoms.append(seeds - 1)
    total = sum(variances, np.zeros(()))
    size = np.abs(paired.mean(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = total**2 / sum(v**2 / n for v, n in zip(variances, freedoms, strict=True))
        p = 2 * stats.t.sf(size / np.sqrt(total), freedom)
    return np.asarray(np.where(total > 0, p, size == 0))  # all alike: any difference is certain


def least_p(tasks: int) -> float:
    """What `p_value` cannot be below, however large the difference."""
    return min(1.0, 2.0 ** (1 - tasks))


def holm(p: Sequence[float]) -> Values:
    """p-values corrected for their number (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    Args:
        p: of n comparisons; NaN where none was made, which then does not count.

    Returns:
        `(n,)`: the chance that any comparison of alike agents is below .05 is at most .05.
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw)[: int(np.isfinite(raw).sum())]  # NaN come last
    corrected = np.full(len(raw), np.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(raw[order] * np.arange(len(order), 0, -1)))
    return corrected


def probability_of_improvement(ours: Values, theirs: Values) -> Interval:
    """How often a run of ours scores higher on a task than one of theirs; ties count half (Agarwal et al. 2021).

    A score that is not finite is worse than every other, and ties with its like.

    Args:
        ours: `(S, T)`.
        theirs: `(R, T)`.

    Returns:
        Each `()`, between 0 and 1; 0.5 says nothing.
    """
    first, second = (np.where(np.isfinite(scores), scores, -np.inf) for scores in (ours[:, None], theirs[None]))
    return bootstrap((first > second) + (first == second) / 2, factors=3)


def performance_profile(scores: Values, thresholds: Values) -> Interval:
    """Share of tasks and seeds whose score is above each threshold (Agarwal et al. 2021).

    A score that is not finite is above none.

    Args:
        scores: `(S, T)`.
        thresholds: `(N,)`.

    Returns:
        Each `(N,)`; they never rise.
    """
    return bootstrap((np.isfinite(scores)[..., None] & (scores[..., None] > thresholds)).astype(np.float64))
