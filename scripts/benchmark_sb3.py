"""How much faster Stable-Baselines3's PPO collects on our vector engine than on its own DummyVecEnv; and learns alike.

    python scripts/benchmark_sb3.py --json results/benchmarks/sb3.json

Both sides run the same PPO with the same settings on the same half-cheetahs, 40 at once, a fresh wanted speed every
episode. `learn()` also updates the networks, which costs both sides the same, so its ratio is smaller.
"""

from __future__ import annotations

import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from benchmark import Comparison, Row, Work, main
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

from metarl.envs.half_cheetah import CONTROL_COST, HalfCheetahVelocity
from metarl.integrations import sb3_ppo as ppo
from metarl.integrations.sb3_env import SB3VecEnv
from metarl.seeding import Key, keyed_globals
from metarl.tasks import Array, Task

FAMILY, CONFIG = HalfCheetahVelocity(), ppo.Config(step_size=3e-4)
THREADS = 2  # of the physics; torch has one on both sides
SEEDS, ROUNDS = 3, 8  # of the learning curves
PROBLEM = f"half-cheetah velocity, {CONFIG.envs} environments"


def engine(threads: int = THREADS) -> VecEnv:
    """Our side: all of them in one vector environment."""
    return SB3VecEnv(FAMILY.make_vec(FAMILY.fixed("train", CONFIG.envs), threads=threads), mixture=True)


def singles() -> VecEnv:
    """The other side: our single environments, one after the other."""
    return DummyVecEnv([FAMILY.make] * CONFIG.envs)


class LeanCheetah(gymnasium.Wrapper[Array, Array, Array, Array]):
    """Gymnasium's HalfCheetah-v5 with the reward and the horizon of our family, and nothing more."""

    def __init__(self, task: Task) -> None:
        sys.modules.setdefault("imageio", types.ModuleType("imageio"))  # Gymnasium wants it for its windows only
        from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

        super().__init__(HalfCheetahEnv())
        self.wanted, self.elapsed = float(task["velocity"]), 0

    def reset(self, **kwargs: Any) -> tuple[Array, dict[str, Any]]:
        """Begin an episode."""
        self.elapsed = 0
        return self.env.reset(**kwargs)

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One step."""
        obs, _, _, _, info = self.env.step(action)
        self.elapsed += 1
        reward = -abs(info["x_velocity"] - self.wanted) - CONTROL_COST * float(np.square(action).sum())
        return obs, reward, False, self.elapsed >= FAMILY.horizon, {}


def lean_singles() -> VecEnv:
    """The leanest other side: Gymnasium's own half-cheetah in a wrapper of ten lines, each with a task it keeps."""
    tasks = FAMILY.fixed("train", CONFIG.envs)
    check_same_dynamics(tasks[0])
    return DummyVecEnv([partial(LeanCheetah, task) for task in tasks])


def check_same_dynamics(task: Task) -> None:
    """Refuse to compare two environments that do not do the same."""
    ours, lean = FAMILY.make(task), LeanCheetah(task)
    ours.reset(seed=0)
    lean.reset(seed=0)
    simulated: Any = ours.unwrapped
    lean.unwrapped.set_state(simulated.vector.qpos[0].copy(), simulated.vector.qvel[0].copy())  # type: ignore[attr-defined]  # MuJoCo's
    for k in range(FAMILY.horizon):
        action = Key(0)(k).numpy().uniform(-1, 1, FAMILY.robot.sizes[2]).astype(np.float32)
        (obs, *outcome, _), (obs_, *expected, _) = ours.step(action), lean.step(action)
        np.testing.assert_allclose(obs, obs_, atol=1e-6)
        np.testing.assert_allclose(np.array(outcome, float), np.array(expected, float), atol=1e-6)


