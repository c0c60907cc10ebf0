"""Memory: what a training process frees and needs again, how much there is, and what is said where it is too little."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from metarl.errors import UserError, one_line

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h
_MOST = 2**31 - 1  # the largest threshold that `mallopt` takes, bytes


def keep_freed_memory() -> bool:
    """Let the process keep the memory it frees, where its allocator is glibc's.

    Left alone, glibc maps every block above some 32 MB anew from the system and gives it back when it is freed, so
    each iteration pays for touching all its pages for the first time: more than a third of the time of an episode of
    60 classes through Conv4 (the row `kept_memory` of `scripts/benchmark_fewshot.py`). The process stays as large as
    it has been at its largest.

    Returns:
        Whether it was possible; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _MOST))


REFUSALS = (  # how torch, NumPy and the system say that memory cannot be had, in lower case
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "not enough memory",
    "can't start new thread",
    "array is too big",
    "maximum allowed dimension exceeded",
    "maximum supported dimension",
    "exceeds the maximum",
    "storage size calculation overflowed",
    "integer multiplication overflow",
    "overflow when unpacking long",
    "too large to convert",
    "too large to fit",
    "cannot fit 'int'",
    "int too large",
    "invalid shape dimension",
    "array size defined by dims is larger than the maximum possible size",
)


@contextlib.contextmanager
def refusals_in_one_line() -> Iterator[None]:
    """Say in one line that memory, or what else a number asks for, cannot be had.

    Raises:
        UserError: in place of whatever torch, NumPy or Python raised; other errors pass.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ValueError, OverflowError, TypeError) as error:
        text = one_line(error)
        memory = isinstance(error, MemoryError | OverflowError)
        if isinstance(error, UserError) or not (memory or any(word in text.lower() for word in REFUSALS)):
            raise
        advice = "give smaller numbers (a narrower network, fewer or shorter episodes, tasks or pictures at a time)"
        raise UserError(f"not enough memory: {text[:200]}; {advice}") from error


def most_memory() -> int | None:
    """Bytes that this process can have at most: the machine's, or what its group or its own limit leaves of them.

    Returns:
        None where the system does not say.
    """
    limits = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # the first says "max" where there is none
            limits.append(int(Path(name).read_text()))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limits.append(max(most - mapped, 0))
    return min(limits, default=None)


def check_memory(need: int, what: str) -> None:
    """Refuse what cannot fit.

    Args:
        need: bytes.
        what: needs them, for the line: "40 episodes of 100 steps need".

    Raises:
        UserError: this process cannot have so much.
    """
    most = most_memory()
    if most is not None and need > most:
        raise UserError(f"{what} at least {gib(need)} of memory, and there are {gib(most)}: give smaller numbers")


def gib(size: int) -> str:
    """A number of bytes, to read."""
    return f"{size / 2**30:,.1f} GiB"
