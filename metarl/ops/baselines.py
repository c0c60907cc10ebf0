"""The linear feature baseline: a pure function."""

from __future__ import annotations

import torch
from torch import Tensor


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
