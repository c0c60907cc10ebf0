"""Vanilla policy gradients for many tasks at once: the inner loop of meta-RL, and how it is judged.

The loss of task i with episodes D_i is -mean_t log pi(a_t | s_t) A_t, its advantages discounted returns
minus a linear feature baseline fitted to the task's own batch, normalised per task (Finn et al. 2017).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.errors import NonFiniteError, UserError
from metarl.learning.contract import Budget, Scores, mean_steps
from metarl.learning.policy_gradient import Batch, loss, prepare
from metarl.learning.settings import check_range
from metarl.meta import inner
from metarl.nets.params import Params
from metarl.nets.policies import Policy
from metarl.ops.finite import finite_rows
from metarl.runs.run import Run
from metarl.sampling.blocks import Blocks
from metarl.sampling.recording import Recorder, Recording
from metarl.sampling.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks

CHOICE = "fine_tuning"  # the name under which a run keeps the step size that was chosen
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

        def collect(params: Params, k: int) -> Batch:
            whole = finite_rows(params)
            if k and not whole.all():  # act with the first parameters in place of those that cannot
                params = {name: torch.where(_like(whole, value), value, start[name]) for name, value in params.items()}
            episodes = rollout(env, self.policy, params, key(k))
            means.append(torch.where(whole, episodes.returns().mean(1), torch.nan))
            steps.append(episodes.valid.sum((1, 2)))
            return prepare(episodes, self.gamma, self.gae_lambda)

        def task_losses(params: Params, batch: Batch) -> Tensor:
            return loss(self.policy, params, batch)

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


@dataclass(frozen=True)
class FineTuning:
    """How a policy that was not trained to adapt is fine-tuned on a new task: by the gradient steps that MAML takes.

    Only the step size is its own: chosen on validation tasks, among those given.
    """

    step_sizes: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    """Step sizes alpha to choose from, for actions in units of their bound (Finn et al. 2017: 0.02 to 0.5)."""
    validation_tasks: int = 40
    """Validation tasks on which the step size is chosen."""
    adaptation_steps: int = 3
    """Gradient steps of the choice: the step size with the best mean return after 1 to this many is taken."""
    adaptation_episodes: int = 40
    """Episodes a gradient step of the choice (Finn et al. 2017: 4,000 environment steps)."""
    adaptation_gamma: float = 0.99
    """Discount of the gradient steps (Finn et al. 2017)."""
    adaptation_gae_lambda: float = 1.0
    """Lambda of the advantages of the gradient steps (Finn et al. 2017: 1)."""

    def __post_init__(self) -> None:
        if not self.step_sizes:
            raise UserError("--step-sizes is empty; give at least one to choose from")
        check_range(self, "step_sizes", above=0)
        check_range(self, "validation_tasks", "adaptation_steps", "adaptation_episodes", least=1)
        check_range(self, "adaptation_gamma", "adaptation_gae_lambda", least=0, most=1)

    @plain_torch()
    def choose(self, policy: Policy, params: Params, family: TaskFamily, run: Run) -> None:
        """Try every step size on validation tasks and keep the best, and all scores, in the run's config.json."""
        tasks = family.fixed("validation", self.validation_tasks)
        budget, means = Budget(self.adaptation_steps, self.adaptation_episodes), []
        for size in self.step_sizes:
            try:
                values = self._adapting(policy, params, family, size).curve(tasks, budget, run.seed).values.mean(0)
            except NonFiniteError as error:
                if error.environment:
                    run.keep_failure(error, state={"params": params})
                    raise
                values = np.full(budget.steps + 1, np.nan)  # the steps led to a policy whose actions overflow
            means.append([value if math.isfinite(value) else None for value in map(float, values)])
        after = [-math.inf if None in mean else sum(mean[1:]) for mean in means]  # type: ignore[arg-type]  # no None
        if max(after) == -math.inf:
            raise UserError(f"fine-tuning diverged with every step size of {self.step_sizes}; give smaller ones")
        best = self.step_sizes[after.index(max(after))]
        run.remember(
            CHOICE,
            {"step_size": best, "step_sizes": self.step_sizes, "validation": means, "params": fingerprint(params)},
        )

    def chosen(self, policy: Policy, params: Params, family: TaskFamily, run: Run) -> Adapting:
        """The policy, ready to adapt with the step size that was chosen for these very parameters.

        Raises:
            UserError: none was: the training was interrupted.
        """
        choice = run.recall(CHOICE)
        if choice is None or choice["params"] != fingerprint(params):
            raise UserError(
                f"{run.folder} has no step size for its last checkpoint yet: train it to its end (--resume)"
            )
        return self._adapting(policy, params, family, choice["step_size"])

    def _adapting(self, policy: Policy, params: Params, family: TaskFamily, step_size: float) -> Adapting:
        return Adapting(policy, params, family, step_size, self.adaptation_gamma, self.adaptation_gae_lambda)


def fingerprint(params: Params) -> str:
    """A hash of parameters: the same for the same values."""
    digest = hashlib.sha256()
    for name, value in params.items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