def made(rows: VecEnv, seed: int = 0) -> tuple[PPO, VecNormalize]:
    """PPO on these environments, ready to collect."""
    torch.set_num_threads(1)
    vec = VecNormalize(VecMonitor(rows), norm_obs=False, gamma=CONFIG.gamma)
    with keyed_globals(Key(seed)("init")):
        model = ppo.make_model(CONFIG, vec, FAMILY.horizon, "cpu")
    vec.seed(seed)
    model._setup_learn(0, ppo.Silent())
    return model, vec


def collecting(rows: VecEnv) -> Work:
    """Collects once; environment steps."""
    model, vec = made(rows)
    callback = ppo.Silent()
    callback.init_callback(model)

    def work() -> float:
        model.collect_rollouts(vec, callback, model.rollout_buffer, model.n_steps)
        return float(model.n_steps * CONFIG.envs)

    return work


def learning(rows: VecEnv) -> Work:
    """Collects and updates once, by `learn`; environment steps."""
    model, _ = made(rows)

    def work() -> float:
        model.learn(model.n_steps * CONFIG.envs, reset_num_timesteps=False)
        return float(model.n_steps * CONFIG.envs)

    return work


def collect_rollouts() -> Comparison:
    """Collecting alone, against our single environments in DummyVecEnv."""
    name = f"{PROBLEM}, PPO.collect_rollouts, steps/s / DummyVecEnv"
    return Comparison(name, collecting(engine()), collecting(singles()), target=2.0)


def collect_rollouts_on_one_thread() -> Comparison:
    """The same, with the physics on one thread too."""
    name = f"{PROBLEM}, PPO.collect_rollouts on one thread, steps/s / DummyVecEnv"
    return Comparison(name, collecting(engine(1)), collecting(singles()), target=2.0)


def collect_rollouts_against_gymnasium() -> Comparison:
    """Collecting alone, against Gymnasium's own half-cheetah in DummyVecEnv."""
    name = f"{PROBLEM}, PPO.collect_rollouts, steps/s / DummyVecEnv of HalfCheetah-v5"
    return Comparison(name, collecting(engine()), collecting(lean_singles()), target=2.0)


def learn() -> Comparison:
    """Collecting and updating, against our single environments in DummyVecEnv."""
    name = f"{PROBLEM}, PPO.learn, steps/s / DummyVecEnv"
    return Comparison(name, learning(engine()), learning(singles()), target=1.0)


def curve(make: Callable[[], VecEnv], seed: int) -> list[float]:
    """Mean return of the episodes of each round of learning."""
    model, vec = made(make(), seed)
    with keyed_globals(Key(seed)("learn")):
        returns = [ppo.iterate(model, vec, CONFIG, Key(seed)(k))[0]["return/mean"] for k in range(ROUNDS)]
    vec.close()
    return returns


def same_curve() -> Row:
    """Whether both learn alike: the gap of the mean returns over the rounds, in standard errors over seeds."""
    started = time.perf_counter()
    sides = [[statistics.fmean(curve(make, seed)) for seed in range(SEEDS)] for make in (engine, singles)]
    gap = statistics.fmean(sides[0]) - statistics.fmean(sides[1])
    error = float(np.sqrt(sum(statistics.variance(side) / SEEDS for side in sides)))
    print(f"returns by seed {sides}, {time.perf_counter() - started:.0f} s")
    return Row(
        name=f"{PROBLEM}, mean return over {ROUNDS} rounds of learning; gap / standard error, at most",
        value=statistics.fmean(sides[0]),
        baseline=statistics.fmean(sides[1]),
        ratio=abs(gap) / error,
        target=2.5,
        met=abs(gap) <= 2.5 * error,
        repeats=SEEDS,
        spread=(min(sides[0]), max(sides[0])),
    )


ROWS = [
    collect_rollouts,
    collect_rollouts_on_one_thread,
    collect_rollouts_against_gymnasium,
    learn,
    same_curve,
]

if __name__ == "__main__":
    main(ROWS, __doc__)
