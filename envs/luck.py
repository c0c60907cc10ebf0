"""The luck of array-native families: one block of random numbers a reset, drawn all at once.

A row of a block depends on the key, on how many resets came before and on the row's place, not on how
many rows follow it. Numbers have 32 bits and normals the precision of float32: where a step costs
ten microseconds for all rows together, drawing is what takes the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metarl.seeding import Key

BLOCK = 2**64  # counts of the generator from one reset's block to the next


def bits(key: Key, reset: int, rows: int, size: int) -> NDArray[np.uint32]:
    """Random bits `(rows, size)`, 32 an entry."""
    raw = key.philox().advance(reset * BLOCK).random_raw((rows * size + 1) // 2)
    found: NDArray[np.uint32] = raw.astype("<u8", copy=False).view("<u4")[: rows * size].reshape(rows, size)
    return found


def uniform(key: Key, reset: int, rows: int, size: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), `(rows, size)`."""
    found: NDArray[np.float64] = np.multiply(bits(key, reset, rows, size), 2.0**-32)
    return found


def normal(key: Key, reset: int, rows: int, size: int) -> NDArray[np.float32]:
    """Standard normal numbers `(rows, size)`, by the Box-Muller transform; none is beyond 6.8."""
    pairs = (size + 1) // 2
    u = (bits(key, reset, rows, 2 * pairs).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    radius = np.sqrt(-2 * np.log(u[:, :pairs]))
    angle = np.float32(2 * np.pi) * u[:, pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :size]
