"""Threads and devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def intra_op_threads(n: int) -> Iterator[None]:
    """Run torch with n intra-op threads, then as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def has_device(name: str | torch.device) -> bool:
    """Whether this machine can compute there; False too where torch knows no such device."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # the second where torch was built without it
        return False
    return True
