"""How fast the MuJoCo families step, against the physics alone and against Gymnasium's vector environments.

    python scripts/benchmark_mujoco.py --json results/benchmarks/mujoco.json

The limit is the same physics, replayed: the same simulations from the same start under the same controls
in one call of `mujoco.batch.Batch.rollout`, on as many threads. Rates are environment steps a second. Both
sides of a row run in turn, `--repeats` times after one warm-up; medians, and the spread of the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from metarl.envs.ant import AntGoal
from metarl.envs.batched_mujoco import BatchedMujoco, MujocoFamily
from metarl.envs.half_cheetah import HalfCheetahVelocity
from metarl.policies import mlp_policy
from metarl.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import Array

Rate = Callable[[], float]  # runs once, returns environment steps a second
TASKS, REPLICAS = 40, 20
CHEETAH, ANT = HalfCheetahVelocity(), AntGoal(preset="pearl")  # neither ends an episode early


@dataclass(frozen=True)
class UnchangedMasses(HalfCheetahVelocity):
    """The same cheetah, but every simulation has masses of its own."""

    def physics(self, task: Mapping[str, Array], model: Any) -> Mapping[str, Array]:
        """The masses it had before."""
        return {"body_mass": np.repeat(model.body_mass[None], len(task["velocity"]), axis=0)}


def stepping(family: MujocoFamily, n: int, steps: int, threads: int) -> Rate:
    """Reset, then steps with given actions through the engine."""
    env, actions = _env(family, n, threads), _actions(family, n, steps)

    def run() -> float:
        start = time.perf_counter()
        env.reset(seed=0)
        for action in actions:
            env.step(action)
        return len(actions) * n / (time.perf_counter() - start)

    return run


def replaying(family: MujocoFamily, n: int, actions: Array, threads: int) -> Rate:
    """The same physics in one call."""
    env, skip = _env(family, n, threads), family.robot.frame_skip
    control = np.ascontiguousarray(np.repeat(actions.swapaxes(0, 1).astype(np.float64), skip, axis=1))

    def run() -> float:
        env.reset(seed=0)
        start = time.perf_counter()
        env._batch.rollout(control.shape[1], control, record=())
        return len(actions) * n / (time.perf_counter() - start)

    return run


def closed_loop(threads: int) -> tuple[Rate, Array]:
    """One episode of 40 policies in 20 environments each; and the actions they took."""
    env = _env(CHEETAH, TASKS * REPLICAS, threads, REPLICAS)
    policy, params = _policies()
    steps = TASKS * REPLICAS * CHEETAH.horizon

    def run() -> float:
        start = time.perf_counter()
        rollout(env, policy, params, Key(0))
        return steps / (time.perf_counter() - start)

    actions = rollout(env, policy, params, Key(0)).actions.reshape(TASKS * REPLICAS, CHEETAH.horizon, -1)
    return run, actions.numpy().swapaxes(0, 1).clip(-1, 1)


def task_loop(kind: Callable[..., Any], tasks: int) -> Rate:
    """Task after task in one vector environment of 20 of Gymnasium's HalfCheetah-v5, which is only stepped."""
    env = kind([_gymnasium_cheetah] * REPLICAS, autoreset_mode=AutoresetMode.NEXT_STEP)
    policy, params = _policies()

    def run() -> float:
        torch.set_num_threads(1)
        start = time.perf_counter()
        for t in range(tasks):
            mine = {name: values[t] for name, values in params.items()}
            noise = torch.from_numpy(policy.noise(Key(0)(t).numpy(), (CHEETAH.horizon, REPLICAS)))
            obs, _ = env.reset(seed=t)
            for k in range(CHEETAH.horizon):
                with torch.no_grad():
                    action = policy.distribution(mine, torch.from_numpy(obs.astype(np.float32))).sample(noise[k])
                obs, *_ = env.step(action.numpy().clip(-1, 1))
        return tasks * REPLICAS * CHEETAH.horizon / (time.perf_counter() - start)

    return run


