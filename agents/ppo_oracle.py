"""PPO that sees the task: an estimate of the best that can be done where no optimum is known in closed form.

It is trained on the task mixture with the task in its observation (`metarl.envs.informed`), so it has nothing
to find out, and does not adapt. It is judged by its most likely actions, since nothing is left to explore.

Training repeats on one machine, but is exempt from the bit-exact resume of our own learners: what it does
within an iteration is up to Stable-Baselines3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl import ppo
from metarl.envs.informed import Informed
from metarl.learner import Budget, Scores
from metarl.policies import CategoricalPolicy, GaussianPolicy, Params
from metarl.rollout import intra_op_threads, run_episodes
from metarl.runs import Run
from metarl.seeding import Key
from metarl.tasks import Array, TaskFamily, Tasks

EVALUATION_STEPS = 2_000_000  # environment steps held in memory at once


@dataclass(frozen=True)
class Config(ppo.Config):
    """Settings of the oracle."""


DEFAULTS = {"mujoco": Config(iterations=400, step_size=3e-4)}  # about 10 minutes on one core


def train(config: Config, source: TaskFamily, run: Run) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one."""
    ppo.train(config, Informed(family=source), run, Key(run.seed)("ppo-oracle"))


@dataclass(frozen=True)
class Oracle:
    """A trained policy that is shown the task; an `Adaptable` that does not adapt."""

    policy: GaussianPolicy | CategoricalPolicy
    params: Params
    family: Informed

    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Mean return over `budget.episodes` fresh episodes a task, K + 1 times; nothing is consumed."""
        key = Key(seed)("ppo-oracle", "evaluate")
        columns = [self._returns(tasks, budget.episodes, key(k)) for k in range(budget.steps + 1)]
        return Scores(
            values=np.stack(columns, axis=1),
            gradient_steps=None,
            env_steps=None,
            shots=None,
            kind="return",
            protocol=f"sees the task, does not adapt; most likely actions, {budget.episodes} fresh episodes a score",
        )

    def _returns(self, tasks: Tasks, episodes: int, key: Key) -> Array:
        """Mean return of every task, `(T,)`, in batches that fit into memory."""

        def act(obs: Tensor, t: int) -> Tensor:
            return self.policy.distribution(self.params, obs).mode()

        size = max(1, EVALUATION_STEPS // (episodes * self.family.horizon))
        parts = []
        for start in range(0, len(tasks), size):
            env = self.family.make_vec(tasks[start : start + size], episodes)
            with torch.no_grad(), intra_op_threads(1):
                parts.append(run_episodes(env, act, key("from", start)).returns().mean(1).numpy())
            env.close()
        return np.concatenate(parts)


def load(run: Run, source: TaskFamily) -> Oracle:
    """The oracle of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the family.
    """
    family = Informed(family=source)
    return Oracle(run.config.policy(family), ppo.load_actor(run, run.config, family), family)
