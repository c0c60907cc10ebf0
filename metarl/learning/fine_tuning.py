"""A policy that was not trained to adapt, fine-tuned on new tasks by the gradient steps that MAML takes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from metarl.ambient import plain_torch
from metarl.errors import NonFiniteError, UserError
from metarl.learning.contract import Budget
from metarl.learning.gradient_adaptation import VALIDATION, Adapting, validation_metrics
from metarl.learning.settings import check_range
from metarl.nets.params import Params
from metarl.nets.policies import Policy
from metarl.runs.run import Run
from metarl.tasks import TaskFamily

CHOICE = "fine_tuning"  # the name under which a run keeps the step size that was chosen


@dataclass(frozen=True)
class FineTuning:
    """How a policy that was not trained to adapt is fine-tuned on a new task: by the gradient steps that MAML takes.

    Only the step size is its own: chosen on validation tasks, among those given.
    """

    step_sizes: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    """Step sizes alpha to choose from, for actions in units of their bound (Finn et al. 2017: 0.02 to 0.5)."""
    validation_tasks: int = 40
    """Validation tasks on which the step size is chosen, and of each validation on the way."""
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
    def validation(self, policy: Policy, params: Params, family: TaskFamily, seed: int) -> dict[str, float]:
        """Mean returns on validation tasks before a gradient step and after one of the size that does best there.

        A size whose steps diverge is out; where all are, the numbers are those of the first.
        """
        tasks = family.fixed("validation", self.validation_tasks)
        every = [
            validation_metrics(self._adapting(policy, params, family, size).curve(tasks, VALIDATION, seed).values)
            for size in self.step_sizes
        ]
        return max(every, key=lambda metrics: metrics.get(f"return/validation_{VALIDATION.steps}", -math.inf))

    @plain_torch()
    def choose(self, policy: Policy, params: Params, family: TaskFamily, run: Run) -> None:
        """Try every step size on validation tasks and keep the best, and all scores, in the run's config.json."""
        tasks = family.fixed("validation", self.validation_tasks)
        budget, means, after = Budget(self.adaptation_steps, self.adaptation_episodes), [], []
        for size in self.step_sizes:
            try:
                values = self._adapting(policy, params, family, size).curve(tasks, budget, run.seed).values.mean(0)
            except NonFiniteError as error:
                if error.environment:
                    run.keep_failure(error, state={"params": params})
                    raise
                values = np.full(budget.steps + 1, np.nan)  # the steps led to a policy whose actions overflow
            means.append([value if math.isfinite(value) else None for value in map(float, values)])
            after.append(sum(map(float, values[1:])) if np.isfinite(values).all() else -math.inf)
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
        choice = run.recall(CHOICE, {"step_size": float, "params": str})
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
