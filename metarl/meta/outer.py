"""The outer loop's gradient: mean loss and meta-gradient over a batch of tasks.

An `Objective` is a loss per task; `meta_gradient` averages it over the leading axis of a batch.
Strategies differ in speed and memory, never in the result beyond floating-point summation order:

- `loop`: a task after the other.
- `threads`: a task a thread, one intra-op thread each, summed in task order.
- `vmap`: all tasks (or chunks of them) as one batched computation.

`choose` measures them once for a shape and a device; the `Plan` it returns is plain data, so a run
stores it and a resumed run repeats it.

`maml` builds the objective of Finn et al. 2017 from two losses and an inner `Rule`, either by plain
double backward or memory-lean: exact as well, but the graphs of the inner steps are never held
together, so memory does not grow with their number.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.meta.inner import LossFn, Params, Rule, adapt, transformed
from metarl.parallel import cores, intra_op_threads, map_on_threads
from metarl.ranks import ALONE, Ranks

_FORWARD_MODE = threading.Lock()  # torch's forward-mode level belongs to the process, not to the thread
Strategy = Literal["loop", "threads", "vmap"]
NEAR = 2.0  # a strategy that takes this many times the fastest's time is measured no more
Tree = Any  # a nest of dicts, lists and tuples with tensor leaves
Loss = Callable[[Tree, Tree], tuple[Tensor, Tree]]
Gradient = Callable[[Tree, Tree], tuple[Tree, tuple[Tensor, Tree]]]


@dataclass(frozen=True)
class Objective:
    """A per-task loss.

    Attributes:
        loss: `(params, task) -> (scalar loss, aux)`; aux is a tree of tensors to report.
        gradient: `(params, task) -> (gradient, (loss, aux))` where it is not to be had by plain
            differentiation of `loss`; None otherwise.
    """

    loss: Loss
    gradient: Gradient | None = None

    def task_gradient(self, params: Tree, task: Tree) -> tuple[Tree, tuple[Tensor, Tree]]:
        """Gradient, loss and aux of one task, by the autograd tape or, within its transforms, by `torch.func`."""
        if self.gradient is not None:
            return self.gradient(params, task)
        if transformed():
            result: tuple[Tree, tuple[Tensor, Tree]] = torch.func.grad_and_value(self.loss, has_aux=True)(params, task)
            return result
        leaves, shape = pytree.tree_flatten(pytree.tree_map(lambda leaf: leaf.detach().requires_grad_(), params))
        with torch.enable_grad():
            loss, aux = self.loss(pytree.tree_unflatten(leaves, shape), task)
            gradient = torch.autograd.grad(loss, leaves, materialize_grads=True)
        return pytree.tree_unflatten(list(gradient), shape), (loss.detach(), pytree.tree_map(torch.Tensor.detach, aux))


@dataclass(frozen=True)
class Plan:
    """How a meta-gradient is computed.

    Attributes:
        strategy: see the module.
        threads: worker threads for `threads`, intra-op threads for the others.
        chunk: tasks at a time for `vmap`; None for all.
    """

    strategy: Strategy = "loop"
    threads: int = 1
    chunk: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for a run's config."""
        return asdict(self)


@dataclass(frozen=True)
class MetaGradient:
    """Means over the batch of tasks, except `aux`.

    Attributes:
        loss: `()`.
        gradient: a tree like the parameters.
        aux: what the objective reported, stacked `(T, ...)`.
    """

    loss: Tensor
    gradient: Tree
    aux: Tree


def batch_size(batch: Tree) -> int:
    """T, the first axis of every leaf.

    Raises:
        ValueError: the leaves disagree.
    """
    sizes = {leaf.shape[0] for leaf in pytree.tree_leaves(batch)}
    if len(sizes) != 1:
        raise ValueError(f"every tensor of a batch of tasks needs the same first axis, got sizes {sorted(sizes)}")
    return int(sizes.pop())


