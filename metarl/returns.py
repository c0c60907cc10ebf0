"""Discounted returns, generalised advantages and the linear feature baseline: pure functions.

Arrays are `(..., H)` with time last; `valid` marks the steps that are part of the episode. The value
after the last valid step is 0: the horizon belongs to the problem (Finn et al. 2017), so neither a
terminal state nor the time limit is bootstrapped.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def linear_features(obs: Tensor) -> Tensor:
    """`(..., H, D)` -> `(..., H, 2 D + 4)`: clipped observation, its square, time powers, 1.

    The linear feature baseline of Duan et al. 2016 (rllab): observations clipped to +-10, time in
    hundreds of steps.
    """
    obs = obs.double().clamp(-10, 10)
    t = torch.arange(obs.shape[-2], dtype=obs.dtype, device=obs.device) / 100
    powers = torch.stack([t, t**2, t**3, torch.ones_like(t)], -1)
    return torch.cat([obs, obs * obs, powers.expand(*obs.shape[:-1], 4)], -1)


def fit_linear_baseline(obs: Tensor, returns: Tensor, valid: Tensor, ridge: float = 1e-5) -> Tensor:
    """Values predicted by a ridge regression fitted to each task's own episodes.

    Args:
        obs: `(T, E, H, D)`.
        returns: `(T, E, H)`, the targets.
        valid: `(T, E, H)` bool.
        ridge: added to the diagonal of the normal equations.

    Returns:
        `(T, E, H)` float64 predictions on the same data, as published: fitted and used on one batch.
    """
    features = (linear_features(obs) * valid.unsqueeze(-1)).flatten(1, 2)
    targets = (returns.double() * valid).flatten(1, 2).unsqueeze(-1)
    normal = features.mT @ features
    normal.diagonal(dim1=-2, dim2=-1).add_(ridge)
    weights = torch.linalg.solve(normal, features.mT @ targets)
    predicted: Tensor = (features @ weights).reshape(returns.shape)
    return predicted


def explained_variance(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - Var[target - predicted] / Var[target] over valid steps: 1 is perfect, 0 no better than a constant."""
    predicted, target = predicted[valid].double(), target[valid].double()
    variance = target.var(unbiased=False)
    residual = (target - predicted).var(unbiased=False)
    return torch.where(variance > 0, 1 - residual / variance, torch.zeros_like(variance))
