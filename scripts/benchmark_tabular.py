"""Stepping 800 bandits and 800 tabular MDPs, against Gymnasium's SyncVectorEnv over the leanest plain environment.

    python scripts/benchmark_tabular.py --json results/benchmarks/tabular.json

Both sides step the same number of environments for whole episodes, resets included. The plain environments
do nothing but what a step needs: no checks, no info, a Discrete observation.

To add a row: write a function that returns a `Comparison` and put it into `ROWS`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from benchmark import Comparison, Work, main
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from metarl.envs.bandit import BernoulliBandit
from metarl.envs.tabular_mdp import TabularMDP
from metarl.tasks import Task, TaskFamily

TASKS, REPLICAS = 40, 20


class PlainBandit(gymnasium.Env[int, int]):
    """A Bernoulli bandit with nothing to spare."""

    def __init__(self, family: BernoulliBandit, task: Task, seed: int) -> None:
        self.observation_space, self.action_space = Discrete(1), Discrete(family.arms)
        self.mean, self.pulls = task["mean"].tolist(), family.pulls
        self.random = np.random.default_rng(seed).random
        self.left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Begin an episode."""
        self.left = self.pulls
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Pull an arm."""
        self.left -= 1
        return 0, 1.0 if self.random() < self.mean[action] else 0.0, False, self.left == 0, {}


class PlainMDP(gymnasium.Env[int, int]):
    """A tabular MDP with nothing to spare."""

    def __init__(self, family: TabularMDP, task: Task, seed: int) -> None:
        self.observation_space, self.action_space = Discrete(family.states), Discrete(family.actions)
        self.cumulative, self.mean = task["transition"].cumsum(-1)[..., :-1].tolist(), task["reward"].tolist()
        rng = np.random.default_rng(seed)
        self.random, self.normal = rng.random, rng.standard_normal
        self.steps, self.left, self.state = family.steps, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Begin an episode in state 0."""
        self.left, self.state = self.steps, 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Move and be paid."""
        self.left -= 1
        reward = self.mean[self.state][action] + self.normal()
        self.state = bisect_right(self.cumulative[self.state][action], self.random())
        return self.state, reward, False, self.left == 0, {}


def episode(env: VectorEnv[Any, Any, Any], family: TaskFamily) -> Work:
    """Work that is one episode in every environment, with given actions; counted in environment steps."""
    space = family.action_space
    assert isinstance(space, Discrete)
    actions = np.random.default_rng(0).integers(0, space.n, (family.horizon, TASKS * REPLICAS))

    def work() -> float:
        env.reset()
        for action in actions:
            env.step(action)
        return float(actions.size)

    return work


def compared(
    name: str, family: TaskFamily, target: float, make: Callable[[Any, Task, int], gymnasium.Env[int, int]]
) -> Comparison:
    """Both sides on the same tasks."""
    tasks = family.fixed("train", TASKS)
    plain = SyncVectorEnv(
        [lambda i=i: make(family, tasks[i // REPLICAS], i) for i in range(TASKS * REPLICAS)],
        autoreset_mode=AutoresetMode.DISABLED,
    )
    title = f"{name}: {TASKS * REPLICAS} environments / SyncVectorEnv, environment steps/s"
    ours = episode(family.make_vec(tasks, REPLICAS), family)
    return Comparison(title, ours, episode(plain, family), target, plain.close)


def bandit() -> Comparison:
    """Bernoulli bandit, 10 pulls."""
    return compared("bandit, 10 pulls", BernoulliBandit(), 100.0, PlainBandit)


def bandit_long() -> Comparison:
    """Bernoulli bandit, 100 pulls."""
    return compared("bandit, 100 pulls", BernoulliBandit(pulls=100), 100.0, PlainBandit)


def tabular_mdp() -> Comparison:
    """Tabular MDPs of the default family."""
    return compared("tabular MDP", TabularMDP(), 30.0, PlainMDP)


ROWS = [bandit, bandit_long, tabular_mdp]

if __name__ == "__main__":
    main(ROWS, __doc__)
