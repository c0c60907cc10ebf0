"""How fast the MuJoCo families step, against the physics alone and against Gymnasium's vector environments.

    python scripts/benchmark_mujoco.py --json results/benchmarks/mujoco.json

The limit is the same physics, replayed: the same simulations from the same start under the same controls
in one call of `mujoco.batch.Batch.rollout`, on as many threads. Rates are environment steps a second, on
two threads, which is what the targets are for. Half-cheetahs and ants (of `pearl`'s goal family) never end
an episode early, so both sides take the same steps.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from benchmark import Comparison, Work, main
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from metarl.envs.ant import AntGoal
from metarl.envs.half_cheetah import HalfCheetahVelocity
from metarl.envs.mujoco.engine import BatchedMujoco, MujocoFamily
from metarl.nets.params import Params
from metarl.nets.policies import Policy, mlp_policy
from metarl.sampling.blocks import Blocks
from metarl.sampling.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import Array

TASKS, REPLICAS, THREADS = 40, 20, 2
MANY = TASKS * REPLICAS
CHEETAH, ANT = HalfCheetahVelocity(), AntGoal(preset="pearl")
LOOP = f"half-cheetah, {TASKS} tasks x {REPLICAS} with a policy each, closed loop, steps/s"


@dataclass(frozen=True)
class UnchangedMasses(HalfCheetahVelocity):
    """The same cheetah, but every simulation has masses of its own."""

    def physics(self, task: Mapping[str, Array], model: Any) -> Mapping[str, Array]:
        """The masses it had before."""
        return {"body_mass": np.repeat(model.body_mass[None], len(task["velocity"]), axis=0)}


def make(family: MujocoFamily, n: int, replicas: int = 1, threads: int = THREADS) -> BatchedMujoco:
    """N simulations of frozen training tasks."""
    return family.make_vec(family.fixed("train", n // replicas), replicas, threads=threads)


def random_actions(family: MujocoFamily, n: int, steps: int) -> Array:
    """Actions `(steps, n, nu)`."""
    return Key(0)("actions").numpy().uniform(-1, 1, (steps, n, family.robot.sizes[2]))


def stepping(family: MujocoFamily, n: int, steps: int, threads: int = THREADS) -> Work:
    """Reset, then steps with given actions through the engine."""
    env, actions = make(family, n, threads=threads), random_actions(family, n, steps)

    def work() -> float:
        env.reset(seed=0)
        for action in actions:
            env.step(action)
        return float(len(actions) * n)

    return work


def replaying(family: MujocoFamily, actions: Array) -> Work:
    """The physics of these actions `(steps, n, nu)` in one call, from a start that was drawn before."""
    n = actions.shape[1]
    env, skip = make(family, n), family.robot.frame_skip
    env.reset(seed=0)
    qpos, qvel = env.qpos.copy(), env.qvel.copy()
    control = np.ascontiguousarray(np.repeat(actions.swapaxes(0, 1).astype(np.float64), skip, axis=1))

    def work() -> float:
        env._batch.reset(stage=0)
        env.qpos[:], env.qvel[:] = qpos, qvel
        env._batch.rollout(control.shape[1], control, record=())
        return float(len(actions) * n)

    return work


def policies() -> tuple[Policy, Params]:
    """A 2x100 policy for every task."""
    policy = mlp_policy(CHEETAH.observation_space, CHEETAH.action_space, (100, 100))
    params = [policy.init(Key(0)("policy", t).torch()) for t in range(TASKS)]
    return policy, {name: torch.stack([p[name] for p in params]) for name in params[0]}


def closed_loop() -> Work:
    """One episode of 40 policies in 20 environments each."""
    env, (policy, params) = Blocks(CHEETAH, CHEETAH.fixed("train", TASKS), REPLICAS, THREADS), policies()

    def work() -> float:
        return float(rollout(env, policy, params, Key(0)).valid.sum())

    return work


def actions_of_the_loop() -> Array:
    """What the policies of `closed_loop` do."""
    policy, params = policies()
    actions = rollout(make(CHEETAH, MANY, REPLICAS), policy, params, Key(0)).actions
    return actions.reshape(MANY, CHEETAH.horizon, -1).numpy().swapaxes(0, 1).clip(-1, 1)


def gymnasium_cheetah() -> gymnasium.Env[Any, Any]:
    """Gymnasium's own, without the reward of a family."""
    sys.modules.setdefault("imageio", types.ModuleType("imageio"))  # Gymnasium wants it for its windows only
    from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

    return HalfCheetahEnv()


