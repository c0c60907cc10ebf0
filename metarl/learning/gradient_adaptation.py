"""A policy that adapts to new tasks by vanilla policy gradients, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.errors import NonFiniteError
from metarl.learning.acting import Acts, check_counts
from metarl.learning.adapted_policy import AdaptedPolicy
from metarl.learning.contract import Budget, Scores, mean_steps
from metarl.learning.places import Place, Where, episodes_in, place
from metarl.learning.policy_gradient import Experience, loss, prepare
from metarl.meta import inner
from metarl.nets.params import Params, device_of
from metarl.nets.policies import Policy
from metarl.ops.finite import finite_rows
from metarl.parallel import intra_op_threads
from metarl.sampling.blocks import Blocks
from metarl.sampling.episodes import Episodes
from metarl.sampling.recording import Recorder, Recording
from metarl.sampling.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks

STREAM = ("policy-gradient", "evaluate")  # of adapting, whoever then acts or is judged
VALIDATION = Budget(steps=1, episodes=20)  # of a policy that is being trained
EVALUATION_CHUNK = 100  # tasks adapted together when a curve is measured: bounds memory, not results


@dataclass(frozen=True)
class Adapted:
    """How adaptation went on T tasks."""

    iterates: list[Params]  # K+1, each stacked (T, ...)
    means: Tensor  # (T, K+1) float64, mean return of the episodes of each iterate; (T, K) where the last is not judged
    steps: Tensor  # as many, int64, environment steps those episodes took


@dataclass(frozen=True)
class Adapting(Acts):
    """A policy that adapts to new tasks by policy gradients; an `Adaptable` that acts.

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
        alpha, key = self.step_size, Key(seed)(*STREAM)
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

    @plain_torch()
    def adapt(self, where: Where, steps: int | None = None, *, episodes: int = 40, seed: int = 0) -> AdaptedPolicy:
        """The policy after gradient steps on fresh episodes, 3 by default; see `Acts.adapt`.

        On a frozen task these are the episodes and the steps of `curve`.
        """
        steps = Budget().steps if steps is None else steps
        check_counts(steps, episodes)
        at, key = place(self.family, where), Key(seed)(*STREAM)
        if at.env is None and at.tasks is not None:
            adapted = self._adapt(at.tasks, Budget(steps, episodes), key, judged=False)
        else:
            adapted = self._learn(
                1, lambda params, k: self._episodes(at, params, episodes, key(k)), steps, judged=False
            )
        if not finite_rows(adapted.iterates[-1]).all():
            raise NonFiniteError(f"adapting to a task of {self.family.name} by {steps} gradient steps diverged")
        cost: dict[str, Any] = {"steps": steps}
        if steps:
            cost |= {"env_steps": int(adapted.steps.sum()), "returns": tuple(adapted.means[0].tolist())}
        return AdaptedPolicy(at, self.policy, adapted.iterates[-1], key("act"), **cost)

    def unadapted(self) -> AdaptedPolicy:
        """The policy from which every task starts."""
        params = {name: value.detach() for name, value in inner.stack(self.params, 1).items()}
        return AdaptedPolicy(Place(self.family, None, None), self.policy, params, Key(0)(*STREAM, "act"))

    def _episodes(self, where: Place, params: Params, count: int, key: Key) -> Episodes:
        """Episodes in an environment, one after the other, with parameters `(1, ...)`."""
        device = next(iter(params.values())).device
        noise = torch.from_numpy(self.policy.noise(key("action").numpy(), (count, self.family.horizon))).to(device)

        def act(obs: Tensor, episode: int, t: int) -> Tensor:
            actions: Tensor = self.policy.distribution(params, obs.to(device)).sample(noise[episode, t][None, None])
            return actions.cpu()

        with torch.no_grad(), intra_op_threads(1):
            return episodes_in(where, act, count, key("start"))

    def _adapt(self, tasks: Tasks, budget: Budget, key: Key, *, judged: bool = True) -> Adapted:
        env = Blocks(self.family, tasks, budget.episodes, self.threads)

        def play(params: Params, k: int) -> Episodes:
            return rollout(env, self.policy, params, key(k))

        adapted = self._learn(len(tasks), play, budget.steps, judged=judged)
        env.close()
        return adapted

    def _learn(self, n_tasks: int, play: Callable[[Params, int], Episodes], steps: int, *, judged: bool) -> Adapted:
        """Gradient steps on what `play` gives for stacked parameters and step k; the last ones may be `judged` too."""
        rule = inner.Rule((self.step_size, self.step_size / 2), steps, order=1, project=self.policy.project)
        means: list[Tensor] = []
        steps_taken: list[Tensor] = []

        def collect(params: Params, k: int) -> Experience:
            whole = finite_rows(params)
            if k and not whole.all():  # act with the first parameters in place of those that cannot
                params = {name: torch.where(_like(whole, value), value, start[name]) for name, value in params.items()}
            episodes = play(params, k)
            means.append(torch.where(whole.cpu(), episodes.returns().mean(1), torch.nan))
            steps_taken.append(episodes.valid.sum((1, 2)))
            return prepare(episodes, self.gamma, self.gae_lambda).to(device_of(params))

        def task_losses(params: Params, experience: Experience) -> Tensor:
            return loss(self.policy, params, experience)

        start = {name: value.detach() for name, value in inner.stack(self.params, n_tasks).items()}
        iterates = inner.adapt(start, task_losses, collect, rule)
        if judged:
            collect(iterates[-1], steps)
        columns = [torch.stack(column, 1) if column else torch.zeros(n_tasks, 0) for column in (means, steps_taken)]
        return Adapted(iterates, *columns)


def _like(rows: Tensor, value: Tensor) -> Tensor:
    """`(T,)` with as many axes as `value: (T, ...)`."""
    return rows.view(-1, *[1] * (value.ndim - 1))


def validation_metrics(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean returns by gradient step, where no task diverged, and the share of tasks that did by the last step.

    Args:
        values: `Scores.values` `(T, K+1)`.
    """
    means = {f"return/validation_{k}": float(value) for k, value in enumerate(values.mean(0))}
    diverged = float((~np.isfinite(values[:, -1])).mean())
    return {name: value for name, value in means.items() if math.isfinite(value)} | {"validation/diverged": diverged}