def meta_gradient(
    objective: Objective, params: Tree, batch: Tree, plan: Plan | None = None, ranks: Ranks = ALONE
) -> MetaGradient:
    """Mean loss and gradient of `objective` over the tasks of `batch`, or of the batches of all ranks.

    >>> from metarl.meta.outer import Objective
    >>> def after_a_step(params, target):
    ...     distance = lambda at, target: (at["x"] - target) ** 2
    ...     loss = distance(adapt(params, distance, target, Rule(0.25, steps=1))[-1], target)
    ...     return loss, {}
    >>> result = meta_gradient(Objective(after_a_step), {"x": torch.tensor(1.0)}, torch.tensor([0.0, 2.0]))
    >>> float(result.loss), float(result.gradient["x"])
    (0.25, 0.0)

    Args:
        objective: the loss of one task.
        params: meta-parameters, any tree of tensors; not modified, no gradients are accumulated in it.
        batch: a tree whose every tensor has the task axis first.
        plan: the strategy; by default a plain loop. On a CPU `loop` and `threads` give the same bits at any number of
            ranks; with `vmap`, and on an accelerator, the order of the sums depends on it.
        ranks: each with a batch of its own, in order, and the same parameters and plan.
    """
    plan = plan or Plan()
    params = pytree.tree_map(torch.Tensor.detach, params)
    n = batch_size(batch)
    if plan.strategy == "vmap":
        size = plan.chunk or n
        parts = [_at(batch, slice(i, i + size)) for i in range(0, n, size)]
        with intra_op_threads(plan.threads):
            results = [_vmap_sum(objective, params, part) for part in parts]
        auxes = [aux for _, (_, aux) in results]
        aux = pytree.tree_map(lambda *leaves: torch.cat(leaves), *auxes)
    else:
        tasks = [_at(batch, i) for i in range(n)]
        if plan.strategy == "threads":
            results = map_on_threads(plan.threads, lambda task: objective.task_gradient(params, task), tasks)
        else:
            with intra_op_threads(plan.threads):
                results = [objective.task_gradient(params, task) for task in tasks]
        auxes = [aux for _, (_, aux) in results]
        aux = pytree.tree_map(lambda *leaves: torch.stack(leaves), *auxes)
    sums = [(grad, loss) for grad, (loss, _) in results]
    if ranks.size > 1:
        (gradient, loss), n = _sums_of_all(sums, n, ranks, in_order=plan.strategy != "vmap")
        parts = ranks.gather(pytree.tree_map(torch.Tensor.cpu, aux))
        aux = pytree.tree_map(lambda own, *leaves: torch.cat(leaves).to(own), aux, *parts)
    else:
        gradient, loss = pytree.tree_map(lambda *leaves: sum_in_order(leaves), *sums)
    return MetaGradient(loss.detach() / n, pytree.tree_map(lambda leaf: leaf / n, gradient), aux)


