"""Drawing without replacement, many rows at once, as a function of uniform numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metarl.tasks import Uniform

Index = NDArray[np.int64]


def choose(uniforms: NDArray[np.float64], sizes: Index) -> Index:
    """Distinct integers for every row at once: a partial Fisher-Yates shuffle.

    Args:
        uniforms: `(R, k)` in [0, 1).
        sizes: `(R,)`; row r chooses from 0..sizes[r]-1.

    Returns:
        `(R, k)`, each row distinct and in random order.

    Raises:
        ValueError: a row has fewer than k to choose from.
    """
    rows, k = uniforms.shape
    if rows and sizes.min() < k:
        raise ValueError(f"cannot choose {k} distinct of {sizes.min()}")
    pool = np.tile(np.arange(int(sizes.max(initial=1)), dtype=np.int32), rows)  # row r's pool starts at r * width
    first = np.arange(rows, dtype=np.int64) * int(sizes.max(initial=1))
    chosen = np.empty((k, rows), np.int64)
    for i in range(k):
        at = first + i + (uniforms[:, i] * (sizes - i)).astype(np.int64)
        chosen[i] = pool[at]
        pool[at] = pool[first + i]
    return np.ascontiguousarray(chosen.T)


def spread(uniform: Uniform, n: int, ways: int, shots: int, most: int) -> Index:
    """Support counts `(n, ways)`: one each, the rest drawn from the places that are left, `most` a class."""
    extra = ways * (shots - 1)
    places = np.full(n, ways * (most - 1))
    owner = choose(uniform((n, extra)), places) // max(most - 1, 1)
    counts = np.ones((n, ways), np.int64)
    np.add.at(counts, (np.arange(n)[:, None], owner), 1)
    return counts
