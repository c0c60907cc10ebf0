"""PPO pre-trained on the task mixture, then fine-tuned on each new task: what meta-learning must beat.

The baseline of Finn et al. 2017: one policy is trained on all tasks, which it cannot tell apart, and then takes
the very gradient steps that MAML takes at test time, on as many episodes. Only the step size is its own: chosen
on validation tasks at the end of the training, from a grid around the authors' 0.02, 0.2 and 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from metarl.ambient import plain_torch
from metarl.integrations import sb3_ppo as ppo
from metarl.learning.fine_tuning import FineTuning
from metarl.learning.gradient_adaptation import Adapting
from metarl.nets.params import on
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.tasks import TaskFamily


@dataclass(frozen=True)
class Config(FineTuning, ppo.Config):
    """Settings of the pre-training and of the fine-tuning."""

    def __post_init__(self) -> None:
        FineTuning.__post_init__(self)
        ppo.Config.__post_init__(self)


DEFAULTS = {
    "mujoco": Config(iterations=400, step_size=3e-4, validation_tasks=20, adaptation_episodes=20)
}  # about 10 minutes on one core; 4,000 steps a gradient step


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one; then choose the step size."""
    policy, key = config.policy(source), Key(run.seed)("ppo-pretrained")
    params = ppo.train(
        config, source, run, key, lambda params: config.validation(policy, on(params, run.device), source, run.seed)
    )
    config.choose(policy, params, source, run)


@plain_torch()
def load(run: Run, source: TaskFamily) -> Adapting:
    """The pre-trained policy of a run, from its last checkpoint.

    Raises:
        UserError: the run has not ended, or its checkpoint does not fit the family.
    """
    config: Config = run.config
    return config.chosen(config.policy(source), ppo.load_actor(run, config, source), source, run)
