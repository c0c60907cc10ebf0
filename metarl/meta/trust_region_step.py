"""One trust-region step on parameters that tasks share (Schulman et al. 2015), the tasks in shards.

With f_i the loss of task i and F_i the curvature of its KL, both parts of means over all tasks, the step needs

    g = sum_i grad f_i,     F v = sum_i F_i v  (once a conjugate-gradient iteration),     sum_i f_i and sum_i KL_i
    (once a candidate of the line search),

and all else is computed from these alone. So processes that have tasks of their own exchange P + 1 numbers for the
loss and its gradient, P for each product and 2 for each candidate, P being the number of parameters, and decide alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from metarl.meta.shards import Sums, check
from metarl.ops import trust_region


@dataclass(frozen=True)
class Local:
    """An objective around the present parameters."""

    loss: Tensor  # ()
    gradient: Tensor  # (P,)
    curvature: trust_region.Product | None = None  # of the KL, where it was asked for


class Objective(Protocol):
    """What a step needs of a shard: functions of the flat parameters `(P,)`, parts of means over all tasks."""

    def local(self, theta: Tensor, curved: bool = False) -> Local:
        """Loss and gradient at the parameters that gathered the data, and from the same pass the curvature if asked."""

    def curvature(self, theta: Tensor) -> trust_region.Product:
        """The product with the Hessian of the KL at the parameters that gathered the data."""

    def evaluate(self, theta: Tensor) -> Tensor:
        """Loss and KL from the parameters that gathered the data, `(2,)`."""


@dataclass(frozen=True)
class TrustRegion:
    """How far, and how exactly."""

    max_kl: float  # nats
    cg_iterations: int
    cg_damping: float  # added to the diagonal of the curvature


def trust_region_step(
    theta: Tensor,
    objectives: Sequence[Objective],
    curved: Sequence[Objective],
    project: Callable[[Tensor], Tensor],
    region: TrustRegion,
    sums: Sums,
) -> tuple[Tensor, dict[str, float]]:
    """The parameters after the step, and its diagnostics.

    Every candidate is put back within bounds before it is judged, so the trust region holds for the parameters that
    are taken. Those at a bound that the gradient pushes beyond it stay out of the step, or they would use up its KL
    for nothing (projected Newton, Bertsekas 1982).

    Args:
        theta: that gathered the data, `(P,)`.
        objectives: of each shard.
        curved: those to take the curvature of, the same or others of the same tasks.
        project: puts parameters back within their bounds.
        region: how far.
        sums: over all tasks of what the shards have.

    Raises:
        NonFiniteError: the loss, its gradient or the step is not finite.
    """
    same = curved is objectives  # then one differentiable pass serves both
    local = sums.each(lambda shard: shard.local(theta, same), objectives)
    losses, gradients = [part.loss for part in local], [part.gradient for part in local]
    loss, gradient = sums.checked({"the surrogate loss": losses, "the meta-gradient": gradients})
    beyond = theta - gradient
    free = ((project(beyond) == beyond) | (project(beyond) != theta)).to(theta.dtype)
    own = [part.curvature for part in local if part.curvature is not None]
    products = own if same else sums.each(lambda shard: shard.curvature(theta), curved)

    def product(v: Tensor) -> Tensor:
        return free * sums.of(lambda part: part(v), products) + region.cg_damping * v

    def evaluate(candidate: Tensor) -> tuple[float, float]:
        within = project(candidate)
        new_loss, kl = sums.of(lambda shard: shard.evaluate(within), objectives).tolist()
        return new_loss, kl

    solution = trust_region.conjugate_gradient(product, -free * gradient, region.cg_iterations)
    check(solution.x, "the natural gradient", (), sums.split.n_tasks)
    scale = math.sqrt(2 * region.max_kl / max(solution.curvature, 1e-12))
    search = trust_region.line_search(evaluate, theta, scale * solution.x, float(loss), region.max_kl)
    return project(search.theta), {
        "trust_region/kl": search.kl,
        "trust_region/improvement": float(loss) - search.loss,
        "trust_region/accepted": float(search.accepted),
        "trust_region/line_search_steps": search.steps,
        "trust_region/cg_residual": solution.residual,
        "trust_region/gradient_norm": float(gradient.norm()),
    }