def _gymnasium_cheetah() -> gymnasium.Env[Any, Any]:
    sys.modules.setdefault("imageio", types.ModuleType("imageio"))  # Gymnasium wants it for its windows only
    from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

    return HalfCheetahEnv()


def _env(family: MujocoFamily, n: int, threads: int, replicas: int = 1) -> BatchedMujoco:
    return family.make_vec(family.fixed("train", n // replicas), replicas, threads=threads)


def _actions(family: MujocoFamily, n: int, steps: int) -> Array:
    return Key(0)("actions").numpy().uniform(-1, 1, (steps, n, family.robot.sizes[2]))


def _policies() -> tuple[Any, dict[str, torch.Tensor]]:
    policy = mlp_policy(CHEETAH.observation_space, CHEETAH.action_space, (100, 100))
    params = [policy.init(Key(0)("policy", t).torch()) for t in range(TASKS)]
    return policy, {name: torch.stack([p[name] for p in params]) for name in params[0]}


def compare(name: str, ours: Rate, theirs: Rate, repeats: int, target: float, at_most: bool = False) -> dict[str, Any]:
    """A row; `at_most` turns the ratio r of rates into the share 1 - r of time that is not physics."""
    pairs = [(ours(), theirs()) for _ in range(repeats + 1)][1:]
    ratios = sorted(1 - a / b if at_most else a / b for a, b in pairs)
    ratio = statistics.median(ratios)
    row = {
        "name": name,
        "value": statistics.median(a for a, _ in pairs),
        "baseline": statistics.median(b for _, b in pairs),
        "ratio": ratio,
        "target": target,
        "met": ratio <= target if at_most else ratio >= target,
        "repeats": repeats,
        "spread": [ratios[0], ratios[-1]],
    }
    sign = "<=" if at_most else ">="
    print(f"{name}: {ratio:.2f} (target {sign} {target}, spread {ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)
    return row


def measure(threads: int, repeats: int) -> list[dict[str, Any]]:
    """All rows."""
    rows = []
    for robot, family, few, many in (("half-cheetah", CHEETAH, 200, 100), ("ant", ANT, 200, 40)):
        for n, steps, target in ((40, few, 0.85), (800, many, 0.90)):
            sides = stepping(family, n, steps, threads), replaying(family, n, _actions(family, n, steps), threads)
            rows.append(compare(f"{robot}, {n} environments: batched step / physics", *sides, repeats, target))
    one, more = (stepping(CHEETAH, 800, 100, t) for t in (1, threads))
    rows.append(compare(f"half-cheetah, 800: {threads} threads / 1 thread", more, one, repeats, 1.75))
    sides = stepping(UnchangedMasses(), 800, 100, threads), stepping(CHEETAH, 800, 100, threads)
    rows.append(compare("half-cheetah, 800: masses of their own / shared masses", *sides, repeats, 0.95))
    loop, actions = closed_loop(threads)
    replay = replaying(CHEETAH, TASKS * REPLICAS, actions, threads)
    name = "half-cheetah, 40 tasks x 20 with a policy each: closed loop"
    rows.append(compare(f"{name} / replayed physics", loop, replay, repeats, 0.85))
    rows.append(compare(f"{name}: share of policy and bookkeeping", loop, replay, repeats, 0.12, at_most=True))
    for kind, tasks, target in ((AsyncVectorEnv, 2, 8.0), (SyncVectorEnv, 4, 4.0)):
        rows.append(compare(f"{name} / task loop over {kind.__name__}", loop, task_loop(kind, tasks), repeats, target))
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="the targets are for 2, on 2 cores")
    args = parser.parse_args()
    rows = measure(args.threads, args.repeats)
    versions = {"mujoco": mujoco.__version__, "torch": torch.__version__, "numpy": np.__version__}
    report = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version(), "gymnasium": gymnasium.__version__, **versions},
        "rows": rows,
    }
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
