"""How many images go through a network together when nothing is learned: memory bounded in bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BYTES = 1 << 28  # that images and what a network makes of them may take at a time
COPIES = (
    4  # of the images' numbers there are beside each other: as bytes, as floats, support and query joined, permuted
)


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's has no types
    """Watches every operation: the most that the results of two in a row take, bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.bytes: int = 0
        self._before: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if any(each.alias_info is not None for each in func._schema.returns):
            return made  # a view, or written in place: nothing new
        now = sum(each.numel() * each.element_size() for each in tree_leaves(made) if isinstance(each, Tensor))
        self.bytes, self._before = max(self.bytes, self._before + now), now
        return made


def bytes_per_image(encode: Callable[[Tensor], Any], shape: Sequence[int], like: Tensor) -> int:
    """What an image's activations take while a network without gradients encodes it.

    Args:
        encode: from images `(B, ...)`; called with two blank ones.
        shape: of an image.
        like: a tensor of the images' type and device.
    """
    with torch.no_grad(), _Largest() as largest:
        encode(torch.zeros(2, *shape, dtype=like.dtype, device=like.device))
    return int(-(-largest.bytes // 2))