def task_loop(kind: Callable[..., Any], tasks: int) -> tuple[Work, Callable[[], None]]:
    """Task after task in one vector environment of 20 of Gymnasium's HalfCheetah-v5, which is only stepped."""
    env = kind([gymnasium_cheetah] * REPLICAS, autoreset_mode=AutoresetMode.NEXT_STEP)
    policy, params = policies()

    def work() -> float:
        torch.set_num_threads(1)
        for t in range(tasks):
            mine = {name: values[t] for name, values in params.items()}
            noise = torch.from_numpy(policy.noise(Key(0)(t).numpy(), (CHEETAH.horizon, REPLICAS)))
            obs, _ = env.reset(seed=t)
            for k in range(CHEETAH.horizon):
                with torch.no_grad():
                    action = policy.distribution(mine, torch.from_numpy(obs.astype(np.float32))).sample(noise[k])
                obs, *_ = env.step(action.numpy().clip(-1, 1))
        return float(tasks * REPLICAS * CHEETAH.horizon)

    return work, env.close


def against_physics(robot: str, family: MujocoFamily, n: int, steps: int, target: float) -> Comparison:
    """Stepping through the engine against the physics alone."""
    return Comparison(
        name=f"{robot}, {n} environments, steps/s: engine / physics",
        ours=stepping(family, n, steps),
        baseline=replaying(family, random_actions(family, n, steps)),
        target=target,
    )


def cheetah_40_against_physics() -> Comparison:
    """40 half-cheetahs."""
    return against_physics("half-cheetah", CHEETAH, TASKS, 200, 0.85)


def cheetah_800_against_physics() -> Comparison:
    """800 half-cheetahs."""
    return against_physics("half-cheetah", CHEETAH, MANY, 100, 0.90)


def ant_40_against_physics() -> Comparison:
    """40 ants."""
    return against_physics("ant", ANT, TASKS, 200, 0.85)


def ant_800_against_physics() -> Comparison:
    """800 ants."""
    return against_physics("ant", ANT, MANY, 40, 0.90)


def two_threads() -> Comparison:
    """800 half-cheetahs on two threads and on one."""
    return Comparison(
        name=f"half-cheetah, {MANY} environments, steps/s: 2 threads / 1 thread",
        ours=stepping(CHEETAH, MANY, 100),
        baseline=stepping(CHEETAH, MANY, 100, threads=1),
        target=1.75,
    )


def masses_of_their_own() -> Comparison:
    """800 half-cheetahs with masses for each and with the model's; at most 5 % slower."""
    return Comparison(
        name=f"half-cheetah, {MANY} environments, steps/s: masses of their own / shared masses",
        ours=stepping(UnchangedMasses(), MANY, 100),
        baseline=stepping(CHEETAH, MANY, 100),
        target=0.95,
    )


def loop_against_physics() -> Comparison:
    """A rollout of adapted policies against the physics of the same actions."""
    return Comparison(
        name=f"{LOOP} / physics of the same actions",
        ours=closed_loop(),
        baseline=replaying(CHEETAH, actions_of_the_loop()),
        target=0.85,
    )


def policy_and_bookkeeping() -> Comparison:
    """The same, for the share of the time that is not physics: at most 12 %, so a ratio of .88."""
    row = loop_against_physics()
    return dataclasses.replace(row, name=f"{row.name}; policy and bookkeeping take 1 - ratio", target=0.88)


def loop_against(kind: Callable[..., Any], tasks: int, target: float) -> Comparison:
    """A rollout against a loop over tasks in one of Gymnasium's vector environments."""
    loop, close = task_loop(kind, tasks)
    name = f"{LOOP} / task loop over {kind.__name__}({REPLICAS})"
    return Comparison(name=name, ours=closed_loop(), baseline=loop, target=target, finish=close)


def loop_against_async() -> Comparison:
    """A rollout against AsyncVectorEnv, a process an environment."""
    return loop_against(AsyncVectorEnv, 1, 8.0)


def loop_against_sync() -> Comparison:
    """A rollout against SyncVectorEnv."""
    return loop_against(SyncVectorEnv, 1, 4.0)


ROWS = [
    cheetah_40_against_physics,
    cheetah_800_against_physics,
    ant_40_against_physics,
    ant_800_against_physics,
    two_threads,
    masses_of_their_own,
    loop_against_physics,
    policy_and_bookkeeping,
    loop_against_async,
    loop_against_sync,
]

if __name__ == "__main__":
    main(ROWS, __doc__)
