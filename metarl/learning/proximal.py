"""The proximal meta-objective of ProMP, MAML-PPO and E-MAML: one policy gradient, three ways to credit its data.

For tasks i with support episodes D_i^k of inner step k, gathered by pi_phi_i^k(theta_old), and query episodes D'_i,

    J(theta) = mean_i mean_t min(rho_t A'_t, clip(rho_t, 1 - c, 1 + c) A'_t) on D'_i  +  X(theta),
    rho_t = pi_phi_i^K(theta) / pi_phi_i^K(theta_old) (a_t | s_t).

theta decides twice what is earned: by what a gradient step makes of the support data, and by which data it gathers.
`credit` says how the second is learned:

- "ratio" (Rothfuss et al. 2019, ProMP): the inner loss is the likelihood ratio times the advantage, whose gradient is
  that of the score function but whose curvature also has each action's score; X = 0.
- "returns" (Stadie et al. 2018, E-MAML): the inner loss is the score function's; with R_i, what is earned in the end,

      grad X = mean_i R_i sum_k mean_t grad log pi_phi_i^k(theta)(a_t | s_t)  on D_i^k,

  for all actions of a task alike. For several steps on the same data X is clipped as the rest of J is, with R_i
  as its advantage, and counted from its value at theta_old: there J is the same as without it.
- "none" (MAML-PPO, the ablation of Rothfuss et al. 2019): the inner loss is the score function's; X = 0. Unclipped,
  its gradient at theta_old is that of MAML-TRPO's surrogate.

Deviations of E-MAML from the public implementation (jonasrothfuss/ProMP, trpo_maml.py with `exploration`): the data of
every inner step are credited, there of the first alone; proximal steps in place of a trust region. As there, R_i is the
mean reward of task i standardised over all steps of the meta-batch, and log-likelihoods are means over steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from metarl.learning.meta_batch import MetaBatch, MetaObjective
from metarl.meta import inner
from metarl.nets.params import Params
from metarl.nets.policies import Policy
from metarl.ops.moments import Moments
from metarl.ops.surrogates import clipped_surrogate

Credit = Literal["ratio", "returns", "none"]
EPSILON = 1e-8  # added to the deviation of rewards (ProMP's code)


class Terms(NamedTuple):
    """Parts of means over all tasks."""

    surrogate: Tensor  # (), clipped, of the query
    exploration: Tensor  # (), X, what the support data are credited with; 0 unless by "returns"
    outer_kl: Tensor  # (), of the query's policies from those that gathered it
    clipped: Tensor  # (), share of the query's steps whose ratio is beyond the clip
    inner_kl: Tensor  # (K,), the same KL of each inner step's policy


class Objective(MetaObjective):
    """The proximal objective of some tasks as a function of flat shared parameters.

    Args:
        policy: the agent's.
        rule: the inner loop.
        data: of these tasks, T.
        like: names and shapes of the shared parameters.
        n_tasks: tasks of the whole meta-batch.
        credit: for the support data.
        earned: `(T,)`, R_i of `credit` "returns", as `earnings` gives it; of no use to the others.
    """

    def __init__(
        self,
        policy: Policy,
        rule: inner.Rule,
        data: MetaBatch,
        like: Params,
        n_tasks: int,
        credit: Credit = "ratio",
        earned: Tensor | float = 0.0,
    ) -> None:
        super().__init__(policy, rule, data, like, n_tasks)
        self.credit, self.earned = credit, torch.as_tensor(earned)
        with torch.no_grad():
            self.old = [self.distribution(params, k) for k, params in enumerate(data.iterates)]
            self.old_log_prob = [self.log_prob(old, k) for k, old in enumerate(self.old)]
        # Where the data of an inner step were gathered both have the same gradient.
        self.inner_loss = self.ratio_loss(self.old_log_prob) if credit == "ratio" else self.score_loss

    def terms(self, theta: Tensor, clip: float) -> Terms:
        """What there is to weigh, at parameters re-adapted differentiably on the stored support."""
        iterates = self.readapt(theta, self.inner_loss)
        *adapting, last = (self.distribution(params, k) for k, params in enumerate(iterates))
        old, log_prob = self.old_log_prob[-1], self.log_prob(last, -1)
        surrogate = self.mean(clipped_surrogate(log_prob, old, self.data.query.advantages, clip), -1)
        return Terms(
            surrogate,
            self._exploration(adapting, clip) if self.credit == "returns" else torch.zeros_like(surrogate),
            self.mean(self.old[-1].kl(last), -1),
            self.mean((torch.expm1(log_prob - old).abs() > clip).to(log_prob.dtype), -1),
            torch.stack([self.mean(self.old[k].kl(now), k) for k, now in enumerate(adapting)]),
        )

    def _exploration(self, adapting: Sequence[Any], clip: float) -> Tensor:
        """X, of the K policies that take the inner steps now."""
        parts = []
        for k, now in enumerate(adapting):
            log_prob = self.log_prob(now, k)
            earned = self.earned[:, None, None].expand_as(log_prob)
            parts.append(self.mean(clipped_surrogate(log_prob, self.old_log_prob[k], earned, clip) - earned, k))
        return torch.stack(parts).sum()

    def loss(self, terms: Terms, penalties: Tensor) -> Tensor:
        """What is minimised, `()`, KLs weighed by `penalties (K,)`."""
        return -(terms.surrogate + terms.exploration) + (penalties * terms.inner_kl).mean()

    def loss_and_gradient(self, theta: Tensor, clip: float, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """The loss `()` and its gradient `(P,)`."""
        theta = theta.detach().clone().requires_grad_()
        loss = self.loss(self.terms(theta, clip), penalties)
        (gradient,) = torch.autograd.grad(loss, theta)
        return loss.detach(), gradient

    def measure(self, theta: Tensor, clip: float) -> Tensor:
        """The terms and the old policies' entropy, one after the other, `(K + 5,)`."""
        with torch.no_grad():
            numbers = [*self.terms(theta, clip), self.mean(self.old[-1].entropy(), -1)]
            return torch.cat([part.reshape(-1) for part in numbers])


def objectives(
    policy: Policy, rule: inner.Rule, data: MetaBatch, like: Params, credit: Credit = "ratio"
) -> list[Objective]:
    """The objective of each shard of this process's tasks; every process calls it."""
    shards, n_tasks = data.shards(), data.split.n_tasks
    earned: Sequence[Tensor | float] = [0.0] * len(shards)
    if credit == "returns":
        earned = torch.split(earnings(data), data.split.size)
    return [
        Objective(policy, rule, shard, like, n_tasks, credit, each) for shard, each in zip(shards, earned, strict=True)
    ]


def earnings(data: MetaBatch) -> Tensor:
    """What the adapted policies earn on this process's tasks, `(T,)`.

    The mean reward of a task's query steps, standardised by the mean and the deviation of all tasks' query steps, those
    of other processes included.
    """
    episodes = data.query.episodes
    own = [Moments.of(r[v]) for r, v in zip(episodes.rewards.cpu(), episodes.valid.cpu(), strict=True)]
    every = Moments.merged([task for part in data.split.gather(own) for task in part])
    deviation = every.variance**0.5 + EPSILON
    standardised = [(task.mean - every.mean) / deviation for task in own]
    return torch.tensor(standardised, dtype=torch.float64).to(data.query.weights)
