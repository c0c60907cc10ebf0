"""What torch's caller may have switched, put to what every number here is made with.

The default floating-point type, inference mode, autocast, a disabled gradient and a default device all change
what the same code computes, or stop it with an error that names none of them. Whatever trains, loads or judges
enters `plain_torch`, so that nothing depends on them; afterwards they are as before. Deterministic algorithms
stay as the caller wants them: they choose among kernels and never what is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tree = TypeVar("Tree")
AUTOCAST = ("cpu", "cuda")  # the device types we compute on


@contextmanager
def plain_torch() -> Iterator[None]:
    """float32, gradients on, no inference mode, no autocast, on the CPU unless told otherwise; also a decorator.

    torch's global generator comes back as it was, too.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with ExitStack() as before:
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            before.callback(torch.set_default_dtype, dtype)
        if device.type != "cpu":  # only then: a default device slows every call down
            before.enter_context(torch.device("cpu"))
        for kind in AUTOCAST:
            if torch.is_autocast_enabled(kind):
                before.enter_context(torch.autocast(kind, enabled=False))
        before.enter_context(torch.random.fork_rng(devices=[]))  # making a layer draws from the caller's generator
        before.enter_context(torch.inference_mode(mode=False))
        before.enter_context(torch.enable_grad())
        yield


def usable(tree: Tree) -> Tree:
    """The tree of tensors, those made in inference mode copied: autograd refuses them even outside it."""

    def plain(leaf: Tensor) -> Tensor:
        return leaf.clone() if leaf.is_inference() else leaf

    made: Tree = pytree.tree_map_only(Tensor, plain, tree)
    return made
