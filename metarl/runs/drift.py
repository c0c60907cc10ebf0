"""Whether the processes of a training are still at one: they never send parameters, so a difference would stay."""

from __future__ import annotations

import hashlib
from typing import Any

from metarl.ranks import DriftError, Ranks
from metarl.runs.checkpoints import pack


def check_alike(ranks: Ranks, state: Any, completed: int) -> None:
    """Check that every process has this very state, bit for bit; by a hash of 32 bytes each.

    Args:
        ranks: the processes.
        state: what a checkpoint would hold.
        completed: iterations.

    Raises:
        DriftError: another process has another state; all raise it.
    """
    if ranks.size == 1:
        return
    hashes = ranks.gather(hashlib.sha256(pack(state)).digest())
    if others := [rank for rank, each in enumerate(hashes) if each != hashes[0]]:
        raise DriftError(
            f"after {completed} iterations the state of rank {', '.join(map(str, others))} is no longer rank 0's; "
            "the last checkpoint stays. Processes compute alike on machines of one kind, with one version of everything"
        )
