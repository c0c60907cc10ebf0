"""Whether a training fits into this machine's memory: asked before anything is made.

The estimate is from below: the parameters, with what an optimiser keeps of each, and the data that an iteration holds
at once. So what it refuses could not have run; what it lets pass may still need more, and is then stopped by
`metarl.allocator.refusals_in_one_line`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from metarl.allocator import check_memory, gib
from metarl.learning.contract import Source
from metarl.tasks import FROZEN, TaskFamily
from metarl.tasks.contract import prototype

NUMBER = 4  # bytes of a float32
COPIES = 4  # of each parameter: its value, its gradient, and two more of the optimiser's or of the search's


@dataclass(frozen=True)
class Footprint:
    """Memory that a training needs at least.

    Attributes:
        parameters: how many.
        data: bytes of what an iteration learns from.
    """

    parameters: int
    data: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return COPIES * NUMBER * self.parameters + self.data


def dense(widths: Sequence[int]) -> int:
    """Parameters of fully connected layers, widths from input to output."""
    return sum((above + 1) * below for above, below in pairwise(widths))


def check_training(config: Any, source: Source, device: str = "cpu") -> None:
    """Refuse a training that cannot fit, by its config's `footprint(source)`, a `Footprint`.

    A learner whose config has none is not asked, nor is memory that is not the CPU's.

    Raises:
        UserError: it needs more memory than this process can have.
    """
    if device != "cpu" or not callable(getattr(config, "footprint", None)):
        return
    need: Footprint = config.footprint(source)
    own = _frozen(source)
    check_memory(
        need.bytes + own,
        f"training with {need.parameters:,} parameters and {gib(need.data + own)} of data at a time needs",
    )


def _frozen(source: Source) -> int:
    """Bytes of the frozen tasks that training must not draw."""
    if not isinstance(source, TaskFamily) or not source.unseen:
        return 0
    return FROZEN * sum(values.nbytes for values in prototype(source).arrays.values())
