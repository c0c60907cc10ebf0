"""Vanilla policy gradients for many tasks at once: the inner loop of meta-RL.

The loss of task i with episodes D_i is -mean_t log pi(a_t | s_t) A_t, its advantages discounted returns
minus a linear feature baseline fitted to the task's own episodes, normalised per task (Finn et al. 2017).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from metarl.nets.params import Params
from metarl.nets.policies import Policy
from metarl.ops import baselines, returns
from metarl.ops.moments import Moments
from metarl.ops.surrogates import reinforce
from metarl.sampling.episodes import Episodes


@dataclass(frozen=True)
class Experience:
    """Episodes with what a policy gradient needs of them."""

    episodes: Episodes
    advantages: Tensor  # (T, E, H) float32, normalised per task, 0 where invalid
    weights: Tensor  # (T, E, H) float32, 1 / (valid steps of the task), 0 where invalid
    fit: tuple[Moments, Moments]  # of the baseline: what it leaves, and what it is fitted to

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values (T, E, H)` over the valid steps of every task, `(T,)`."""
        return (values * self.weights).sum((1, 2))

    def to(self, device: torch.device | str) -> Experience:
        """The same on another device."""
        return replace(
            self,
            episodes=self.episodes.to(device),
            advantages=self.advantages.to(device),
            weights=self.weights.to(device),
        )

    def select(self, tasks: slice) -> Experience:
        """Some of the tasks."""
        episodes = Episodes(**{f.name: getattr(self.episodes, f.name)[tasks] for f in fields(Episodes)})
        return replace(self, episodes=episodes, advantages=self.advantages[tasks], weights=self.weights[tasks])

    def thinned(self, fraction: float) -> Experience:
        """Steps of every episode at even distances, the first among them."""
        horizon = self.weights.shape[2]
        n = max(1, round(fraction * horizon))
        steps = torch.arange(n, device=self.weights.device) * horizon // n
        of_steps = {f.name for f in fields(Episodes)} - {"unstable"}
        episodes = replace(self.episodes, **{name: getattr(self.episodes, name)[:, :, steps] for name in of_steps})
        weights = self.weights[:, :, steps]
        weights = weights / weights.sum((1, 2), keepdim=True)
        return replace(self, episodes=episodes, advantages=self.advantages[:, :, steps], weights=weights)


def prepare(episodes: Episodes, gamma: float, gae_lambda: float) -> Experience:
    """Advantages by the linear feature baseline, normalised per task; in double precision, so on the CPU."""
    rewards, valid = episodes.rewards.double(), episodes.valid
    targets = returns.discounted_returns(rewards, valid, gamma)
    values = baselines.fit_linear_baseline(episodes.obs, targets, valid)
    advantages = returns.gae(rewards, values, valid, gamma, gae_lambda)
    advantages = returns.normalise(advantages, valid, (1, 2))
    weights = valid / valid.sum((1, 2), keepdim=True)
    fit = returns.residuals(values, targets, valid)
    return Experience(episodes, advantages.float(), weights.float(), fit)


def loss(policy: Policy, params: Params, experience: Experience) -> Tensor:
    """The policy-gradient loss of every task, `(T,)`, for stacked parameters."""
    log_prob = policy.distribution(params, experience.episodes.obs).log_prob(experience.episodes.actions)
    return -experience.mean(reinforce(log_prob, experience.advantages))
