"""What ranks do in tests, in a file that their processes can import."""

import os
from typing import Any

import torch

from metarl.errors import NonFiniteError, UserError
from metarl.ranks import LostRankError, Ranks


class OfTwoArgumentsError(Exception):
    """An error that pickles but cannot be made again."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def everything(ranks: Ranks) -> dict[str, Any]:
    """Each way of telling the others something, once."""
    a, b = ranks.sum(torch.full((2, 3), 10.0**ranks.rank), torch.tensor(float(ranks.rank)))
    return {
        "share": ranks.share(5),
        "sum": (a.tolist(), float(b)),
        "sums": ranks.sums({"steps": 2**53 - 2.0, "one": float(ranks.rank == 0)}) if ranks.size == 1 else None,
        "double": ranks.sums({"x": 0.1 * ranks.rank, "y": 1.0}),
        "gather": ranks.gather(f"rank {ranks.rank}"),
        "broadcast": ranks.broadcast({"from": ranks.rank}),
        "any": (ranks.any(False), ranks.any(ranks.rank == ranks.size - 1)),
        "together": ranks.together(lambda: ranks.rank),
        "first": ranks.first(lambda: ("made by", ranks.rank)),
    }


def errors(ranks: Ranks) -> list[tuple[str, str, bool]]:
    """What every rank raises where one does, or several."""

    def fail(*failing: int, error: Exception) -> Any:
        if ranks.rank in failing:
            raise error

    seen = []
    broken = NonFiniteError("a parameter is not finite", tasks=[0], of=2)
    for attempt in (
        lambda: ranks.together(lambda: fail(1, error=UserError("no such file"))),
        lambda: ranks.together(lambda: fail(1, error=broken), tasks=5),
        lambda: ranks.together(lambda: fail(0, 1, error=ValueError(f"of rank {ranks.rank}"))),
        lambda: ranks.together(lambda: fail(1, error=OfTwoArgumentsError("a", "b"))),
        lambda: ranks.first(lambda: fail(0, error=UserError("the folder holds a run"))),
    ):
        try:
            attempt()
        except Exception as error:
            seen.append((type(error).__name__, str(error), getattr(error, "everywhere", False)))
    assert ranks.gather(ranks.rank) == list(range(ranks.size))  # nobody waits for a message that never comes
    return seen


def one_dies(ranks: Ranks) -> str:
    """What the others see of a rank that is killed."""
    ranks.any(False)
    if ranks.rank == 1:
        os.kill(os.getpid(), 9)
    try:
        while True:
            ranks.sum(torch.ones(3))
    except LostRankError as error:
        return str(error)
