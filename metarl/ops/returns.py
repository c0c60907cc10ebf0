"""Discounted returns, generalised advantages and the linear feature baseline: pure functions.

Arrays are `(..., H)` with time last; `valid` marks the steps that are part of the episode. The value
after the last valid step is 0: the horizon belongs to the problem (Finn et al. 2017), so neither a
terminal state nor the time limit is bootstrapped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.ops.moments import Moments


def discount(values_t: Tensor, factor: float) -> Tensor:
    """sum_{l >= 0} factor^l values_{t+l}, `(..., H)` -> `(..., H)`."""
    out = torch.empty_like(values_t)
    running = torch.zeros_like(values_t[..., 0])
    for t in reversed(range(values_t.shape[-1])):
        running = values_t[..., t] + factor * running
        out[..., t] = running
    return out


def discounted_returns(r_t: Tensor, valid: Tensor, gamma: float) -> Tensor:
    """The return from every step, `(..., H)`; 0 at invalid steps."""
    return discount(r_t * valid, gamma)


def gae(r_t: Tensor, v_t: Tensor, valid: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16), `(..., H)`; 0 at invalid steps.

    delta_t = r_t + gamma v_{t+1} - v_t with v = 0 after the last valid step;
    A_t = sum_l (gamma lam)^l delta_{t+l}. With lam = 1 this is the return minus v_t.
    """
    v_t = v_t * valid
    v_tp1 = torch.cat([v_t[..., 1:], torch.zeros_like(v_t[..., :1])], -1)
    delta_t = (r_t + gamma * v_tp1 - v_t) * valid
    return discount(delta_t, gamma * lam) * valid


def normalise(x: Tensor, valid: Tensor, dims: tuple[int, ...], eps: float = 1e-8) -> Tensor:
    """Zero mean and unit standard deviation over the valid entries along `dims`; 0 elsewhere."""
    weight = valid.to(x.dtype)
    count = weight.sum(dims, keepdim=True).clamp(min=1)
    mean = (x * weight).sum(dims, keepdim=True) / count
    centred = (x - mean) * weight
    variance = (centred * centred).sum(dims, keepdim=True) / count
    return centred / (variance.sqrt() + eps)


def residuals(predicted: Tensor, target: Tensor, valid: Tensor) -> tuple[Moments, Moments]:
    """Moments of target - predicted, and of target, over valid steps."""
    predicted, target = predicted[valid].double(), target[valid].double()
    return Moments.of(target - predicted), Moments.of(target)


def explained_variance(residual: Moments, target: Moments) -> float:
    """1 - Var[residual] / Var[target]: 1 is perfect, 0 no better than a constant."""
    return 1 - residual.variance / target.variance if target.variance > 0 else 0.0
