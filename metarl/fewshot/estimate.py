"""What accuracy to expect of a classifier from the pictures it learns from alone, and when to call one unknown.

Pictures are held out in turn, one of each class a fold, and classified by the others, so each is judged with about one
picture a class fewer than there are: the estimate is a little too low, much so at two a class. Its interval is
Wilson's, for as many pictures as were judged; its upper end takes the error to shrink as noise of a mean does,
by (K - 1) / K, K being the pictures of the smallest class that has two. With one a class nothing can be held out.

Calibration over 1,000 episodes: results/estimate.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.evaluation.curve import load_curves

FOLDS = 10  # at most
Z = 1.959964  # of a 95 % interval
Judge = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
OutOfFold = tuple[NDArray[np.int64], NDArray[np.float64]]  # what `held_out` gives
# Names of a run's curves of its own kind of tasks and features: not of other data, norms or refinements.
PLAIN = re.compile(r"curve(-\d+-(ways|shots|queries))*\.json")


@dataclass(frozen=True)
class Estimate:
    """The accuracy to expect.

    Attributes:
        accuracy: the share of pictures classified right; None where nothing can be said.
        low: end of its 95 % interval.
        high: the other.
        judged: pictures, or tasks, that it rests on.
        basis: where it comes from, in words.
    """

    accuracy: float | None
    low: float
    high: float
    judged: int
    basis: str


@dataclass(frozen=True)
class Unknown:
    """When to call a picture unknown.

    Attributes:
        threshold: below this probability of its likeliest class.
        known: share of pictures of the known classes, held out, that are called unknown.
        unknown: share of the pictures of each class, left out whole, that are; None with two classes.
    """

    threshold: float
    known: float
    unknown: float | None


def folds(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Which pictures are held out together: one of each class that has two or more; all once, unless alone.

    Args:
        labels: of the pictures `(S,)`.
    """
    counts = np.bincount(labels)
    n = min(int(counts.max()), FOLDS)
    place = np.full(len(labels), -1)
    for label in np.flatnonzero(counts > 1):
        mine = np.flatnonzero(labels == label)
        place[mine] = np.arange(len(mine)) % n
    return [np.flatnonzero(place == fold) for fold in range(n) if (place == fold).any()]


def held_out(labels: NDArray[np.int64], judge: Judge) -> OutOfFold:
    """The labels `(M,)` and probabilities `(M, N)` of pictures held out.

    Args:
        labels: `(S,)` in 0..N-1.
        judge: from the indices of pictures to learn from, maybe of fewer classes, and to classify, to probabilities.
    """
    rows = folds(labels)
    everything = np.arange(len(labels))
    made = [judge(np.setdiff1d(everything, out), out) for out in rows]
    if not made:
        return np.empty(0, np.int64), np.empty((0, int(labels.max()) + 1))
    return labels[np.concatenate(rows)], np.concatenate(made)


def estimate(labels: NDArray[np.int64], out_of_fold: OutOfFold) -> Estimate:
    """The accuracy to expect.

    Args:
        labels: of the pictures `(S,)` in 0..N-1.
        out_of_fold: what `held_out` gives of them.
    """
    true, probabilities = out_of_fold
    if not len(true):
        return Estimate(None, 0.0, 1.0, 0, "one picture a class: none can be held out, and any accuracy is possible")
    right = int((probabilities.argmax(1) == true).sum())
    counts = np.bincount(labels)
    alone = int((counts == 1).sum())
    note = f", but for {alone} classes with one picture" if alone else ""
    low, high = wilson(right, len(true))
    fewest = int(counts[counts > 1].min())
    high = 1 - (1 - high) * (fewest - 1) / fewest
    return Estimate(
        right / len(true),
        low,
        high,
        len(true),
        f"{len(true)} pictures held out in {len(folds(labels))} folds{note}; learned from one a class fewer, so a "
        "little low",
    )


def with_run(made: Estimate, folder: Path, ways: int) -> Estimate:
    """An estimate, or where it has nothing to say what the run's test tasks of so many classes had, if any."""
    return made if made.accuracy is not None else of_run(folder, ways) or made


def of_run(folder: Path, ways: int) -> Estimate | None:
    """What the 1-shot test tasks of an evaluated run had with so many classes; None where there are none.

    The interval holds 95 % of its tasks: a new task of the same kind is like one of them, one of another kind may not.
    """
    for file in sorted(file for file in folder.glob("curve*.json") if PLAIN.fullmatch(file.name)):
        with contextlib.suppress(UserError):
            curve = load_curves(file)[0]
            if curve.split == "test" and curve.shots and 1 in curve.shots and curve.protocol.startswith(f"{ways}-way,"):
                values = np.asarray(curve.per_task)[:, :, list(curve.shots).index(1)].ravel()
                low, high = np.quantile(values, [0.025, 0.975])
                return Estimate(
                    float(values.mean()),
                    float(low),
                    float(high),
                    len(values),
                    f"not of these pictures: of {len(values)} test tasks of the run, {ways}-way 1-shot, of which "
                    "95 % lie in the interval",
                )
    return None


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, square = right / n, Z * Z / n
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * float(np.sqrt(share * (1 - share) / n + square / (4 * n)))
    return max(0.0, middle - half), min(1.0, middle + half)


def unknown(labels: NDArray[np.int64], out_of_fold: OutOfFold, judge: Judge, rate: float) -> Unknown:
    """The threshold that calls at most a share `rate` of known pictures unknown.

    Args:
        labels: `(S,)` in 0..N-1.
        out_of_fold: what `held_out` gives of them.
        judge: see `held_out`; here whole classes are left out.
        rate: of pictures of known classes, in (0, 1).

    Raises:
        UserError: one picture a class.
    """
    _, probabilities = out_of_fold
    if not len(probabilities):
        raise UserError("--unknown needs two pictures of some class, to hold one out: give more pictures a class")
    best = np.sort(probabilities.max(1))
    threshold = float(best[int(rate * len(best))])
    left_out = None
    if labels.max() >= 2:
        outs = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        everything = np.arange(len(labels))
        strange = np.concatenate([judge(np.setdiff1d(everything, out), out).max(1) for out in outs])
        left_out = float((strange < threshold).mean())
    return Unknown(threshold, float((best < threshold).mean()), left_out)
