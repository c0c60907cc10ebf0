"""All tasks x all episodes in one batched loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from gymnasium.spaces import Discrete
from numpy.typing import NDArray
from torch import Tensor

from metarl.allocator import check_memory
from metarl.errors import NonFiniteError
from metarl.nets.distributions import NO_ACTION
from metarl.nets.params import Params
from metarl.nets.policies import Policy
from metarl.parallel import intra_op_threads
from metarl.sampling.blocks import Blocks
from metarl.sampling.episodes import Episodes, episode_bytes
from metarl.seeding import Key
from metarl.tasks import Array, TaskVectorEnv

UNASKED = 1 << 28  # bytes of episodes recorded together that any machine has
Act = Callable[[Tensor, int], Tensor]
Watch = Callable[[TaskVectorEnv, NDArray[np.float32]], None]  # sees each state with the rewards (N,) that led there


def rollout(
    env: TaskVectorEnv | Blocks,
    policy: Policy,
    params: Params,
    key: Key,
    *,
    threads: int = 1,
    watch: Watch | None = None,
) -> Episodes:
    """One episode of `policy` in every environment.

    Args:
        env: T tasks x E replicas; it is reset first.
        policy: called with explicit parameters.
        params: one set, or one per task, stacked `(T, ...)`; `Blocks` take stacked ones only.
        key: names the streams of start states and actions, a task's by its place; so episodes do not depend on
            threads, on the other tasks, nor on what was sampled before.
        threads: intra-op threads of the policy; one is fastest for small networks.
        watch: called after the reset and after every step, such as a `recording.Recorder`; not with `Blocks`.

    Returns:
        Episodes on the CPU, `(T, E, H, ...)`.
    """
    if isinstance(env, Blocks) and len(env.parts) == 1:
        env = env.parts[0]
    with intra_op_threads(threads):
        if isinstance(env, TaskVectorEnv):
            return _act_out(env, policy, params, key, watch)
        with ThreadPoolExecutor(len(env.parts)) as pool:
            each = pool.map(lambda part, own: _act_out(part, policy, own, key), env.parts, env.share(params))
            return Episodes.concatenate(list(each))


def _act_out(env: TaskVectorEnv, policy: Policy, params: Params, key: Key, watch: Watch | None = None) -> Episodes:
    horizon = env.family.horizon
    streams = env.tasks.streams(key("action"))
    noise = torch.from_numpy(np.stack([policy.noise(rng, (horizon, env.replicas)) for rng in streams], 1))
    device = next(iter(params.values())).device

    def act(obs: Tensor, t: int) -> Tensor:
        actions: Tensor = policy.distribution(params, obs.to(device)).sample(noise[t].to(device))
        return actions.cpu()

    with torch.no_grad():
        return run_episodes(env, act, key, watch)


def _no_action(env: TaskVectorEnv, actions: Array) -> NonFiniteError:
    """The error of actions `(N, ...)` that are not all finite."""
    rows = actions.reshape(len(actions), -1)
    row = int(np.flatnonzero(((rows == NO_ACTION) | ~np.isfinite(rows)).any(1))[0])
    what = "an action is nan" if rows.dtype.kind == "i" else f"an action is {rows[row].tolist()}"
    return env.non_finite(f"{what} in {env.family.name}", row)


def run_episodes(env: TaskVectorEnv, act: Act, key: Key, watch: Watch | None = None) -> Episodes:
    """One episode of any controller in every environment.

    Args:
        env: T tasks x E replicas; it is reset first.
        act: `(obs (T, E, obs_dim) float32, t) -> actions (T, E, ...)`.
        key: names the streams of start states.
        watch: called after the reset and after every step.

    Raises:
        UserError: they do not fit into memory.
        NonFiniteError: an observation, a reward or an action is NaN or infinite. Its data hold the episode so far, and
            the seed with which a vector environment of the same tasks begins it again.
    """
    n_tasks, n_envs, horizon = len(env.tasks), env.num_envs, env.family.horizon
    if (need := n_envs * episode_bytes(env.family)) > UNASKED:
        check_memory(need, f"{n_envs:,} episodes of at most {horizon:,} steps, recorded together, need")
    seed = key("start").integer()
    obs, _ = env.reset(seed=seed)
    obs_buffer = np.zeros((horizon, n_envs, *obs.shape[1:]), np.float32)
    discrete = isinstance(env.single_action_space, Discrete)
    action_shape = () if discrete else env.single_action_space.shape or ()
    action_buffer = np.zeros((horizon, n_envs, *action_shape), np.int64 if discrete else np.float32)
    rewards = np.zeros((horizon, n_envs), np.float32)
    terminated, truncated, valid = (np.zeros((horizon, n_envs), bool) for _ in range(3))
    live, unstable = np.ones(n_envs, bool), np.zeros(n_envs, bool)
    if watch is not None:
        watch(env, np.zeros(n_envs, np.float32))
    for t in range(horizon):
        obs_buffer[t] = obs
        seen = torch.from_numpy(obs_buffer[t]).view(n_tasks, env.replicas, *obs.shape[1:])
        action_buffer[t] = act(seen, t).numpy().reshape(n_envs, *action_shape)
        try:
            if not (action_buffer[t] != NO_ACTION if discrete else np.isfinite(action_buffer[t])).all():
                raise _no_action(env, action_buffer[t])
            obs, rewards[t], terminated[t], truncated[t], infos = env.step(action_buffer[t])
        except NonFiniteError as error:
            row = error.row or 0
            episode = {"observations": obs_buffer[: t + 1, row], "actions": action_buffer[: t + 1, row]}
            error.data |= {**episode, "rewards": rewards[:t, row], "seed": seed}
            raise
        if "unstable" in infos:
            unstable |= infos["unstable"]
        if watch is not None:
            watch(env, rewards[t])
        valid[t] = live
        ended = terminated[t] | truncated[t]
        if ended.any():
            live = live & ~ended
            if not live.any():
                break

    def by_task(buffer: Array) -> Tensor:
        per_env = np.ascontiguousarray(buffer.swapaxes(0, 1))
        return torch.from_numpy(per_env).view(n_tasks, env.replicas, horizon, *buffer.shape[2:])

    if not valid.all():
        obs_buffer *= valid[..., None]
        action_buffer *= valid.reshape(*valid.shape, *[1] * len(action_shape))
    return Episodes(
        obs=by_task(obs_buffer),
        actions=by_task(action_buffer),
        rewards=by_task(rewards),
        terminated=by_task(terminated),
        truncated=by_task(truncated),
        valid=by_task(valid),
        unstable=torch.from_numpy(unstable).view(n_tasks, env.replicas),
    )
