"""The data of one meta-iteration: support data of every inner step, and query data from its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metarl.errors import NonFiniteError
from metarl.learning import policy_gradient
from metarl.learning.policy_gradient import Experience
from metarl.meta import inner
from metarl.meta.shards import Split, slices
from metarl.nets.params import Params, device_of, unflatten
from metarl.nets.policies import Policy
from metarl.ops import finite, returns
from metarl.ops.moments import Moments
from metarl.ops.surrogates import importance_ratio
from metarl.sampling.blocks import Blocks
from metarl.sampling.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import Tasks, TaskVectorEnv


@dataclass(frozen=True)
class MetaBatch:
    """What adapting to T tasks by K inner steps leaves behind."""

    support: list[Experience]  # K, the data of each inner step
    iterates: list[Params]  # K + 1, the policies that gathered them and the query, stacked (T, ...), detached
    query: Experience  # gathered with the last iterate
    shared: Split | None = None  # with other processes, which have the rest of the tasks; None: these are all

    def __len__(self) -> int:
        return len(self.query.weights)

    @property
    def split(self) -> Split:
        """Which of all tasks these are."""
        return self.shared or Split(len(self), device=self.query.weights.device)

    @property
    def experience(self) -> list[Experience]:
        """All of it, in the order in which it was gathered."""
        return [*self.support, self.query]

    def shards(self) -> list[MetaBatch]:
        """The tasks a few at a time; all together on an accelerator, which has its own ways to divide work."""
        return [self._select(tasks) for tasks in slices(len(self), self.split.size)]

    def _select(self, tasks: slice) -> MetaBatch:
        iterates = [{name: value[tasks] for name, value in params.items()} for params in self.iterates]
        support = [part.select(tasks) for part in self.support]
        return replace(self, support=support, iterates=iterates, query=self.query.select(tasks))

    def thinned(self, fraction: float) -> MetaBatch:
        """The same episodes with `fraction` of their steps, at even distances: neighbours are the most alike."""
        support = [part.thinned(fraction) for part in self.support]
        return replace(self, support=support, query=self.query.thinned(fraction))

    def readapt(self, params: Params, loss: Callable[[Params, int], Tensor], rule: inner.Rule) -> list[Params]:
        """The K + 1 iterates again, from other shared parameters, as differentiable functions of these.

        Args:
            params: one set.
            loss: `(stacked parameters, k)` to the loss of every task `(T,)` on the support data of step k.
            rule: the inner loop.
        """
        stacked = inner.stack(params, len(self))
        return inner.adapt(stacked, loss, lambda _, k: k, rule)

    def blame(self, error: NonFiniteError, tasks: Tasks) -> NonFiniteError:
        """The error with its tasks and the episodes they were learned from, whichever process has them.

        Args:
            error: which tasks it names by their places among all; where it names none, the data are of this share.
            tasks: all of them, other processes' too.
        """
        own = range(self.split.n_tasks)[self.split.own]
        rows = [task - own.start for task in error.tasks if task in own] if error.tasks else slice(None)
        data = _episodes(self.experience, rows)
        parts = self.split.gather(data) if error.tasks else [data]
        error.data |= {name: torch.cat([part[name] for part in parts]) for name in data}
        error.everywhere = self.split.ranks.size > 1  # sums are everybody's
        return finite.blame(error, tasks, error.tasks)

    def metrics(self) -> dict[str, float]:
        """What there is to say of the data alone, other processes' included."""
        parts = self.split.gather([_Summary.of(each) for each in self.experience])
        each = [_Summary.merged(some) for some in zip(*parts, strict=True)]
        support, query = each[0], each[-1]
        return {
            "baseline/explained_variance_support": returns.explained_variance(support.residual, support.target),
            "baseline/explained_variance_query": returns.explained_variance(query.residual, query.target),
            "return/before": float(support.returns.mean()),
            "return/after": float(query.returns.mean()),
            "episodes/steps": sum(one.steps for one in each),
            "episodes/unstable": sum(one.unstable for one in each),
        }


@dataclass(frozen=True)
class _Summary:
    """What there is to say of episodes, of which parts can be put together."""

    residual: Moments  # of the baseline
    target: Moments  # that it is fitted to
    returns: Tensor  # (T, E) float64
    steps: int
    unstable: int

    @staticmethod
    def of(experience: Experience) -> _Summary:
        episodes = experience.episodes
        counts = int(episodes.valid.sum()), int(episodes.unstable.sum())
        return _Summary(*experience.fit, episodes.returns(), *counts)

    @staticmethod
    def merged(parts: Sequence[_Summary]) -> _Summary:
        return _Summary(
            Moments.merged([part.residual for part in parts]),
            Moments.merged([part.target for part in parts]),
            torch.cat([part.returns for part in parts]),
            sum(part.steps for part in parts),
            sum(part.unstable for part in parts),
        )


