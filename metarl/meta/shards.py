"""A meta-batch a few tasks at a time: parts of an objective that add up, on any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from torch import Tensor

from metarl.errors import NonFiniteError
from metarl.meta.outer import sum_in_order
from metarl.parallel import intra_op_threads, map_on_threads

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


def total(what: str, parts: Sequence[Tensor], n_tasks: int) -> Tensor:
    """The sum over all shards, taken in their order.

    Raises:
        NonFiniteError: a shard's part is not finite; its tasks are named.
    """
    for part, tasks in zip(parts, slices(n_tasks, -(-n_tasks // len(parts))), strict=True):
        check(part, what, range(n_tasks)[tasks], n_tasks)
    return sum_in_order(parts)


def check(values: Tensor, what: str, tasks: Sequence[int], of: int) -> None:
    """Raise NonFiniteError unless all values are finite; `tasks` are those they are summed over."""
    if not values.isfinite().all():
        raise NonFiniteError(f"{what} is not finite", tasks=tasks, of=of)