def _sums_of_all(sums: list[Tree], n: int, ranks: Ranks, *, in_order: bool) -> tuple[Tree, int]:
    """The sum of trees over all ranks, in one message, and of the numbers of tasks that they are of."""
    leaves, shape = pytree.tree_flatten(sums[0])
    flat = [torch.cat([leaf.reshape(-1) for leaf in pytree.tree_leaves(part)]) for part in sums]
    if in_order and flat[0].device.type == "cpu":
        total = ranks.sum_in_order(flat)
    else:
        [total] = ranks.sum(sum_in_order(flat))
    parts = torch.split(total, [leaf.numel() for leaf in leaves])
    whole = [part.view_as(leaf).to(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]
    return pytree.tree_unflatten(whole, shape), int(ranks.sums({"tasks": n})["tasks"])


def _at(batch: Tree, index: int | slice) -> Tree:
    return pytree.tree_map(lambda leaf: leaf[index], batch)


def sum_in_order(parts: Iterable[Tensor]) -> Tensor:
    """The sum from left to right: the same bits whichever thread finished first."""
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def _vmap_sum(objective: Objective, params: Tree, part: Tree) -> tuple[Tree, tuple[Tensor, Tree]]:
    # A gradient for each task and then their sum, not the gradient of the sum: differentiating through vmap,
    # torch 2.13 gets the second derivative of batch normalisation wrong where its scale adapts too.
    grads, (losses, aux) = torch.func.vmap(objective.task_gradient, (None, 0))(params, part)
    return pytree.tree_map(lambda leaf: leaf.sum(0), grads), (losses.sum(), aux)


def choose(objective: Objective, params: Tree, batch: Tree, *, repeats: int = 3) -> Plan:
    """Measure every strategy on this batch and return the fastest; one that fails is not chosen.

    Args:
        objective: see `meta_gradient`.
        params: see `meta_gradient`.
        batch: a batch of the shape and on the device that training will use.
        repeats: rounds after the first two, in which those that may yet be the fastest take turns; a strategy's
            fastest call counts.
    """
    intra = torch.get_num_threads()
    plans = [Plan("loop", intra), Plan("vmap", intra)]
    on_cpu = all(leaf.device.type == "cpu" for leaf in pytree.tree_leaves(params))
    if on_cpu and cores() > 1:
        plans.append(Plan("threads", min(cores(), batch_size(batch))))
    # The first call prepares memory and kernels, so it is not counted; a plan that fails there is not tried again.
    plans = [plan for plan in plans if _seconds(objective, params, batch, plan) < float("inf")] or plans[:1]
    best = [min(_seconds(objective, params, batch, plan) for _ in range(2)) for plan in plans]
    for _ in range(repeats):
        near = [i for i, seconds in enumerate(best) if seconds <= NEAR * min(best)]
        for i in near:
            best[i] = min(best[i], _seconds(objective, params, batch, plans[i]))
    return plans[best.index(min(best))]


def _seconds(objective: Objective, params: Tree, batch: Tree, plan: Plan) -> float:
    """Of one meta-gradient; infinite if the plan fails."""
    start = time.perf_counter()
    try:
        float(meta_gradient(objective, params, batch, plan).loss)  # reading the loss waits for an asynchronous device
    except RuntimeError:  # an operator without a batching rule, or out of memory
        return float("inf")
    return time.perf_counter() - start


def maml(
    support_loss: LossFn,
    query_loss: Callable[[Params, Any], tuple[Tensor, Tree]],
    rule: Rule,
    *,
    lean: bool = False,
) -> Objective:
    """The MAML objective: the query loss after K inner steps on the support data.

    Meta-parameters are the tree `{"model": params}` or, with learned step sizes,
    `{"model": params, "rule": step_size}` where `step_size` takes the place of `rule.step_size` and
    receives its gradient. A task is a pair (support, query).

    Args:
        support_loss: `(params, support) -> scalar`, what the inner loop descends.
        query_loss: `(params, query) -> (scalar, aux)`, what the outer loop descends.
        rule: the inner loop.
        lean: memory-lean second order: keeps the K + 1 iterates and walks back through them with
            Hessian-vector products (forward over reverse), instead of holding every step's graph. With
            the strategy `threads` these products take turns, since torch's forward mode does.
    """

    def rule_of(meta: Mapping[str, Any]) -> Rule:
        return replace(rule, step_size=meta["rule"]) if "rule" in meta else rule

    def loss(meta: Mapping[str, Any], task: tuple[Any, Any]) -> tuple[Tensor, Tree]:
        support, query = task
        return query_loss(adapt(meta["model"], support_loss, support, rule_of(meta))[-1], query)

    def lean_gradient(meta: Mapping[str, Any], task: tuple[Any, Any]) -> tuple[Tree, tuple[Tensor, Tree]]:
        support, query = task
        used = rule_of(meta)
        iterates = adapt(meta["model"], support_loss, support, replace(used, order=1))
        adjoint, (value, aux) = torch.func.grad_and_value(query_loss, has_aux=True)(iterates[-1], query)
        gradient = {"model": adjoint}
        if "rule" in meta:
            gradient["rule"] = pytree.tree_map(torch.zeros_like, meta["rule"])
        for k in reversed(range(used.steps)):
            back = _pull_back(support_loss, iterates[k], support, meta, used, k, gradient["model"])
            gradient["model"] = back["model"]
            if "rule" in meta:
                gradient["rule"] = pytree.tree_map(torch.add, gradient["rule"], back["rule"])
        return gradient, (value, aux)

    return Objective(loss, lean_gradient if lean else None)


def _pull_back(
    support_loss: LossFn, params: Params, support: Any, meta: Mapping[str, Any], rule: Rule, k: int, adjoint: Params
) -> dict[str, Any]:
    """The adjoint of one inner step: d<adjoint, step(params)>/d(params, step sizes).

    With s the step sizes and g the gradient of the support loss over the moving parameters, the step
    is params - s g, so the pull-back on the parameters is adjoint - H (s adjoint), one product with
    the Hessian H, and on the step sizes minus adjoint times g.
    """
    names = rule.moving(list(params))

    def moved_along(sizes: Any, directions: Params) -> Params:
        """Step sizes times directions, by the very code that steps."""
        size = replace(rule, step_size=sizes).size(k)
        return {n: (size[n] if isinstance(size, Mapping) else size) * directions[n] for n in names}

    sizes = rule.step_size
    tangent = {name: torch.zeros_like(value) for name, value in params.items()}
    tangent.update(moved_along(sizes, adjoint))
    slope = torch.func.grad(support_loss)
    if rule.order == 2:
        with _FORWARD_MODE:
            gradient, curved = torch.func.jvp(lambda p: slope(p, support), (params,), (tangent,))[:2]
        back: dict[str, Any] = {"model": {name: adjoint[name] - curved[name] for name in params}}
    else:
        gradient = slope(params, support) if "rule" in meta else {}
        back = {"model": adjoint}
    if "rule" in meta:

        def overlap(s: Any) -> Tensor:
            products = moved_along(s, gradient)
            return -sum_in_order((products[n] * adjoint[n]).sum() for n in names)

        back["rule"] = torch.func.grad(overlap)(sizes)
    return back
