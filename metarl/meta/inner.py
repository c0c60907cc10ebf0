"""The inner loop: shared parameters in, task parameters out, differentiable all the way.

One `step`, folded by `adapt`, serves supervised learning and reinforcement learning, one task and a
stack of tasks, first and second order. Everything is a pure function of its arguments: no module is
mutated, no mode is hidden. It composes with `torch.func` (vmap, jvp, vjp, linearize) and with
ordinary autograd around it, which is the quicker of the two where tasks come one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor

Params = dict[str, Tensor]
LossFn = Callable[[Params, Any], Tensor]
Collect = Callable[[Params, int], Any]
StepSize = float | Tensor | Mapping[str, Tensor]


def unbounded(params: Params) -> Params:
    """The projection of parameters that have no bounds: they stay as they are."""
    return params


@dataclass(frozen=True)
class Rule:
    """How the inner loop moves.

    >>> rule = Rule(step_size=0.1, steps=2, moves="head.*", order=1)
    >>> rule.steps
    2

    Attributes:
        step_size: a number; a tensor; a mapping from parameter name to a tensor that broadcasts
            against the parameter (Meta-SGD learns one of the parameter's own shape, a scalar is one
            a layer); or a tuple of these, one a step, the last serving all later steps
            (`(0.1, 0.05)` is the test protocol of Finn et al. 2017). Tensors that require gradients
            receive them: pass learned step sizes as part of the meta-parameters.
        steps: K, how many steps `adapt` takes.
        moves: which parameters adapt: a pattern on their names (`"*"`, `"head.*"`) or several,
            separated by spaces.
        order: 2 differentiates through the steps; 1 treats each step's gradient as a constant.
        project: puts parameters back within their bounds after each step; pure and differentiable
            (a policy's `project`). Parameters that have none stay as they are.
    """

    step_size: StepSize | tuple[StepSize, ...]
    steps: int = 1
    moves: str = "*"
    order: Literal[1, 2] = 2
    project: Callable[[Params], Params] = unbounded

    def size(self, k: int) -> StepSize:
        """The step size of step k, counted from 0."""
        if isinstance(self.step_size, tuple):
            return self.step_size[min(k, len(self.step_size) - 1)]
        return self.step_size

    def moving(self, names: Sequence[str]) -> list[str]:
        """The names that adapt.

        Raises:
            ValueError: the pattern matches none of them.
        """
        patterns = self.moves.split()
        matching = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
        if not matching:
            raise ValueError(f"no parameter matches {self.moves!r}; there are {', '.join(names)}")
        return matching


def step(params: Params, loss_fn: LossFn, batch: Any, rule: Rule, k: int = 0) -> Params:
    """One inner step: project(params - step_size * grad loss_fn(params, batch)).

    Args:
        params: one set of parameters, or one per task, stacked `(T, ...)`.
        loss_fn: a scalar loss; for stacked parameters a loss per task `(T,)`, task t depending on
            row t alone.
        batch: what `loss_fn` wants.
        rule: how to move.
        k: which step this is, counted from 0.

    Returns:
        New parameters; those that do not move are passed on as they are.
    """
    moving = {name: params[name] for name in rule.moving(list(params))}

    def total(values: Params) -> Tensor:
        return loss_fn({**params, **values}, batch).sum()

    if rule.order == 1:
        # The gradient at detached parameters leaves no graph behind: cheaper than detaching it.
        frozen = {name: value.detach() for name, value in params.items()}
        start = {name: frozen[name] for name in moving}
        gradient = _gradient(lambda values: loss_fn({**frozen, **values}, batch).sum(), start, tracked=False)
        gradient = {name: value.detach() for name, value in gradient.items()}
    else:
        gradient = _gradient(total, moving, tracked=torch.is_grad_enabled())
    size = rule.size(k)
    moved = {
        name: value - (size[name] if isinstance(size, Mapping) else size) * gradient[name]
        for name, value in moving.items()
    }
    return rule.project({**params, **moved})


def _gradient(function: Callable[[Params], Tensor], values: Params, tracked: bool) -> Params:
    """The gradient of a scalar function by the autograd tape, or by `torch.func.grad` where that must do.

    Both give the same bits; on a CPU the tape takes two thirds of the time when the tensors are small.
    """
    unrecorded = not any(value.requires_grad for value in values.values())
    if transformed() or (tracked and unrecorded):  # the function may hold other tensors that want gradients
        composed: Params = torch.func.grad(function)(values)
        return composed
    with torch.enable_grad():
        # Where nothing is tracked the values may be views made without a graph, whose gradients autograd gets wrong.
        leaves = {n: v if tracked and v.requires_grad else v.detach().requires_grad_() for n, v in values.items()}
        gradients = torch.autograd.grad(
            function(leaves), list(leaves.values()), create_graph=tracked, materialize_grads=True
        )
    return dict(zip(leaves, gradients, strict=True))


def transformed() -> bool:
    """Whether a transform of `torch.func` is at work, where the autograd tape cannot be asked."""
    try:
        torch.empty(0).requires_grad_()  # it refuses this, whatever the tensor
    except RuntimeError:
        return True
    return False


def adapt(params: Params, loss_fn: LossFn, batches: Any | Collect, rule: Rule) -> list[Params]:
    """K inner steps; all K + 1 iterates, the first being `params` itself.

    >>> distance = lambda params, target: (params["x"] - target) ** 2
    >>> iterates = adapt({"x": torch.tensor(1.0)}, distance, torch.tensor(0.0), Rule(step_size=0.25, steps=2))
    >>> [float(params["x"]) for params in iterates]
    [1.0, 0.5, 0.25]

    Args:
        params: see `step`.
        loss_fn: see `step`.
        batches: the data of every step, or a function `collect(params, k)` that gathers step k's
            data with the current iterate (reinforcement learning acts anew at each step).
        rule: how to move, and K.
    """
    iterates = [params]
    for k in range(rule.steps):
        batch = batches(iterates[-1], k) if callable(batches) else batches
        iterates.append(step(iterates[-1], loss_fn, batch, rule, k))
    return iterates


def stack(params: Params, n: int) -> Params:
    """One set of parameters n times, as a stack `(n, ...)`, without copying memory."""
    return {name: value.expand(n, *value.shape) for name, value in params.items()}
