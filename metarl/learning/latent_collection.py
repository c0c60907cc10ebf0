"""Collecting on training tasks, for off-policy learning with an inferred latent vector (Rakelly et al. 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metarl.learning.latent_adaptation import LatentAgent
from metarl.learning.replay import Replay
from metarl.nets.context_encoder import Posterior
from metarl.sampling.episodes import Episodes
from metarl.sampling.latent_episodes import transitions
from metarl.seeding import Key
from metarl.tasks import Tasks


def collect(
    agent: LatentAgent,
    replay: Replay,
    tasks: Tasks,
    rows: NDArray[np.int64],
    episodes: tuple[int, int],
    key: Key,
    *,
    posterior_context: bool = False,
) -> dict[str, float]:
    """Episodes with z from the prior, then some with z from what those say; both are added to the replay.

    Args:
        agent: that acts, drawing its actions.
        replay: with a ring for each training task; those of the prior become a task's context.
        tasks: all training tasks.
        rows: which of them to visit.
        episodes: on each, with z from the prior and from the posterior; a z for each episode.
        key: names the streams.
        posterior_context: whether the posterior's episodes are context too.

    Returns:
        Mean returns of both kinds of episodes, and the steps they took.
    """
    visited, known = tasks[rows], None
    metrics: dict[str, float] = {"episodes/steps": 0, "episodes/unstable": 0}
    counts = [0] * len(rows)
    for name, count in zip(("prior", "posterior"), episodes, strict=True):
        if not count:
            continue
        played = _played(agent, visited, known, count, key(name))
        if name == "prior" and episodes[1]:
            said = agent.infer(played)
            known = Posterior(*(part.sum(1, keepdim=True) for part in (said.precision, said.weighted)))
        for i, own in enumerate(transitions(played)):
            replay.add(int(rows[i]), own)
            counts[i] += len(own)
            if name == "prior" or posterior_context:
                replay.renew_context(int(rows[i]), counts[i])
        metrics[f"return/{name}"] = float(played.returns().mean())
        metrics["episodes/steps"] += int(played.valid.sum())
        metrics["episodes/unstable"] += int(played.unstable.sum())
    return metrics


def _played(agent: LatentAgent, tasks: Tasks, known: Posterior | None, count: int, key: Key) -> Episodes:
    """So many episodes on each task."""
    env = agent.family.make_vec(tasks, count, threads=agent.threads)
    nothing = agent.nothing(len(tasks), count)
    if known is not None:
        shape = nothing.precision.shape
        nothing = Posterior(known.precision.expand(shape), known.weighted.expand(shape))
    episodes = agent.episode(env, nothing, key)
    env.close()
    return episodes
