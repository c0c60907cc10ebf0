"""Tasks in blocks, a thread each."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from metarl.nets.params import Params
from metarl.tasks import TaskFamily, Tasks


class Blocks:
    """T tasks x E replicas in blocks of tasks, each block a vector environment on a thread of its own.

    For `rollout` and `run_trials`, which run the blocks side by side: no thread waits for the others at every step,
    and each computes its own actions. Episodes are those of one vector environment: bit for bit where every task has
    its parameters, else up to the rounding of a product that has fewer rows.

    Args:
        family: whose tasks they are.
        tasks: T tasks.
        replicas: E environments a task.
        threads: as many blocks, where the family's `steps_in_parallel`; else one, stepped on that many threads.

    Attributes:
        tasks: the tasks being run.
        parts: the vector environments, in the order of their tasks.
    """

    def __init__(self, family: TaskFamily, tasks: Tasks, replicas: int, threads: int) -> None:
        blocks = threads if family.steps_in_parallel and threads <= len(tasks) else 1
        self.tasks = tasks
        self._bounds = [round(i * len(tasks) / blocks) for i in range(blocks + 1)]
        self.parts = [
            family.make_vec(tasks[mine], replicas, threads=1 if blocks > 1 else threads) for mine in self._slices
        ]

    @property
    def _slices(self) -> list[slice]:
        return [slice(*ends) for ends in pairwise(self._bounds)]

    def assign(self, tasks: Tasks) -> None:
        """Run other tasks, as many as before."""
        for part, mine in zip(self.parts, self._slices, strict=True):
            part.reset(options={"tasks": tasks[mine]})
        self.tasks = tasks

    def share(self, params: Params) -> list[Params]:
        """The stacked parameters `(T, ...)` of each block's tasks."""
        return [{name: value[mine] for name, value in params.items()} for mine in self._slices]

    def split(self, values: Tensor) -> list[Tensor]:
        """What each block's tasks have of values `(T, ...)`."""
        return [values[mine] for mine in self._slices]

    def close(self) -> None:
        """Close every block."""
        for part in self.parts:
            part.close()