class MetaObjective:
    """What an objective of some tasks, a function of flat shared parameters, is computed with.

    Args:
        policy: the agent's.
        rule: the inner loop.
        data: of these tasks.
        like: names and shapes of the shared parameters.
        n_tasks: tasks of the whole meta-batch, over which means are taken; so parts of it add up.
    """

    def __init__(self, policy: Policy, rule: inner.Rule, data: MetaBatch, like: Params, n_tasks: int) -> None:
        self.policy, self.rule, self.data, self.like, self.n_tasks = policy, rule, data, like, n_tasks

    def readapt(self, theta: Tensor, loss: Callable[[Params, int], Tensor]) -> list[Params]:
        """The K + 1 iterates from shared parameters `theta (P,)`; see `MetaBatch.readapt`."""
        return self.data.readapt(unflatten(theta, self.like), loss, self.rule)

    def distribution(self, params: Params, k: int) -> Any:
        """The policies' action distributions at the observations of step k, of the query if K or -1."""
        return self.policy.distribution(params, self.data.experience[k].episodes.obs)

    def log_prob(self, distribution: Any, k: int) -> Tensor:
        """Log-probabilities `(T, E, H)` of the actions of step k."""
        log_prob: Tensor = distribution.log_prob(self.data.experience[k].episodes.actions)
        return log_prob

    def support_log_prob(self) -> list[Tensor]:
        """Log-probabilities `(T, E, H)` of each support's actions by the policies that took them."""
        with torch.no_grad():
            return [
                self.log_prob(self.distribution(self.data.iterates[k], k), k) for k in range(len(self.data.support))
            ]

    def score_loss(self, params: Params, k: int) -> Tensor:
        """An inner loss for `readapt`: the policy gradient's, of every task on the support of step k, `(T,)`."""
        return policy_gradient.loss(self.policy, params, self.data.support[k])

    def ratio_loss(self, old: Sequence[Tensor]) -> Callable[[Params, int], Tensor]:
        """An inner loss for `readapt`: minus the mean likelihood ratio times the advantage, of every task `(T,)`.

        At the policies that gathered the support its gradient is that of `score_loss`, but a gradient through the step
        is another (`metarl.ops.surrogates.importance_ratio`).

        Args:
            old: as `support_log_prob` gives them.
        """
        support = self.data.support

        def loss(params: Params, k: int) -> Tensor:
            log_prob = self.log_prob(self.distribution(params, k), k)
            return -support[k].mean(importance_ratio(log_prob, old[k], support[k].advantages))

        return loss

    def adaptation_kl(self) -> Tensor:
        """The part of these tasks in the mean KL of the adapted policies from the initial one on its episodes, `()`.

        How far adapting goes, in nats: well above 1 it leaves where the gradient says anything, far below it does
        nothing. It grows as the square of the inner step size, and as the fourth power of 1 / deviation.
        """
        with torch.no_grad():
            first, last = (self.distribution(self.data.iterates[i], 0) for i in (0, -1))
            return self.mean(first.kl(last), 0)

    def mean(self, values: Tensor, k: int) -> Tensor:
        """The part of these tasks in the mean of `values (T, E, H)` over steps, then over all tasks, `()`."""
        return self.data.experience[k].mean(values).sum() / self.n_tasks


def adapt_to_tasks(
    env: TaskVectorEnv | Blocks,
    policy: Policy,
    params: Params,
    rule: inner.Rule,
    key: Key,
    gamma: float,
    gae_lambda: float,
) -> MetaBatch:
    """Act, step, act again: the support data of every inner step, and query data from the result.

    The steps are along the vanilla policy gradient, which every surrogate has where it starts.

    Args:
        env: T tasks.
        policy: called with stacked parameters.
        params: one set, where every task starts; the data of the steps lie on its device.
        rule: the inner loop.
        key: names the streams.
        gamma: discount.
        gae_lambda: of the advantages.

    Raises:
        NonFiniteError: an inner step led to parameters that are not finite; their tasks are named.
    """
    support: list[Experience] = []
    device = device_of(params)

    def check(current: Params) -> None:
        try:
            finite.check_rows(current, f"a parameter after inner step {len(support)}", env.tasks)
        except NonFiniteError as error:
            error.data |= _episodes(support, error.tasks or slice(None))
            raise

    def collect(current: Params, k: int) -> Experience:
        check(current)
        episodes = rollout(env, policy, current, key("support", k))
        support.append(policy_gradient.prepare(episodes, gamma, gae_lambda).to(device))
        return support[-1]

    def loss(values: Params, experience: Experience) -> Tensor:
        return policy_gradient.loss(policy, values, experience)

    first_order = replace(rule, order=1)  # nothing is differentiated here
    iterates = inner.adapt(inner.stack(params, len(env.tasks)), loss, collect, first_order)
    check(iterates[-1])
    episodes = rollout(env, policy, iterates[-1], key("query"))
    return MetaBatch(support, iterates, policy_gradient.prepare(episodes, gamma, gae_lambda).to(device))


def _episodes(gathered: Sequence[Experience], rows: list[int] | slice) -> dict[str, Tensor]:
    """The episodes of some tasks, of each inner step in turn."""
    return {
        f"{part} {k}": getattr(experience.episodes, part)[rows]
        for k, experience in enumerate(gathered)
        for part in ("obs", "actions", "rewards", "valid")
    }
