"""Episodes as pictures: a recorder that watches a rollout."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

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


class Frames(Sequence[NDArray[np.uint8]]):
    """Pictures `(height, width, 3)`, kept compressed: about a tenth of the memory, in a few milliseconds each."""

    def __init__(self, packed: Sequence[tuple[tuple[int, ...], bytes]] = ()) -> None:
        self._packed = list(packed)

    def append(self, picture: NDArray[np.uint8]) -> None:
        """Keep one more."""
        self._packed.append((picture.shape, zlib.compress(picture.tobytes(), level=1)))

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> Frames: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | Frames:
        if isinstance(index, slice):
            return Frames(self._packed[index])
        shape, packed = self._packed[index]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)

    def __add__(self, other: Frames) -> Frames:
        return Frames([*self._packed, *other._packed])


class Recorder:
    """Watches the first row of an environment; give it to a rollout as `watch`."""

    def __init__(self) -> None:
        self._frames = Frames()
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
        end = stop if stop == last else stop - 1
        frames = self._frames[start:stop] + self._frames[end : end + 1]
        return Recording(title, frames, self._rewards[start + 1 : stop + 1], self._task)


def task_in_words(task: Mapping[str, Any]) -> str:
    """The numbers of a task by name; nothing where they are more than a few."""
    arrays = {name: np.asarray(value) for name, value in task.items()}
    if sum(array.size for array in arrays.values()) > NAMED:
        return ""
    numbers = {name: ", ".join(map(_shortly, array.ravel().tolist())) for name, array in arrays.items()}
    return ", ".join(f"{name}=({words})" if arrays[name].ndim else f"{name}={words}" for name, words in numbers.items())


def _shortly(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
