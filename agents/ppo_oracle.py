"""PPO that sees the task: an estimate of the best that can be done where no optimum is known in closed form.

It is trained on the task mixture with the task in its observation (`metarl.envs.wrappers.task_observed`), so it
has nothing to find out, and does not adapt. It is judged by its most likely actions, since nothing is left to explore.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.envs.wrappers.task_observed import TaskObserved
from metarl.integrations import sb3_ppo as ppo
from metarl.learning.contract import Budget
from metarl.learning.gradient_adaptation import VALIDATION, validation_metrics
from metarl.learning.non_adaptive import Controller, Fixed
from metarl.learning.settings import check_range
from metarl.nets.params import Params, device_of, on
from metarl.nets.policies import CategoricalPolicy, GaussianPolicy
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.tasks import Array, TaskFamily, Tasks


@dataclass(frozen=True)
class Config(ppo.Config):
    """Settings of the oracle."""

    validation_tasks: int = 40
    """Tasks of each validation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "validation_tasks", least=1)


DEFAULTS = {"mujoco": Config(iterations=400, step_size=3e-4)}  # about 10 minutes on one core


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one."""
    family = TaskObserved(family=source)
    policy = config.policy(family)

    def validate(params: Params) -> dict[str, float]:
        tasks = source.fixed("validation", config.validation_tasks)
        oracle = Oracle(family, policy, on(params, run.device))
        return validation_metrics(oracle.curve(tasks, Budget(0, VALIDATION.episodes), run.seed).values)

    ppo.train(config, family, run, Key(run.seed)("ppo-oracle"), validate)


@dataclass(frozen=True)
class Oracle(Fixed):
    """A trained policy that is shown the task; an `Adaptable` that does not adapt."""

    stream: ClassVar[tuple[str, ...]] = ("ppo-oracle", "evaluate")
    told: ClassVar[bool] = True
    manner: ClassVar[str] = "sees the task, does not adapt; most likely actions"

    family: TaskObserved
    policy: GaussianPolicy | CategoricalPolicy
    params: Params

    @property
    def acts_in(self) -> TaskFamily:
        """The family, whose environments do not show the task."""
        return self.family.family

    def seen(self, obs: Array, tasks: Tasks) -> Array:
        """The observations, and beside each the task."""
        return np.concatenate([obs, np.repeat(self.family.shown(tasks), len(obs), 0)], 1)

    def controller(self, tasks: Tasks, episodes: int, key: Key) -> Controller:
        """The most likely actions."""
        device = device_of(self.params)

        def act(obs: Array, t: int) -> Array:
            likeliest: Tensor = self.policy.distribution(self.params, torch.from_numpy(obs).to(device)).mode()
            actions: Array = likeliest.cpu().numpy()
            return actions

        return act


@plain_torch()
def load(run: Run, source: TaskFamily) -> Oracle:
    """The oracle of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit the family.
    """
    family = TaskObserved(family=source)
    return Oracle(family, run.config.policy(family), ppo.load_actor(run, run.config, family))
