"""A policy that adapts to new tasks by vanilla policy gradients, and how it is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.learning.contract import Budget, Scores, mean_steps
from metarl.learning.policy_gradient import Experience, loss, prepare
from metarl.meta import inner
from metarl.nets.params import Params
from metarl.nets.policies import Policy
from metarl.ops.finite import finite_rows
from metarl.sampling.blocks import Blocks
from metarl.sampling.recording import Recorder, Recording
from metarl.sampling.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks

EVALUATION_CHUNK = 100  # tasks adapted together when a curve is measured: bounds memory, not results


@dataclass(frozen=True)
class Adapted:
    """How adaptation went on T tasks."""

    iterates: list[Params]  # K+1, each stacked (T, ...)
    means: Tensor  # (T, K+1) float64, mean return of the episodes of each iterate
    steps: Tensor  # (T, K+1) int64, environment steps those episodes took


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
    threads: int = 1  # of the environments; they change no result

    @plain_torch()
    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Mean return of fresh episodes after 0..K gradient steps, `budget.episodes` a step and task.

        The episodes that judge step k are fresh, and are then the data of step k + 1, as in the
        authors' protocol. A task whose gradient steps lead to parameters that are not finite has the score NaN from
        then on.

        Raises:
            NonFiniteError: an environment, or the policy before it adapts, gave a number that is not finite.
        """
        alpha, key = self.step_size, Key(seed)("policy-gradient", "evaluate")
        starts = range(0, len(tasks), EVALUATION_CHUNK)
        parts = [self._adapt(tasks[i : i + EVALUATION_CHUNK], budget, key) for i in starts]
        return Scores(
            values=torch.cat([part.means for part in parts]).numpy(),
            gradient_steps=tuple(range(budget.steps + 1)),
            env_steps=mean_steps(torch.cat([part.steps for part in parts]).cumsum(1)[:, :-1].numpy()),
            shots=None,
            kind="return",
            protocol=f"policy-gradient steps of {alpha:g}, then {alpha / 2:g}; {budget.episodes} fresh episodes a step",
        )

    @plain_torch()
    def film(self, task: Tasks, budget: Budget, seed: int) -> list[Recording]:
        """An episode before adapting and one after `budget.steps` gradient steps, the same luck in both."""
        key = Key(seed)("policy-gradient", "film")
        adapted = self._adapt(task, budget, key("adapt"))
        recordings = []
        for k in sorted({0, budget.steps}):
            recorder, env = Recorder(), self.family.make_vec(task, 1)
            rollout(env, self.policy, adapted.iterates[k], key("episode"), watch=recorder)
            env.close()
            when = f"after {k} gradient step{'s' if k > 1 else ''}" if k else "before adaptation"
            recordings.append(recorder.cut(f"{when}: mean return {float(adapted.means[0, k]):.1f}"))
        return recordings

    def _adapt(self, tasks: Tasks, budget: Budget, key: Key) -> Adapted:
        rule = inner.Rule((self.step_size, self.step_size / 2), budget.steps, order=1, project=self.policy.project)
        env = Blocks(self.family, tasks, budget.episodes, self.threads)
        means: list[Tensor] = []
        steps: list[Tensor] = []

        def collect(params: Params, k: int) -> Experience:
            whole = finite_rows(params)
            if k and not whole.all():  # act with the first parameters in place of those that cannot
                params = {name: torch.where(_like(whole, value), value, start[name]) for name, value in params.items()}
            episodes = rollout(env, self.policy, params, key(k))
            means.append(torch.where(whole, episodes.returns().mean(1), torch.nan))
            steps.append(episodes.valid.sum((1, 2)))
            return prepare(episodes, self.gamma, self.gae_lambda)

        def task_losses(params: Params, experience: Experience) -> Tensor:
            return loss(self.policy, params, experience)

        start = {name: value.detach() for name, value in inner.stack(self.params, len(tasks)).items()}
        iterates = inner.adapt(start, task_losses, collect, rule)
        collect(iterates[-1], budget.steps)
        env.close()
        return Adapted(iterates, torch.stack(means, 1), torch.stack(steps, 1))


def _like(rows: Tensor, value: Tensor) -> Tensor:
    """`(T,)` with as many axes as `value: (T, ...)`."""
    return rows.view(-1, *[1] * (value.ndim - 1))


def validation_metrics(scores: Scores) -> dict[str, float]:
    """Mean returns by gradient step, where no task diverged, and the share of tasks that did by the last step."""
    means = {f"return/validation_{k}": float(value) for k, value in enumerate(scores.values.mean(0))}
    diverged = float((~np.isfinite(scores.values[:, -1])).mean())
    return {name: value for name, value in means.items() if math.isfinite(value)} | {"validation/diverged": diverged}
