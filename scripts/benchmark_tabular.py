"""Stepping 800 bandits and 800 tabular MDPs, against Gymnasium's SyncVectorEnv over the leanest plain environment.

    python scripts/benchmark_tabular.py --json results/benchmarks/tabular.json

Both sides step the same number of environments for whole episodes, resets included, in turn; medians.
The plain environments do nothing but what a step needs: no checks, no info, a Discrete observation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from metarl.envs.bandit import BernoulliBandit
from metarl.envs.tabular_mdp import TabularMDP
from metarl.tasks import Task, TaskFamily

TASKS, REPLICAS = 40, 20
TARGETS = {"bandit": 100.0, "tabular_mdp": 30.0}


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


def ours(family: TaskFamily, episodes: int) -> Callable[[], float]:
    """A function that runs whole episodes and returns steps a second."""
    env = family.make_vec(family.fixed("train", TASKS), REPLICAS)
    actions = _actions(family)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(episodes):
            env.reset()
            for action in actions:
                env.step(action)
        return episodes * actions.size / (time.perf_counter() - start)

    return run


def plain(family: TaskFamily, make: Callable[[Any, Task, int], gymnasium.Env[int, int]]) -> Callable[[], float]:
    """The same with SyncVectorEnv, one episode."""
    tasks = family.fixed("train", TASKS)
    envs = [lambda i=i: make(family, tasks[i // REPLICAS], i) for i in range(TASKS * REPLICAS)]
    env = SyncVectorEnv(envs, autoreset_mode=AutoresetMode.DISABLED)
    actions = _actions(family)

    def run() -> float:
        start = time.perf_counter()
        env.reset()
        for action in actions:
            env.step(action)
        return actions.size / (time.perf_counter() - start)

    return run


def _actions(family: TaskFamily) -> np.ndarray[Any, np.dtype[np.int64]]:
    space = family.action_space
    assert isinstance(space, Discrete)
    return np.random.default_rng(0).integers(0, space.n, (family.horizon, TASKS * REPLICAS))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    sides: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {}
    for name, family, make in (
        ("bandit", BernoulliBandit(), PlainBandit),
        ("bandit, 100 pulls", BernoulliBandit(pulls=100), PlainBandit),
        ("tabular_mdp", TabularMDP(), PlainMDP),
    ):
        sides[name] = ours(family, 1000 // family.horizon), plain(family, make)
    rows = []
    for name, (mine, theirs) in sides.items():
        pairs = [(mine(), theirs()) for _ in range(args.repeats + 1)][1:]
        ratios = sorted(a / b for a, b in pairs)
        target = TARGETS[name.partition(",")[0]]
        ratio = statistics.median(ratios)
        rows.append(
            {
                "name": f"{name}: steps/s, 800 environments / SyncVectorEnv",
                "value": statistics.median(a for a, _ in pairs),
                "baseline": statistics.median(b for _, b in pairs),
                "ratio": ratio,
                "target": target,
                "met": ratio >= target,
                "repeats": args.repeats,
                "spread": [ratios[0], ratios[-1]],
            }
        )
        print(f"{rows[-1]['name']}: {ratio:.0f}x (target {target:.0f}x, spread {ratios[0]:.0f} to {ratios[-1]:.0f})")
    report = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "gymnasium": gymnasium.__version__},
        "rows": rows,
    }
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
