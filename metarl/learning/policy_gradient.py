"""The vanilla policy gradient: advantages by the linear feature baseline, and their loss.

The loss of MAML's inner loop (Finn et al. 2017), of its evaluation, and of fine-tuning.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Tensor

from metarl.nets.params import Params
from metarl.nets.policies import Policy
from metarl.ops import baselines, returns
from metarl.sampling.episodes import Episodes


@dataclass(frozen=True)
class Batch:
    """Episodes with what a policy gradient needs of them."""

    episodes: Episodes
    advantages: Tensor  # (T, E, H) float32, normalised per task, 0 where invalid
    weights: Tensor  # (T, E, H) float32, 1 / (valid steps of the task), 0 where invalid
    explained_variance: float  # of the baseline


def prepare(episodes: Episodes, gamma: float, gae_lambda: float) -> Batch:
    """Advantages by the linear feature baseline, normalised per task."""
    rewards, valid = episodes.rewards.double(), episodes.valid
    targets = returns.discounted_returns(rewards, valid, gamma)
    values = baselines.fit_linear_baseline(episodes.obs, targets, valid)
    advantages = returns.gae(rewards, values, valid, gamma, gae_lambda)
    advantages = returns.normalise(advantages, valid, (1, 2))
    weights = valid / valid.sum((1, 2), keepdim=True)
    explained = float(returns.explained_variance(values, targets, valid))
    return Batch(episodes, advantages.float(), weights.float(), explained)


def loss(policy: Policy, params: Params, batch: Batch) -> Tensor:
    """The policy-gradient loss of every task, `(T,)`, for stacked parameters."""
    log_prob: Tensor = policy.distribution(params, batch.episodes.obs).log_prob(batch.episodes.actions)
    return -(log_prob * batch.advantages * batch.weights).sum((1, 2))


def take(batch: Batch, index: slice | tuple[slice, ...]) -> Batch:
    """Some of the tasks, or of their episodes."""
    episodes = Episodes(**{f.name: getattr(batch.episodes, f.name)[index] for f in fields(Episodes)})
    return replace(batch, episodes=episodes, advantages=batch.advantages[index], weights=batch.weights[index])


def thin(batch: Batch, n: int) -> Batch:
    """The first n episodes of every task."""
    kept = take(batch, (slice(None), slice(n)))
    return replace(kept, weights=kept.weights / kept.weights.sum((1, 2), keepdim=True))
