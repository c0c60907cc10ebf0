"""Surrogates of the expected return whose gradients are policy gradients: pure functions, a value at every step.

`log_prob` are log-probabilities of the actions that were taken, under the parameters to differentiate;
`old_log_prob` those under the policy that took them, a constant; `advantages` a constant too. All have one
shape, `(...)`, and so has the result, which is to be maximised. Means over steps, tasks and episodes, and what
counts as a step, are the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reinforce(log_prob: Tensor, advantages: Tensor) -> Tensor:
    """The score times A_t, log pi_t A_t (Williams 1992): its gradient is the policy gradient, its value nothing."""
    return log_prob * advantages


def importance_ratio(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor) -> Tensor:
    """rho_t A_t with rho_t = pi_t / pi_old_t (Schulman et al. 2015, eq. 14).

    Where the policies are equal its gradient is that of `reinforce`, but its Hessian is A_t (H + g g'), with g and H
    those of log pi_t, where `reinforce` has A_t H alone. It is there the low-variance-curvature surrogate of Rothfuss
    et al. 2019 (eq. 12), pi_t over itself as a constant: whoever differentiates through a step along its gradient
    also learns how the data of the step depend on the parameters; of the unbiased estimate (DiCE) it leaves out the
    terms between different steps, which are most of its variance.
    """
    return torch.exp(log_prob - old_log_prob) * advantages


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """min(rho_t A_t, clip(rho_t, 1 - clip, 1 + clip) A_t), PPO's objective (Schulman et al. 2017, eq. 7)."""
    ratio = torch.exp(log_prob - old_log_prob)
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def adapted_penalty(penalty: float, kl: float, target: float) -> float:
    """The weight of a KL divergence in the next iteration (Schulman et al. 2017, section 4).

    Halved where the KL was below 2/3 of its target, doubled where it was above 3/2 of it.
    """
    if kl < target / 1.5:
        return penalty / 2
    return penalty * 2 if kl > target * 1.5 else penalty
