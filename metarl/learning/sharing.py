"""Whether a learner can be trained by several processes."""

from __future__ import annotations

from typing import Any

from metarl.errors import UserError
from metarl.ranks import Ranks


def check_shares(name: str, learner: Any, config: Any, ranks: Ranks) -> None:
    """Refuse a learner that knows nothing of processes, and one with less to share out than there are.

    Args:
        name: the learner's.
        learner: see `metarl.learning.contract.Learner`.
        config: its.
        ranks: the processes.

    Raises:
        UserError: it cannot be trained by so many processes.
    """
    if ranks.size == 1:
        return
    field = getattr(learner, "SHARED", None)
    if field is None:
        raise UserError(
            f"{name} trains in one process, and torchrun started {ranks.size}: start it without torchrun "
            "(a learner of your own names what they share out as SHARED)"
        )
    if (n := getattr(config, field)) < ranks.size:
        raise UserError(
            f"--{field.replace('_', '-')} is {n}, and torchrun started {ranks.size} processes, which share them out: "
            f"give at least {ranks.size}, or --nproc-per-node {n}"
        )
