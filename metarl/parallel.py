"""Threads and devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from metarl.errors import UserError

PREFERRED = ("cuda", "mps", "cpu")  # what `auto` looks for, in this order


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
    """Whether this machine can compute there and read the result; False too where torch knows no such device."""
    try:
        torch.ones(1, device=name).cpu()  # torch's `meta` holds no numbers
    except (RuntimeError, AssertionError):  # the second where torch was built without it
        return False
    return True


def choose_device(name: str | torch.device) -> str:
    """The name of a device that this machine has; of `auto` the first of cuda, mps and cpu.

    Raises:
        UserError: it has no such device.
    """
    if str(name) == "auto":
        return next(each for each in PREFERRED if has_device(each))
    if not has_device(name):
        here = ", ".join(each for each in PREFERRED if has_device(each))
        raise UserError(f"this machine has no device {str(name)!r}; it has {here}, and auto takes the first of these")
    return "cpu" if torch.device(name).type == "cpu" else str(name)  # one name for one device
