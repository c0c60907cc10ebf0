"""Memory that a training process frees and needs again in the next iteration."""

from __future__ import annotations

import ctypes
import sys

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
