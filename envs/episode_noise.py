"""The noise of array-native families: one block of random numbers an episode, drawn all at once.

Where a step costs ten microseconds for all rows together, drawing is what takes the time: hence blocks,
numbers of 32 bits, normals with the precision of float32, and time first in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.seeding import Key
from metarl.tasks import Tasks

BLOCK = 2**128  # counts of the generator from one episode's block to the next
COUNT = 8  # words of 32 bits that the generator makes at each count


class EpisodeNoise:
    """A stream of blocks `(size, T * E)`, one an episode, for E rows of each of T tasks.

    A column of a block depends on the key, on which episode it is for, on the task's place and on the replica: not
    on the other tasks. Tasks whose indices follow one another are drawn at once.

    Args:
        key: names the stream.
        tasks: T tasks.
        replicas: E.
    """

    def __init__(self, key: Key, tasks: Tasks, replicas: int) -> None:
        self._philox = key(tasks.split).philox()
        self._start = self._philox.state
        self._replicas = replicas
        self._runs = np.split(tasks.indices, np.flatnonzero(np.diff(tasks.indices) != 1) + 1)

    def bits(self, episode: int, size: int) -> NDArray[np.uint32]:
        """Random bits, 32 an entry; a view, strided."""
        words = self._replicas * size  # of a task
        parts = [self._words(episode, int(run[0]) * words, len(run) * words) for run in self._runs]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(-1, size).T

    def _words(self, episode: int, first: int, count: int) -> NDArray[np.uint32]:
        counts, before = divmod(first, COUNT)
        self._philox.state = self._start
        raw = self._philox.advance(episode * BLOCK + counts).random_raw((before + count + 1) // 2)
        words: NDArray[np.uint32] = raw.astype("<u8", copy=False).view("<u4")[before : before + count]
        return words

    def uniform(self, episode: int, size: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1)."""
        numbers: NDArray[np.float64] = np.multiply(self.bits(episode, size), 2.0**-32, order="C")
        return numbers

    def normal(self, episode: int, size: int) -> NDArray[np.float32]:
        """Standard normal numbers, by the Box-Muller transform; none is beyond 6.8."""
        pairs = (size + 1) // 2
        u = (self.bits(episode, 2 * pairs).astype(np.float32, "C") + np.float32(0.5)) * np.float32(2.0**-32)
        radius, angle = np.sqrt(-2 * np.log(u[:pairs])), np.float32(2 * np.pi) * u[pairs:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]


def renewed(
    current: NDArray[Any], clock: int, mask: NDArray[np.bool_], episodes: NDArray[np.int64], draw: Callable[[int], Any]
) -> tuple[NDArray[Any], int]:
    """The noise of rows that begin an episode, among that of rows which go on with theirs.

    One clock serves all rows: at each step they read the block's row that it points to, and around. So the block
    of a row that begins later is turned until the clock points to its beginning.

    Args:
        current: the block `(size, N)` being read.
        clock: the row of it to be read next.
        mask: `(N,)` which rows begin.
        episodes: `(N,)` which episode of theirs.
        draw: the block `(size, N)` of an episode.

    Returns:
        The block to read, and the clock.
    """
    if mask.all() and (episodes == episodes[0]).all():
        return draw(int(episodes[0])), 0
    block = current.copy()
    for episode in np.unique(episodes[mask]):
        rows = mask & (episodes == episode)
        block[:, rows] = np.roll(draw(int(episode))[:, rows], clock, axis=0)
    return block, clock
