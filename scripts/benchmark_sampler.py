"""How fast environments are stepped, against the usual ways to step many of them.

    python scripts/benchmark_sampler.py --json results/benchmarks/sampler.json

The rows of `benchmark_mujoco.py` are among them. To add one: write a function that returns a `Comparison`
and put it into `ROWS`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import benchmark_mujoco
import gymnasium
import numpy as np
from benchmark import Comparison, Work, main
from gymnasium.vector import SyncVectorEnv

import metarl.envs
from metarl.seeding import Key
from metarl.tasks import Array, Task, TaskFamily, Tasks, TaskVectorEnv

TASKS, EPISODES = 40, 20  # the meta-batch: 800 environments


def actions_for(env: gymnasium.vector.VectorEnv[Any, Any, Any], steps: int) -> list[Array]:
    """Random actions for every environment, drawn beforehand so that drawing them is not timed."""
    env.action_space.seed(Key(0)("benchmark", "actions").integer() % 2**31)
    return [env.action_space.sample() for _ in range(steps)]


def episodes(env: TaskVectorEnv, actions: list[Array]) -> float:
    """Whole episodes of every environment, resets included; returns the environment steps taken."""
    env.reset()
    for action in actions:
        env.step(action)
    return float(len(actions) * env.num_envs)


def some_steps(env: gymnasium.vector.VectorEnv[Any, Any, Any], actions: list[Array]) -> float:
    """A few steps of an environment that resets itself; returns the environment steps taken."""
    for action in actions:
        env.step(action)
    return float(len(actions) * env.num_envs)


def batched(family: TaskFamily, tasks: Tasks) -> Work:
    """Our side: all tasks x episodes in one vector environment, whole episodes with their resets."""
    env = family.make_vec(tasks, EPISODES)
    return partial(episodes, env, actions_for(env, family.horizon))


def synchronous(makers: list[Any], steps: int) -> Work:
    """The usual side: Gymnasium's SyncVectorEnv over single environments, which resets them as they end."""
    env = SyncVectorEnv(makers)
    env.reset(seed=0)
    return partial(some_steps, env, actions_for(env, steps))


class LeanNavigation(gymnasium.Env[Array, Array]):
    """The navigation of `maml2017`, as lean as a plain Gymnasium environment can be: floats and no arrays."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, goal: Array) -> None:
        self.goal_x, self.goal_y = goal.tolist()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Back to the origin."""
        self.x = self.y = 0.0
        self.elapsed = 0
        return np.zeros(2), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move, pay the distance."""
        move_x, move_y = action.tolist()
        self.x += 0.1 * min(max(move_x, -1.0), 1.0)
        self.y += 0.1 * min(max(move_y, -1.0), 1.0)
        gap_x, gap_y = self.x - self.goal_x, self.y - self.goal_y
        self.elapsed += 1
        terminated = abs(gap_x) < 0.01 and abs(gap_y) < 0.01
        return np.array((self.x, self.y)), -math.sqrt(gap_x**2 + gap_y**2), terminated, self.elapsed >= 100, {}


def check_same_dynamics(family: TaskFamily, task: Task) -> None:
    """Refuse to compare two environments that do not do the same."""
    ours, lean = family.make(task), LeanNavigation(task["goal"])
    ours.reset(seed=0)
    lean.reset()
    ours.action_space.seed(0)
    for _ in range(family.horizon):
        action = ours.action_space.sample() * 1.5
        (obs, *outcome, _), (obs_, *expected, _) = ours.step(action), lean.step(action)
        np.testing.assert_allclose(obs, obs_, atol=1e-6)
        np.testing.assert_allclose(np.array(outcome, float), np.array(expected, float), atol=1e-6)


def navigation_against_lean_environments() -> Comparison:
    """2D navigation, 40 x 20, against SyncVectorEnv over the leanest hand-written environment."""
    family = metarl.envs.make_family("metarl/Navigation2D-v0")
    tasks = family.fixed("train", TASKS)
    goals = tasks.repeat(EPISODES)["goal"]
    check_same_dynamics(family, tasks[0])
    return Comparison(
        name=f"navigation {TASKS}x{EPISODES}, steps/s / SyncVectorEnv of lean hand-written environments",
        ours=batched(family, tasks),
        baseline=synchronous([partial(LeanNavigation, goal) for goal in goals], steps=20),
        target=100.0,
    )


def navigation_against_own_single_environments() -> Comparison:
    """2D navigation, 40 x 20, against SyncVectorEnv over our own single environments."""
    family = metarl.envs.make_family("metarl/Navigation2D-v0")
    tasks = family.fixed("train", TASKS)
    return Comparison(
        name=f"navigation {TASKS}x{EPISODES}, steps/s / SyncVectorEnv of our single environments",
        ours=batched(family, tasks),
        baseline=synchronous([partial(family.make, task) for task in tasks for _ in range(EPISODES)], steps=5),
        target=100.0,
    )


ROWS = [
    navigation_against_lean_environments,
    navigation_against_own_single_environments,
    *benchmark_mujoco.ROWS,
]

if __name__ == "__main__":
    main(ROWS, __doc__)
