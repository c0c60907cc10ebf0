"""The pieces of a natural-gradient step (Schulman et al. 2015): pure functions on flat vectors.

They know no policy: a caller brings a matrix-vector product and a function to evaluate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
Middle = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Solution:
    """What conjugate gradient found.

    Attributes:
        x: `(P,)`.
        curvature: x' A x, had without another product from A x = b - r.
        residual: ||r|| / ||b|| with r = b - A x.
        iterations: products taken.
    """

    x: Tensor
    curvature: float
    residual: float
    iterations: int


def conjugate_gradient(product: Product, b: Tensor, iterations: int = 10, tolerance: float = 1e-10) -> Solution:
    """Solve A x = b for a symmetric positive definite A given by its product (Hestenes and Stiefel 1952).

    Args:
        product: v -> A v.
        b: `(P,)`.
        iterations: at most this many products.
        tolerance: x moves no more once the squared residual has fallen below this.
    """
    x = torch.zeros_like(b)
    r = b.clone()
    p = b.clone()
    rr = r @ r
    products = 0
    for _ in range(iterations):
        going = rr > tolerance
        if rr.device.type == "cpu" and not going:  # an accelerator would have to be waited for: there x stays
            break
        ap = product(p)
        products += 1
        alpha = torch.where(going, rr / (p @ ap), 0)
        x = x + alpha * p
        r = r - alpha * ap
        rr_next = r @ r
        p = r + torch.where(going, rr_next / rr, 0) * p
        rr = rr_next
    norm = float(b.norm())
    return Solution(x, float(x @ (b - r)), float(r.norm()) / norm if norm else 0.0, products)


def gauss_newton_product(description: tuple[Tensor, ...], theta: Tensor, middle: Middle) -> Product:
    """The product v -> J' M J v for J the Jacobian of `description`, a graph over `theta`.

    With `description` that of the action distributions and `middle` their Fisher matrix, this is the
    Hessian of KL(pi_theta0 || pi_theta) at theta = theta0, exactly: at the minimum the terms with
    second derivatives of `description` vanish. J' u is built once as a graph that is linear in u, so
    J v is one reverse sweep over it and J' one over the original: no double backward of the KL.

    Args:
        description: tensors computed from `theta` with a differentiable graph, which is kept.
        theta: `(P,)`, requires gradients.
        middle: M, linear and symmetric, on tuples of tensors like `description`.
    """
    u = tuple(torch.zeros_like(part).requires_grad_() for part in description)
    (pulled,) = torch.autograd.grad(description, theta, u, create_graph=True)

    def product(v: Tensor) -> Tensor:
        pushed = torch.autograd.grad(pulled, u, v, retain_graph=True)
        return torch.autograd.grad(description, theta, middle(pushed), retain_graph=True)[0]

    return product


@dataclass(frozen=True)
class LineSearch:
    """What backtracking found.

    Attributes:
        theta: the accepted point, or the start if none was.
        accepted: whether a step was.
        steps: candidates evaluated.
        loss: at `theta`.
        kl: at `theta`.
    """

    theta: Tensor
    accepted: bool
    steps: int
    loss: float
    kl: float


def line_search(
    evaluate: Callable[[Tensor], tuple[float, float]],
    theta: Tensor,
    step: Tensor,
    loss: float,
    max_kl: float,
    attempts: int = 15,
    shrink: float = 0.8,
) -> LineSearch:
    """Backtrack from theta + step until the loss improves and the measured KL is within the bound.

    Args:
        evaluate: theta -> (loss, KL).
        theta: the start, `(P,)`.
        step: the full step, `(P,)`.
        loss: the loss at the start, where the KL is 0.
        max_kl: the bound.
        attempts: candidates at most.
        shrink: factor between candidates.
    """
    scale = 1.0
    for attempt in range(1, attempts + 1):
        candidate = theta + scale * step
        new_loss, kl = evaluate(candidate)
        if new_loss < loss and kl <= max_kl:
            return LineSearch(candidate, True, attempt, new_loss, kl)
        scale *= shrink
    return LineSearch(theta, False, attempts, loss, 0.0)
