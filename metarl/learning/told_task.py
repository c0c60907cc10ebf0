"""What a critic is told of a task: its numbers.

The critic of an asymmetric actor-critic (Pinto et al. 2018) sees in training what the actor is to find out. Its
estimates are of the return on this very task, so advantages carry less of the luck of which task was drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metarl.errors import UserError
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks

SAMPLE = 1000  # training tasks whose numbers are standardised to zero mean and unit deviation


def flat(tasks: Tasks) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The arrays of T tasks one after the other, by name, `(T, K)`.

    Raises:
        UserError: they hold something other than numbers, or nothing.
    """
    parts = [tasks.arrays[name].reshape(len(tasks), -1) for name in sorted(tasks.arrays)]
    if any(part.dtype.kind not in "biuf" for part in parts) or not sum(part.shape[1] for part in parts):
        kinds = ", ".join(f"{name} ({tasks.arrays[name].dtype})" for name in sorted(tasks.arrays))
        raise UserError(f"--critic task is told a task's numbers, but these tasks hold {kinds or 'nothing'}")
    return np.concatenate([part.astype(np.float64) for part in parts], 1)


def told_numbers(family: TaskFamily, critic: str) -> int:
    """K, the numbers that a critic is told of a task; 0 for one that sees the memory alone."""
    return flat(family.fixed("train", 1)).shape[1] if critic == "task" else 0


class ToldTask:
    """The numbers of tasks, standardised over training tasks.

    Args:
        family: whose tasks they are.
        key: names the stream of the tasks that the mean and the deviation are taken over.

    Attributes:
        size: K, numbers a task.
    """

    def __init__(self, family: TaskFamily, key: Key) -> None:
        values = flat(family.sample(SAMPLE, key.numpy()))
        self._mean, deviation = values.mean(0), values.std(0)
        self._deviation = np.where(deviation > 0, deviation, 1.0)  # what is the same in all tasks says nothing
        self.size = values.shape[1]

    def __call__(self, tasks: Tasks) -> Tensor:
        """`(T, K)` float32."""
        return torch.from_numpy((flat(tasks) - self._mean) / self._deviation).float()
