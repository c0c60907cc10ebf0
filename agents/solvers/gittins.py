"""Gittins indices of Bernoulli and Gaussian arms, by calibration (Gittins 1979).

The index of an arm is the reward of a known arm at which pulling the one for a while, and then perhaps switching for
ever, is worth as much as the other: of each, an optimal stopping problem is solved backwards.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve

Values = NDArray[np.float64]

TAIL = 1e-2  # discount of what the calibration does not look at any more
LEVELS = 1601  # rewards of the known arm that the calibration of Bernoulli arms compares with
SPACING = 5e-3  # of the lattice of mean minus the known arm's reward, for Gaussian arms
FAR = 16.0  # where the lattice ends, in deviations: nobody stops above it, nobody goes on below


def pulls_ahead(discount: float) -> int:
    """How many pulls beyond the last one a calibration looks: what comes later is discounted by `TAIL`.

    Raises:
        ValueError: the discount is not in [0, 1).
    """
    if not 0 <= discount < 1:
        raise ValueError(f"a Gittins index needs a discount in [0, 1), got {discount}")
    return math.ceil(math.log(TAIL) / math.log(discount)) if discount > 0 else 1


@cache
def bernoulli_gittins(discount: float, pulls: int, levels: int = LEVELS) -> Values:
    """Gittins indices of Bernoulli arms with prior U[0, 1], by calibration against arms of known reward.

    For each of `levels` known rewards the optimal stopping problem (pull, or switch to the known arm for ever)
    is solved backwards; the index is the reward at which both are worth the same, interpolated between levels.
    The levels are dense near 0 and 1, where posteriors are narrow, and each is solved for means within 5
    posterior deviations of it: far below it one stops, far above it one never does.

    Args:
        discount: in [0, 1).
        pulls: the most pulls the table holds.
        levels: more are finer; the default is good to 1e-4 (see the tests).

    Returns:
        `(pulls + 1, pulls + 1)`, after n pulls with s successes; NaN where s > n.
    """
    known = np.sin(np.linspace(0, np.pi / 2, levels))[:, None] ** 2
    last = pulls + pulls_ahead(discount)
    half = math.ceil(5 * 0.5 * math.sqrt(last + 3)) + 1
    width = np.arange(2 * half + 1)

    def successes(n: int) -> NDArray[np.int64]:
        """Those that every level is solved for after n pulls `(levels, 2 half + 1)`; some are below 0 or above n."""
        centre: NDArray[np.int64] = np.floor(known * (n + 2)).astype(np.int64) - half
        return centre + width

    def mean(s: NDArray[np.int64], n: int) -> Values:
        return np.clip((s + 1) / (n + 2), 0.0, 1.0)

    s = successes(last)
    value = np.maximum(mean(s, last), known)  # per step: (1 - discount) times the total
    table = np.full((pulls + 1, pulls + 1), np.nan)
    for n in range(last - 1, -1, -1):
        # The values one pull later, and one more on each side: of a mean far below, and of one far above.
        later, first = np.concatenate([known, value, mean(s[:, -1:] + 1, n + 1)], 1), s[:, :1]
        s = successes(n)
        ahead = np.where(s[:, :1] == first, later[:, 1:], later[:, :-1])  # the band moves by one at most
        p = mean(s, n)
        go_on = p * (1 - discount + discount * ahead[:, 1:]) + (1 - p) * discount * ahead[:, :-1]
        if n <= pulls:
            at = np.arange(n + 1) - s[:, :1]  # of 0..n successes in the band
            gain = np.take_along_axis(go_on - known, at.clip(0, 2 * half), 1)
            table[n, : n + 1] = _crossing(np.where(at < 0, -1.0, np.where(at > 2 * half, 1.0, gain)), known[:, 0])
        value = np.maximum(go_on, known)
    return table


def _crossing(gain: Values, known: Values) -> Values:
    """The level `known (L,)` at which `gain (L, n)`, decreasing in the level, falls below zero, `(n,)`."""
    above = np.clip((gain > 0).sum(0), 1, len(known) - 1)
    high, low = (np.take_along_axis(gain, above[None] - i, 0)[0] for i in (1, 0))
    share = high / np.maximum(high - low, 1e-300)
    crossing: Values = known[above - 1] + share * (known[above] - known[above - 1])
    return crossing


@cache
def gaussian_gittins(discount: float, pulls: int, spacing: float = SPACING) -> Values:
    """What a Gaussian arm's Gittins index adds to its posterior mean; prior N(0, 1), unit noise.

    The index moves with the mean, so one optimal stopping problem in y = mean - known reward is enough: go on
    for y now and the discounted future, or stop for 0; the bonus is -y where both are worth the same. The
    mean moves on a lattice, with the variance of its move after every number of pulls; the lattice becomes
    finer as the posterior becomes narrower.

    Args:
        discount: in [0, 1).
        pulls: the most pulls of an arm the table must hold.
        spacing: of the lattice, in prior deviations; its error falls with the square.

    Returns:
        `(pulls + 1,)`, after n pulls.
    """
    points = np.arange(-round(FAR / spacing), round(FAR / spacing) + 1)
    y = np.array([0.0])
    value = np.maximum(y, 0.0)  # per step: (1 - discount) times the total
    bonus = np.empty(pulls + 1)
    for n in range(pulls + pulls_ahead(discount) - 1, -1, -1):
        step = spacing * 0.5 ** ((n + 1).bit_length() // 2)  # spacing / sqrt(n + 1), within a factor sqrt 2
        value = np.where(step * points > y[-1], step * points, np.interp(step * points, y, value))
        y = step * points
        move = _moves(math.sqrt(1 / (n + 1) - 1 / (n + 2)), step)
        beyond = step * np.arange(1, len(move) // 2 + 1)
        padded = np.concatenate([np.zeros_like(beyond), value, y[-1] + beyond])  # far above one never stops
        go_on = (1 - discount) * y + discount * convolve(padded, move, mode="valid")
        if n <= pulls:
            bonus[n] = -np.interp(0.0, go_on, y)
        value = np.maximum(go_on, 0.0)
    return bonus


def _moves(deviation: float, spacing: float) -> Values:
    """Probabilities of moves by -m..m lattice points, with mean 0 and the variance of a normal."""
    if deviation < spacing:
        side = 0.5 * (deviation / spacing) ** 2
        return np.array([side, 1 - 2 * side, side])
    points = math.ceil(9 * deviation / spacing)
    density = np.exp(-0.5 * (np.arange(-points, points + 1) * spacing / deviation) ** 2)
    moves: Values = density / density.sum()
    return moves
