"""The data of one meta-iteration: support data of every inner step, and query data from its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from metarl.errors import NonFiniteError
from metarl.learning import policy_gradient
from metarl.learning.policy_gradient import Experience
from metarl.meta import inner
from metarl.meta.shards import SHARD, slices
from metarl.nets.params import Params, device_of, unflatten
from metarl.nets.policies import Policy
from metarl.ops import finite
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

    def __len__(self) -> int:
        return len(self.query.weights)

    @property
    def experience(self) -> list[Experience]:
        """All of it, in the order in which it was gathered."""
        return [*self.support, self.query]

    def shards(self) -> list[MetaBatch]:
        """The tasks a few at a time; all together on an accelerator, which has its own ways to divide work."""
        size = SHARD if self.query.weights.device.type == "cpu" else len(self)
        return [self._select(tasks) for tasks in slices(len(self), size)]

    def _select(self, tasks: slice) -> MetaBatch:
        iterates = [{name: value[tasks] for name, value in params.items()} for params in self.iterates]
        return MetaBatch([part.select(tasks) for part in self.support], iterates, self.query.select(tasks))

    def thinned(self, fraction: float) -> MetaBatch:
        """The same tasks with `fraction` of their episodes."""
        n = max(1, round(fraction * self.query.weights.shape[1]))
        return MetaBatch([part.thinned(n) for part in self.support], self.iterates, self.query.thinned(n))

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
        """The error with its tasks and the episodes they were learned from."""
        return _with_episodes(error, self.experience, tasks)

    def metrics(self) -> dict[str, float]:
        """What there is to say of the data alone."""
        return {
            "baseline/explained_variance_support": self.support[0].explained_variance,
            "baseline/explained_variance_query": self.query.explained_variance,
            "return/before": float(self.support[0].episodes.returns().mean()),
            "return/after": float(self.query.episodes.returns().mean()),
            "episodes/steps": sum(int(part.episodes.valid.sum()) for part in self.experience),
            "episodes/unstable": sum(int(part.episodes.unstable.sum()) for part in self.experience),
        }


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
            raise _with_episodes(error, support, env.tasks) from None

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


def _with_episodes(error: NonFiniteError, gathered: Sequence[Experience], tasks: Tasks) -> NonFiniteError:
    """The error with its tasks and the episodes they were learned from, of each inner step in turn."""
    for k, experience in enumerate(gathered):
        for part in ("obs", "actions", "rewards", "valid"):
            error.data[f"{part} {k}"] = getattr(experience.episodes, part)[error.tasks or slice(None)]
    return finite.blame(error, tasks, error.tasks)
