"""A device that computes on the CPU but lets no tensor of the CPU near its own: what a GPU would refuse, it refuses.

Tensors on it say that they are on torch's `meta` device; beneath they hold numbers, so whole trainings run on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
CPU, PRETENDED = torch.device("cpu"), torch.device(DEVICE)
INDEXING = ("aten.index.Tensor", "aten.index_put.default", "aten.index_put_.default", "aten._index_put_impl_.default")
MOVING = ("aten._to_copy.default", "aten.copy_.default")


class Pretended(Tensor):
    """A tensor of the device; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=PRETENDED,
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"Pretended({self.held})"

    def tolist(self) -> Any:
        """Its numbers, read back."""
        return self.detach().cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refused, as for a tensor of a GPU."""
        raise TypeError("can't convert a tensor of the device to numpy: use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {}, None)


class Seen(TorchDispatchMode):
    """Within it the device is there; it counts what a program waits for: numbers read back from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {}, self.waits)


def run(func: Any, args: Any, kwargs: dict[str, Any], waits: Counter[str] | None) -> Any:
    """An operation on tensors of one device, or what moves them."""
    name = str(func)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = [leaf for leaf in tensors if isinstance(leaf, Pretended)]
    if here and name not in MOVING:
        free = tree_leaves(args[1]) if name in INDEXING else []  # a GPU takes indices of the CPU too
        strangers = [t for t in tensors if not isinstance(t, Pretended) and t.dim() and not any(t is f for f in free)]
        if strangers:
            shapes = [tuple(each.shape) for each in strangers]
            raise RuntimeError(f"{name} got tensors of the CPU, {shapes}, beside tensors of the device")
    target = kwargs.get("device")
    target = None if target is None else torch.device(target)
    makes_here = bool(here) if target is None else target.type == DEVICE
    inner = dict(kwargs)
    if target is not None:
        inner["device"] = CPU
    if name == "aten.copy_.default":
        makes_here = isinstance(args[0], Pretended)
    if waits is not None and here and (name == "aten._local_scalar_dense.default" or not makes_here):
        waits[name] += 1
    plain_args, plain_kwargs = tree_map(_plain, (args, inner))
    made = func(*plain_args, **plain_kwargs)
    if func._schema.is_mutable and isinstance(made, Tensor):  # what is changed in place is returned as it came
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Pretended):
                return value
        if isinstance(kwargs.get("out"), Pretended):
            return kwargs["out"]
    return tree_map(lambda leaf: Pretended(leaf) if makes_here and type(leaf) is Tensor else leaf, made)


def _plain(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, Pretended) else leaf


@contextmanager
def pretended_device() -> Iterator[Seen]:
    """The device is there; yields what has been seen of the program."""
    with Seen() as seen:
        yield seen
