"""Vanilla policy gradients for many tasks at once: the inner loop of meta-RL, and how it is judged.

The loss of task i with episodes D_i is -mean_t log pi(a_t | s_t) A_t, its advantages discounted returns
minus a linear feature baseline fitted to the task's own batch, normalised per task (Finn et al. 2017).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from metarl import inner, returns
from metarl.episodes import Episodes
from metarl.learner import Budget, Scores
from metarl.policies import Params, Policy
from metarl.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks

EVALUATION_CHUNK = 100  # tasks adapted together when a curve is measured: bounds memory, not results


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
    values = returns.fit_linear_baseline(episodes.obs, targets, valid)
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


@dataclass(frozen=True)
class Adapting:
    """A policy that adapts to new tasks by policy gradients; an `Adaptable`.

    The protocol of Finn et al. 2017: fresh episodes at each step, the first of size alpha, later ones
    of alpha / 2.
    """

    policy: Policy
    params: Params  # one set, where every task starts
    family: TaskFamily
    step_size: float  # alpha
    gamma: float  # discount
    gae_lambda: float

    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Mean return of fresh episodes after 0..K gradient steps, `budget.episodes` a step and task.

        The episodes that judge step k are fresh, and are then the data of step k + 1, as in the
        authors' protocol.
        """
        alpha, key = self.step_size, Key(seed)("policy-gradient", "evaluate")
        starts = range(0, len(tasks), EVALUATION_CHUNK)
        parts = [self._returns(tasks[i : i + EVALUATION_CHUNK], budget, key("chunk", i)) for i in starts]
        steps = range(budget.steps + 1)
        return Scores(
            values=torch.cat(parts).numpy(),
            gradient_steps=tuple(steps),
            env_steps=tuple(k * budget.episodes * self.family.horizon for k in steps),
            shots=None,
            kind="return",
            protocol=f"policy-gradient steps of {alpha:g}, then {alpha / 2:g}; {budget.episodes} fresh episodes a step",
        )

    def _returns(self, tasks: Tasks, budget: Budget, key: Key) -> Tensor:
        """Mean returns `(T, K+1)` of some tasks."""
        rule = inner.Rule((self.step_size, self.step_size / 2), budget.steps, order=1)
        env = self.family.make_vec(tasks, budget.episodes)
        means: list[Tensor] = []

        def collect(params: Params, k: int) -> Batch:
            episodes = rollout(env, self.policy, params, key(k))
            means.append(episodes.returns().mean(1))
            return prepare(episodes, self.gamma, self.gae_lambda)

        def task_losses(params: Params, batch: Batch) -> Tensor:
            return loss(self.policy, params, batch)

        start = {name: value.detach() for name, value in inner.stack(self.params, len(tasks)).items()}
        last = inner.adapt(start, task_losses, collect, rule)[-1]
        collect(last, budget.steps)
        return torch.stack(means, 1)
