"""The command line under torchrun: several processes of one command, of which rank 0 speaks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from metarl.cli.terminal import complain
from metarl.errors import NonFiniteError, UserError
from metarl.ranks import ALONE, Ranks, present

SHARED = "train"  # the command that processes share


def ranks_of(command: str) -> Ranks:
    """The processes that run a command.

    Raises:
        UserError: torchrun's environment is not whole, or the command runs in one process.
    """
    try:
        ranks = present()
    except UserError:
        if command != SHARED:  # variables that somebody left concern it not
            return ALONE
        raise
    if ranks.size > 1 and command != SHARED:
        refused = UserError(f"metarl {command} runs in one process, and torchrun started {ranks.size}: start it alone")
        refused.everywhere = True
        raise refused
    return ranks


@contextlib.contextmanager
def quiet(ranks: Ranks) -> Iterator[None]:
    """Nothing is said on stdout but by rank 0."""
    if ranks.leads:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def complain_of_stop(text: str) -> None:
    """Print that a signal ended the command: all processes of torchrun stop together, and rank 0 says it."""
    if _rank() == "0":
        complain(text)


def complain_once(error: UserError | NonFiniteError) -> None:
    """Print an error in one line: rank 0 one that every process has, each its own otherwise."""
    rank = _rank()
    if rank == "0":
        complain(str(error))
    elif not error.everywhere:
        complain(f"rank {rank}: {error}")


def _rank() -> str:
    """As torchrun says it, be it what it may; 0 where there is one process."""
    return os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
