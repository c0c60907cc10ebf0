"""Episodes as pictures: a recorder that watches a rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.tasks import TaskVectorEnv

NAMED = 4  # numbers of a task that are still told one by one


@dataclass(frozen=True)
class Recording:
    """One filmed episode of n steps.

    Attributes:
        title: what is shown.
        frames: n + 1 pictures `(height, width, 3)`.
        rewards: n.
        task: the task in words, or nothing where it has more than a few numbers.
    """

    title: str
    frames: Sequence[NDArray[np.uint8]]
    rewards: Sequence[float]
    task: str = ""


class Recorder:
    """Watches the first row of an environment; give it to a rollout as `watch`."""

    def __init__(self) -> None:
        self._frames: list[NDArray[np.uint8]] = []
        self._rewards: list[float] = []
        self._task = ""

    def __call__(self, env: TaskVectorEnv, rewards: NDArray[np.float32]) -> None:
        """Keep a picture, and note the reward that led there."""
        self._task = task_in_words(env.tasks[0])
        self._frames.append(env.render_frame(0))
        self._rewards.append(float(rewards[0]))

    def cut(self, title: str, start: int = 0, stop: int | None = None) -> Recording:
        """Steps `start` to `stop` (the last by default) of what was seen.

        Where more steps follow, the environment may have begun anew with the last step: the picture before stays.
        """
        last = len(self._frames) - 1
        stop = last if stop is None else stop
        end = self._frames[stop] if stop == last else self._frames[stop - 1]
        return Recording(title, [*self._frames[start:stop], end], self._rewards[start + 1 : stop + 1], self._task)


def task_in_words(task: Mapping[str, Any]) -> str:
    """The numbers of a task by name; nothing where they are more than a few."""
    arrays = {name: np.asarray(value) for name, value in task.items()}
    if sum(array.size for array in arrays.values()) > NAMED:
        return ""
    numbers = {name: ", ".join(f"{number:.4g}" for number in array.ravel()) for name, array in arrays.items()}
    return ", ".join(f"{name}=({words})" if arrays[name].ndim else f"{name}={words}" for name, words in numbers.items())
