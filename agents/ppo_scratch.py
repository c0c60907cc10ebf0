"""No training before the task: a random policy that learns each new task from scratch, on MAML's budget of data.

It begins as Stable-Baselines3's PPO does, and takes the gradient steps that MAML takes at test time, on as many
episodes (the "random" baseline of Finn et al. 2017). `train` only chooses the step size, on validation tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

from metarl.ambient import plain_torch
from metarl.integrations import sb3_ppo as ppo
from metarl.learning.fine_tuning import FineTuning
from metarl.learning.gradient_adaptation import Adapting
from metarl.learning.settings import check_range
from metarl.nets.params import on
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.tasks import TaskFamily


@dataclass(frozen=True)
class Config(FineTuning, ppo.Actor):
    """Settings of the policy and of its learning."""

    iterations: int = 1
    """There is nothing to iterate: 1."""

    def __post_init__(self) -> None:
        FineTuning.__post_init__(self)
        ppo.Actor.__post_init__(self)
        check_range(self, "iterations", least=1, most=1)


DEFAULTS = {"mujoco": Config(validation_tasks=20, adaptation_episodes=20)}  # 4,000 steps a gradient step


@plain_torch()
def train(config: Config, source: TaskFamily, run: Run) -> None:
    """Draw the initial policy and choose its step size."""
    state = config.initial(source, Key(run.seed)("ppo-scratch"))
    run.restore({"policy": state})
    with run.loop(config.iterations, checkpoint_every=1, state=lambda: {"policy": state}) as loop:
        for _ in loop:
            loop.log({}, {})
    config.choose(config.policy(source), on(config.params(state), run.device), source, run)


@plain_torch()
def load(run: Run, source: TaskFamily) -> Adapting:
    """The initial policy of a run and the step size chosen for it.

    Raises:
        UserError: the run has not ended, or its checkpoint does not fit the family.
    """
    config: Config = run.config
    return config.chosen(config.policy(source), ppo.load_actor(run, config, source), source, run)
