"""The gradient of what several threads and processes learn from: the sum of their parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from metarl.meta.shards import on_threads
from metarl.ranks import Ranks

LOSS = "the loss"  # what it is called among the numbers
Part = TypeVar("Part")


def sum_gradients(
    loss: Callable[[Part], tuple[Tensor, Mapping[str, Tensor]]],
    parts: Sequence[Part],
    parameters: Sequence[Tensor],
    threads: int = 1,
) -> dict[str, Tensor]:
    """Put the gradient of the sum of a loss over parts into `.grad`; what was there is gone.

    Sums are taken in the order of the parts, so they have the same bits on any number of threads.

    Args:
        loss: of a part, and named scalars that are sums over parts as well.
        parts: at least one.
        parameters: leaves of the loss; those it does not depend on get no gradient.
        threads: of one intra-op thread each.

    Returns:
        The sums of the numbers, and that of the loss as `LOSS`.
    """

    def differentiated(part: Part) -> tuple[tuple[Tensor | None, ...], dict[str, Tensor]]:
        value, numbers = loss(part)
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        return gradients, {**numbers, LOSS: value.detach()}

    with on_threads(threads) as each:
        done = each(differentiated, parts)
    (gradients, numbers), *rest = done
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    for others, more in rest:
        for parameter, gradient in zip(parameters, others, strict=True):
            if gradient is not None:
                assert parameter.grad is not None  # every part depends on the same parameters
                parameter.grad += gradient
        numbers = {name: value + more[name] for name, value in numbers.items()}
    return numbers


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
