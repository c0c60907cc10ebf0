"""Numbers watched: what is NaN or infinite ends the work, with the data that show it again.

Environments are watched by `TaskVectorEnv` and `run_episodes`, what a learner makes of their numbers by the checks
here, and everything that a run logs or saves by `Run`. Each check costs one reduction, and reads one number back
from an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from metarl.errors import NonFiniteError
from metarl.tasks import Tasks

REFUSALS = {  # words of torch's errors, and what they mean
    "to satisfy the constraint": "a parameter of the policy's distribution is nan",
    "without overflow": "a step of the optimiser is infinite",
}
REPRODUCER_BYTES = 1 << 20  # of the failing data that a run folder keeps


def check_numbers(values: Mapping[str, float | Tensor]) -> None:
    """Raise NonFiniteError for the first of some named numbers that is not finite."""
    for name, value in values.items():
        number = float(value.detach() if isinstance(value, Tensor) else value)
        if not math.isfinite(number):
            raise NonFiniteError(f"{name} is {number}")


def check_gradient(tensors: Mapping[str, Tensor]) -> None:
    """Raise NonFiniteError unless the norm of the gradients in `.grad` is finite.

    Where the norm overflows, the squares that Adam keeps do so too, and nothing is learned any more.
    """
    gradients = {name: value.grad for name, value in tensors.items() if value.grad is not None}
    norm = float(get_total_norm(list(gradients.values())))
    if not math.isfinite(norm):
        check_tensors(gradients, "the gradient of ")
        raise NonFiniteError(f"the norm of the gradient is {norm}")


def check_tensors(tensors: Mapping[str, Tensor], what: str, infinite: Collection[str] = ()) -> None:
    """Raise NonFiniteError unless every number is finite, those of the tensors named in `infinite` left out.

    The line says `what` before the name of the tensor.
    """
    checked = {name: value.detach() for name, value in tensors.items() if name not in infinite and value.numel()}
    checked = {name: value for name, value in checked.items() if value.is_floating_point()}
    if checked and not torch.stack([value.abs().amax() for value in checked.values()]).isfinite().all():
        for name, value in checked.items():
            if (broken := value[~value.isfinite()]).numel():
                raise NonFiniteError(f"{what}{name} is {float(broken[0])}")


@contextmanager
def refusals_of_torch() -> Iterator[None]:
    """Torch's own refusals of numbers that are not finite, as NonFiniteError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        for sign, what in REFUSALS.items():
            if sign in str(error):
                raise NonFiniteError(what) from None
        raise


def finite_rows(stacked: Mapping[str, Tensor]) -> Tensor:
    """Whether all numbers of a row are finite, `(T,)` bool, of tensors `(T, ...)`."""
    return torch.stack([value.detach().isfinite().flatten(1).all(1) for value in stacked.values()]).all(0)


def check_rows(stacked: Mapping[str, Tensor], what: str, tasks: Tasks) -> None:
    """Raise NonFiniteError unless all numbers of tensors `(T, ...)` are finite; it names the tasks that are not."""
    whole = finite_rows(stacked)
    if not whole.all():
        raise blame(NonFiniteError(f"{what} is not finite"), tasks, torch.nonzero(~whole).flatten().tolist())


def blame(error: NonFiniteError, tasks: Tasks, positions: list[int]) -> NonFiniteError:
    """The error with the tasks it belongs to: those at `positions` of a batch, or none of them by itself."""
    error.tasks, error.of = positions, len(tasks)
    error.task = dict((tasks[positions] if positions else tasks).arrays)
    return error


def failing(tasks: Tasks, attempt: Callable[[Tasks], Any]) -> list[int]:
    """The positions of the tasks for which `attempt`, given one alone, raises NonFiniteError."""
    positions = []
    for t in range(len(tasks)):
        try:
            attempt(tasks[t : t + 1])
        except NonFiniteError:
            positions.append(t)
    return positions


def masks(tensors: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> list[str]:
    """The names of tensors with infinite numbers that no optimiser moves, such as masks: they may have them."""
    moved = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    return [name for name, value in tensors.items() if id(value) not in moved and value.isinf().any()]


def first_non_finite(tree: Any, where: str = "state", infinite: Collection[str] = ()) -> str | None:
    """The place of the first number in nested dicts, lists and tuples that is not finite; None if there is none.

    Args:
        tree: what a checkpoint holds. Infinities are allowed in tensors named in its entry `infinite`, if it has one.
        where: what to call it.
        infinite: names of tensors, anywhere in the tree, that may hold infinities.
    """
    if isinstance(tree, Tensor):
        return f"{where} holds a number that" if tree.is_floating_point() and not tree.isfinite().all() else None
    if isinstance(tree, float):
        return None if math.isfinite(tree) else f"{where}, {tree},"
    if isinstance(tree, Mapping):
        named = tree.get("infinite")
        infinite = named if isinstance(named, list) else infinite
        items: Iterator[tuple[Any, Any]] = (
            (name, item.where(~item.isinf(), 0) if isinstance(item, Tensor) and name in infinite else item)
            for name, item in tree.items()
        )
    elif isinstance(tree, list | tuple):
        items = enumerate(tree)
    else:
        return None
    return next(
        (place for key, item in items if (place := first_non_finite(item, f"{where}[{key!r}]", infinite))), None
    )


def reproducer(error: NonFiniteError, state: Any) -> dict[str, Any]:
    """What shows a failure again, as plain data and tensors of `REPRODUCER_BYTES` at most.

    Args:
        error: what failed.
        state: of the learner, as a checkpoint holds it.

    Returns:
        `what`, `iteration`, `environment`, the positions of the tasks in `positions`, their parameters in `task`,
        the failing data in `data`, and `state`. `left_out` names what would have been too large.
    """
    left, left_out = REPRODUCER_BYTES, []
    kept: dict[str, Any] = {"task": {}, "data": {}, "state": None}
    parts = (("task", error.task), ("data", error.data))
    plain = [(part, name, _tensors(value)) for part, tree in parts for name, value in tree.items()]
    for part, name, value in sorted(plain, key=lambda item: _bytes(item[2])):  # small ones first: they say the most
        if _bytes(value) <= left:
            left -= _bytes(value)
            kept[part][name] = value
        else:
            left_out.append(f"{part} {name}, {_bytes(value)} bytes")
    if _bytes(state) <= left:
        kept["state"] = state
    else:
        left_out.append(f"state, {_bytes(state)} bytes")
    return {
        "version": 1,
        "what": error.what,
        "iteration": error.iteration,
        "environment": error.environment,
        "positions": error.tasks,
        **kept,
        "left_out": left_out,
    }


def _tensors(value: Any) -> Any:
    """An array as a tensor, or as a list where torch has no such type; anything else as it is."""
    if not hasattr(value, "dtype") or isinstance(value, Tensor):
        return value
    return torch.from_numpy(value.copy()) if value.dtype.kind in "biuf" else value.tolist()


def _bytes(tree: Any) -> int:
    """What the tensors and other leaves of nested dicts, lists and tuples take, about."""
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, Mapping):
        return sum(map(_bytes, tree.values()))
    if isinstance(tree, list | tuple):
        return sum(map(_bytes, tree))
    return len(tree) if isinstance(tree, str) else 8
