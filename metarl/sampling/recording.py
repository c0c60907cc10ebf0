"""Episodes as pictures: a recorder that watches a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarl.tasks import TaskVectorEnv


@dataclass(frozen=True)
class Recording:
    """One filmed episode of n steps."""

    title: str
    frames: Sequence[NDArray[np.uint8]]  # n + 1 of (height, width, 3)
    rewards: Sequence[float]  # n


class Recorder:
    """Watches the first row of an environment; give it to a rollout as `watch`."""

    def __init__(self) -> None:
        self._frames: list[NDArray[np.uint8]] = []
        self._rewards: list[float] = []

    def __call__(self, env: TaskVectorEnv, rewards: NDArray[np.float32]) -> None:
        """Keep a picture, and note the reward that led there."""
        self._frames.append(env.render_frame(0))
        self._rewards.append(float(rewards[0]))

    def cut(self, title: str, start: int = 0, stop: int | None = None) -> Recording:
        """Steps `start` to `stop` (the last by default) of what was seen.

        Where more steps follow, the environment may have begun anew with the last step: the picture before stays.
        """
        last = len(self._frames) - 1
        stop = last if stop is None else stop
        end = self._frames[stop] if stop == last else self._frames[stop - 1]
        return Recording(title, [*self._frames[start:stop], end], self._rewards[start + 1 : stop + 1])
