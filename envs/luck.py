"""The luck of array-native families: one block of random numbers a reset, drawn all at once.

Where a step costs ten microseconds for all rows together, drawing is what takes the time: hence blocks,
numbers of 32 bits, normals with the precision of float32, and time first in memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metarl.seeding import Key

BLOCK = 2**64  # counts of the generator from one reset's block to the next


class Luck:
    """A stream of blocks `(size, rows)`, one a reset.

    A column of a block depends on the key, on which reset it is for and on the column's place, not on
    how many columns follow it.

    Args:
        key: names the stream.
    """

    def __init__(self, key: Key) -> None:
        self._philox = key.philox()
        self._start = self._philox.state

    def bits(self, reset: int, size: int, rows: int) -> NDArray[np.uint32]:
        """Random bits, 32 an entry; a view, strided."""
        self._philox.state = self._start
        raw = self._philox.advance(reset * BLOCK).random_raw((rows * size + 1) // 2)
        found: NDArray[np.uint32] = raw.astype("<u8", copy=False).view("<u4")[: rows * size].reshape(rows, size).T
        return found

    def uniform(self, reset: int, size: int, rows: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1)."""
        found: NDArray[np.float64] = np.multiply(self.bits(reset, size, rows), 2.0**-32, order="C")
        return found

    def normal(self, reset: int, size: int, rows: int) -> NDArray[np.float32]:
        """Standard normal numbers, by the Box-Muller transform; none is beyond 6.8."""
        pairs = (size + 1) // 2
        u = (self.bits(reset, 2 * pairs, rows).astype(np.float32, "C") + np.float32(0.5)) * np.float32(2.0**-32)
        radius, angle = np.sqrt(-2 * np.log(u[:pairs])), np.float32(2 * np.pi) * u[pairs:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
