"""Episodes of a policy that is told a latent vector, and what is learned from them: transitions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metarl.nets.latent_actor_critic import LatentActorCritic
from metarl.nets.params import Params, device_of
from metarl.sampling.episodes import Episodes
from metarl.sampling.rollout import Watch, run_episodes
from metarl.seeding import Key
from metarl.tasks import Tasks, TaskVectorEnv


def latent_noise(tasks: Tasks, replicas: int, latent: int, key: Key) -> Tensor:
    """Standard normals `(T, E, L)`, a task's by its place."""
    each = [rng.standard_normal((replicas, latent), dtype="float32") for rng in tasks.streams(key("latent"))]
    return torch.from_numpy(np.stack(each))


def latent_rollout(
    env: TaskVectorEnv,
    networks: LatentActorCritic,
    policy: Params,
    z: Tensor,
    key: Key,
    *,
    likeliest: bool = False,
    watch: Watch | None = None,
) -> Episodes:
    """One episode in every environment, each with a latent vector of its own for all of it.

    Args:
        env: T tasks x E replicas; it is reset first.
        networks: whose policy acts.
        policy: its parameters; what it computes is computed on their device.
        z: `(T, E, L)`, on that device.
        key: names the streams of start states and actions, a task's by its place.
        likeliest: act without noise.
        watch: called after the reset and after every step.

    Returns:
        Episodes on the CPU, `(T, E, H, ...)`.
    """
    device, horizon = device_of(policy), env.family.horizon
    if not likeliest:
        shape = (horizon, env.replicas, networks.action)
        streams = env.tasks.streams(key("action"))
        drawn = np.stack([rng.standard_normal(shape, dtype="float32") for rng in streams], 1)
        noise = torch.from_numpy(drawn).to(device)

    def act(obs: Tensor, t: int) -> Tensor:
        distribution = networks.act(policy, obs.to(device), z)
        return (distribution.mode() if likeliest else distribution.sample(noise[t])).cpu()

    with torch.no_grad():
        return run_episodes(env, act, key, watch)


def seen_by(episodes: Episodes) -> Tensor:
    """Each step as context: observation, action and reward, `(T, E, H, O + A + 1)`; padding where none was taken."""
    return torch.cat([episodes.obs, episodes.actions, episodes.rewards[..., None]], -1)


def transitions(episodes: Episodes) -> list[Tensor]:
    """For each task the transitions `(n, O + A + 1 + O + 1)`: context, next observation, and 1 where that is terminal.

    The last step of an episode that was cut by the time limit is left out: what it led to was not recorded. What a
    terminal step led to is 0, and without a value.
    """
    obs = episodes.obs
    following = torch.cat([obs[:, :, 1:], torch.zeros_like(obs[:, :, :1])], 2)
    rows = torch.cat([seen_by(episodes), following, episodes.terminated[..., None].float()], -1)
    known = episodes.valid & ~episodes.truncated
    return [own[mask] for own, mask in zip(rows, known, strict=True)]
