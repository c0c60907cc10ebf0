"""A meta-batch a few tasks at a time: parts of an objective that add up, on any number of threads and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from metarl.errors import NonFiniteError
from metarl.meta.outer import sum_in_order
from metarl.parallel import intra_op_threads, map_on_threads
from metarl.ranks import ALONE, Ranks

SHARD = 2  # tasks differentiated together: few enough for the processor's cache, enough to keep operators busy
Part = TypeVar("Part")
Result = TypeVar("Result")


class Each(Protocol):
    """A function on every shard."""

    def __call__(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """The results, in the order of the shards."""


def slices(n_tasks: int, size: int = SHARD) -> list[slice]:
    """The shards of a batch of tasks."""
    return [slice(i, min(i + size, n_tasks)) for i in range(0, n_tasks, size)]


@contextmanager
def on_threads(n: int) -> Iterator[Each]:
    """Work on shards with n threads of one intra-op thread each; what comes out does not depend on n."""
    with intra_op_threads(1):
        if n == 1:
            yield lambda function, parts: list(map(function, parts))
        else:
            yield lambda function, parts: map_on_threads(n, function, parts)


@dataclass(frozen=True)
class Split:
    """A meta-batch shared out over processes: the tasks of each, and what is put together from all.

    On a CPU shards stay whole, so that sums have the bits of one process. Where there are fewer shards than processes,
    those without one do the last again, and add nothing. On an accelerator, where a process differentiates all of its
    tasks at once, bits depend on their number anyway, and tasks are shared out one by one.
    """

    n_tasks: int  # of the whole meta-batch
    ranks: Ranks = ALONE
    device: torch.device | str = "cpu"

    @property
    def size(self) -> int:
        """Tasks of a shard: all of a process on an accelerator, which has its own ways to divide work."""
        return SHARD if self.in_order else self.n_tasks

    @property
    def in_order(self) -> bool:
        """Whether sums are taken from task to task, as one process takes them."""
        return torch.device(self.device).type == "cpu"

    @property
    def busy(self) -> int:
        """Processes that have tasks nobody else has."""
        return min(self.ranks.size, -(-self.n_tasks // SHARD)) if self.in_order else self.ranks.size

    @property
    def adds(self) -> bool:
        """Whether this one is busy."""
        return self.ranks.rank < self.busy

    @property
    def own(self) -> slice:
        """This process's tasks.

        Raises:
            ValueError: there are fewer tasks than processes.
        """
        if not self.in_order:
            return self.ranks.share(self.n_tasks)
        rank, shards = min(self.ranks.rank, self.busy - 1), -(-self.n_tasks // SHARD)
        first, beyond = (SHARD * (r * shards // self.busy) for r in (rank, rank + 1))
        return slice(first, min(beyond, self.n_tasks))

    def sum(self, parts: Sequence[Tensor]) -> Tensor:
        """The sum of what each shard of every process has."""
        if self.in_order:
            return self.ranks.sum_in_order(parts, adds=self.adds)
        return self.ranks.sum(sum_in_order(parts))[0]

    def gather(self, value: Result) -> list[Result]:
        """What every process has of its tasks, in their order."""
        return self.ranks.gather(value)[: self.busy]

    def together(self, function: Callable[[], Result]) -> Result:
        """What the function gives for this process's tasks; see `Ranks.together`."""
        return self.ranks.together(function, tasks=self.n_tasks, own=self.own)


@dataclass(frozen=True)
class Sums:
    """Sums over all tasks, the same bits on every process, which all call the same methods in the same order."""

    each: Each
    split: Split

    def of(self, function: Callable[[Part], Tensor], shards: Sequence[Part]) -> Tensor:
        """The sum of a function of every shard."""
        return self.split.sum(self.each(function, shards))

    def checked(self, parts: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        """Sums of what every shard of this process has, by name, in one message.

        Raises:
            NonFiniteError: a sum is not finite; the tasks of the first shard whose part is not are named.
        """
        shapes = [of_shards[0].shape for of_shards in parts.values()]
        flat = [torch.cat([part.reshape(-1) for part in shard]) for shard in zip(*parts.values(), strict=True)]
        whole = torch.split(self.split.sum(flat), [shape.numel() for shape in shapes])
        sums = [total.view(shape) for total, shape in zip(whole, shapes, strict=True)]
        for what, total in zip(parts, sums, strict=True):
            if not total.isfinite().all():
                self._blame(what, parts[what])
        return sums

    def _blame(self, what: str, parts: Sequence[Tensor]) -> None:
        """Raise the NonFiniteError of a sum on all processes."""

        def look() -> None:
            own = range(self.split.n_tasks)[self.split.own]
            for part, tasks in zip(parts, slices(len(own), self.split.size), strict=True):
                check(part, what, range(len(own))[tasks], self.split.n_tasks)

        self.split.together(look)
        raise NonFiniteError(f"{what} is not finite", of=self.split.n_tasks)  # finite parts whose sum is not


def check(values: Tensor, what: str, tasks: Sequence[int], of: int) -> None:
    """Raise NonFiniteError unless all values are finite; `tasks` are those they are summed over."""
    if not values.isfinite().all():
        raise NonFiniteError(f"{what} is not finite", tasks=tasks, of=of)
