"""The lean mode's promise, in numbers a test can hold: what it keeps does not grow with the inner steps."""

import weakref

import pytest
import torch

from metarl.meta.inner import Rule
from metarl.meta.outer import maml, meta_gradient
from metarl.seeding import Key


class Ledger(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the elements that are alive among the tensors computed under it, and their peak."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.numel() > 1000:
                self._count(leaf)
        return out

    def _count(self, leaf):
        size = leaf.untyped_storage().nbytes() if leaf._base is None else 0
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(leaf, self._forget, size)

    def _forget(self, size):
        self.alive -= size


def peak(steps, lean):
    g = Key(0).torch()
    params = {"w": torch.randn(4, 4, generator=g), "v": torch.randn(4, 4, generator=g)}
    x = torch.randn(1, 2000, 4, generator=g)

    def loss(values, data):
        return (torch.tanh(torch.tanh(data @ values["w"]) @ values["v"]) ** 2).mean()

    objective = maml(loss, lambda p, d: (loss(p, d), {}), Rule(0.1, steps), lean=lean)
    with Ledger() as ledger:
        meta_gradient(objective, {"model": params}, (x, x))
    return ledger.peak


@pytest.mark.parametrize(("lean", "grows"), [(True, False), (False, True)])
def test_memory_grows_with_the_steps_only_without_lean(lean, grows):
    ratio = peak(10, lean) / peak(1, lean)
    assert (ratio > 3) if grows else (ratio <= 1.3)
