"""The gradient of what several processes learn from: the sum of their parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from metarl.ranks import Ranks


def add_gradients(ranks: Ranks, parameters: Iterable[Tensor], numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add up the gradients in `.grad` over the ranks, in place, and some numbers with them, in one message.

    Args:
        ranks: each with its part.
        parameters: the same on every rank, of one type; what has no gradient on one has none on any.
        numbers: named scalars.

    Returns:
        The sums of the numbers; those of one rank are its own.
    """
    if ranks.size == 1:
        return dict(numbers)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    totals: list[Tensor] = []
    for kind in dict.fromkeys(gradient.dtype for gradient in gradients):  # one message a type; as a rule there is one
        own = [gradient for gradient in gradients if gradient.dtype == kind]
        tail = [value.detach().to(own[0]) for value in numbers.values()]
        *sums, total = ranks.sum(*own, torch.stack(tail))
        for gradient, whole in zip(own, sums, strict=True):
            gradient.copy_(whole)
        totals = totals or list(total.unbind())
    return dict(zip(numbers, totals, strict=True))
