"""Policies that adapt by inferring a latent vector from what they have seen, and how they are judged.

A trial is K + 1 episodes on a new task. In the first, z is drawn from the prior; after each, the episode is added to
the context, and z is drawn anew from the posterior: to act by a draw is to explore (Osband et al. 2013). The score
after k bits of adaptation is the return of episode k + 1, for which k episodes were consumed. Actions are drawn, as in
training: an episode of means shows less of the task, so the encoder would see what it was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.learning.acting import Acts, Adapted, check_counts
from metarl.learning.contract import Budget, Scores, mean_steps
from metarl.learning.places import Place, Where, episodes_in, place
from metarl.nets.context_encoder import Posterior
from metarl.nets.latent_actor_critic import LatentActorCritic
from metarl.nets.params import Params, below, device_of
from metarl.parallel import intra_op_threads
from metarl.sampling.episodes import Episodes
from metarl.sampling.latent_episodes import latent_noise, latent_rollout, seen_by
from metarl.sampling.recording import Recorder, Recording
from metarl.sampling.rollout import Watch
from metarl.seeding import Key
from metarl.tasks import Array, TaskFamily, Tasks, TaskVectorEnv

EVALUATION_STEPS = 1_000_000  # environment steps held at once when a curve is measured
STREAM = "latent"  # what the streams of acting are called
STEPS = 2  # episodes explored in, where it is not said how many


class AdaptedLatent(Adapted):
    """A policy and the latent vector that it acts by on one task.

    Attributes:
        networks: whose policy acts.
        policy: its parameters.
        z: `(L,)`, drawn once.
    """

    def __init__(
        self, where: Place, networks: LatentActorCritic, policy: Params, z: Tensor, key: Key, **cost: Any
    ) -> None:
        super().__init__(where, **cost)
        self.networks, self.policy, self.z = networks, policy, z
        self._rng = key.numpy()

    @plain_torch()
    def _act(
        self, obs: Array, state: Any, starts: NDArray[Any], rewards: Array | None, deterministic: bool
    ) -> tuple[Array, Any]:
        seen = torch.from_numpy(obs.astype("float32")).to(self.z.device)
        with torch.no_grad():
            distribution = self.networks.act(self.policy, seen, self.z.expand(len(seen), -1))
            if deterministic:
                actions = distribution.mode()
            else:
                noise = self._rng.standard_normal((len(seen), self.networks.action), dtype="float32")
                actions = distribution.sample(torch.from_numpy(noise).to(self.z.device))
        chosen: Array = actions.cpu().numpy()
        return chosen, None


@dataclass(frozen=True)
class LatentAgent(Acts):
    """A policy, and an encoder that tells it the task; an `Adaptable` that acts.

    Attributes:
        networks: what acts and infers.
        params: theirs, one set.
        family: whose tasks it is put on.
        threads: intra-op threads, and those of the environments.
        likeliest: act by the policy's means, as the authors evaluate; by default actions are drawn, as in training.
    """

    networks: LatentActorCritic
    params: Params
    family: TaskFamily
    threads: int = 1
    likeliest: bool = False

    @property
    def _policy(self) -> Params:
        return below(self.params, "policy")

    def infer(self, episodes: Episodes) -> Posterior:
        """What one episode in each of `(T, E)` places says there: a posterior `(T, E, L)`."""
        device = device_of(self.params)
        with torch.no_grad():
            return self.networks.encoder(
                below(self.params, "encoder"), seen_by(episodes).to(device), episodes.valid.to(device)
            )

    def episode(self, env: TaskVectorEnv, known: Posterior, key: Key, *, watch: Watch | None = None) -> Episodes:
        """An episode in every place, by a draw from what is known there, `(T, E, L)`."""
        noise = latent_noise(env.tasks, env.replicas, self.networks.latent, key).to(device_of(self.params))
        z = known.sample(noise)
        with intra_op_threads(self.threads):
            return latent_rollout(env, self.networks, self._policy, z, key, likeliest=self.likeliest, watch=watch)

    def nothing(self, tasks: int, replicas: int) -> Posterior:
        """What is known before anything has been seen, in `(T, E)` places."""
        return Posterior.empty((tasks, replicas, self.networks.latent), device_of(self.params))

    @plain_torch()
    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Mean return of each of `budget.steps` + 1 episodes of a trial, over `budget.episodes` fresh trials a task."""
        key = Key(seed)(STREAM, "evaluate")
        size = max(1, EVALUATION_STEPS // (budget.episodes * self.family.horizon))
        values, steps = [], []
        for i in range(0, len(tasks), size):
            some = tasks[i : i + size]
            env = self.family.make_vec(some, budget.episodes, threads=self.threads)
            known = self.nothing(len(some), budget.episodes)
            returns, lengths = [], []
            for k in range(budget.steps + 1):
                episodes = self.episode(env, known, key(k))
                if k < budget.steps:
                    known = known.times(self.infer(episodes))
                returns.append(episodes.returns().mean(1))
                lengths.append(episodes.lengths().double().mean(1))
            env.close()
            values.append(torch.stack(returns, 1).numpy())
            steps.append(torch.stack(lengths, 1).cumsum(1).numpy())
        how = ", most likely actions" if self.likeliest else ""
        return Scores(
            values=np.concatenate(values),
            gradient_steps=None,
            env_steps=mean_steps(np.concatenate(steps)[:, :-1]),
            shots=None,
            kind="return",
            protocol=f"infers the task from an episode a step, the first by the prior{how}; "
            f"{budget.episodes} fresh trials a score",
        )

    @plain_torch()
    def film(self, task: Tasks, budget: Budget, seed: int) -> list[Recording]:
        """The first episode of a trial, by the prior, and the last."""
        key, recordings = Key(seed)(STREAM, "film"), []
        env, known = self.family.make_vec(task, 1), self.nothing(1, 1)
        for k in range(budget.steps + 1):
            recorder = Recorder()
            known = known.times(self.infer(self.episode(env, known, key(k), watch=recorder)))
            if k in (0, budget.steps):
                after = f"after {k} episode{'s' if k > 1 else ''}" if k else "by the prior"
                recordings.append(recorder.cut(f"{after}, z as inferred"))
        env.close()
        return recordings

    @plain_torch()
    def adapt(self, where: Where, steps: int | None = None, *, episodes: int = 40, seed: int = 0) -> AdaptedLatent:
        """The policy after `steps` episodes of exploration, 2 by default; see `Acts.adapt`.

        An episode is a step, so `episodes` has no meaning here.
        """
        steps = STEPS if steps is None else steps
        check_counts(steps)
        at, key, known = place(self.family, where), Key(seed)(STREAM, "adapt"), self.nothing(1, 1)
        returns: list[float] = []
        env_steps = 0
        for k in range(steps):
            z, rng = self._drawn(known, key("z", k)), key("action", k).numpy()

            def act(obs: Tensor, episode: int, t: int, z: Tensor = z, rng: np.random.Generator = rng) -> Tensor:
                distribution = self.networks.act(self._policy, obs.to(z.device), z.expand(1, 1, -1))
                noise = torch.from_numpy(rng.standard_normal((1, 1, self.networks.action), dtype="float32"))
                drawn = distribution.mode() if self.likeliest else distribution.sample(noise.to(z.device))
                return drawn.cpu()

            with torch.no_grad(), intra_op_threads(1):
                seen = episodes_in(at, act, 1, key("start", k))
            known = known.times(self.infer(seen))
            returns.append(float(seen.returns()))
            env_steps += int(seen.lengths())
        cost = {"steps": steps, "env_steps": env_steps, "returns": tuple(returns)}
        z = self._drawn(known, key("z", steps))
        return AdaptedLatent(at, self.networks, self._policy, z, key("act"), **cost)

    def unadapted(self) -> AdaptedLatent:
        """The policy with a latent vector drawn from the prior."""
        key, where = Key(0)(STREAM, "unadapted"), Place(self.family, None, None)
        return AdaptedLatent(where, self.networks, self._policy, self._drawn(self.nothing(1, 1), key("z")), key("act"))

    def _drawn(self, known: Posterior, key: Key) -> Tensor:
        """One latent vector `(L,)` from what is known of one task."""
        noise = torch.from_numpy(key.numpy().standard_normal((1, 1, self.networks.latent), dtype="float32"))
        return known.sample(noise.to(device_of(self.params)))[0, 0]

    def validation_metrics(self, count: int, seed: int) -> dict[str, float]:
        """Mean returns by the prior and after 1 and 2 episodes, a trial on each of so many validation tasks."""
        scores = self.curve(self.family.fixed("validation", count), Budget(STEPS, 1), seed)
        return {f"return/validation_{k}": float(value) for k, value in enumerate(scores.values.mean(0))}
