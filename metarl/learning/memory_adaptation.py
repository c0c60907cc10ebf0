"""Policies that adapt in their memory, within a trial, and how they are judged: by acting, and nothing else.

The score after k bits of adaptation is the return of episode k + 1 of a trial, for which k episodes were
consumed; a bandit's trial is one episode and has one score.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.learning.acting import Acts, check_counts
from metarl.learning.adapted_memory import AdaptedMemory, Estimator
from metarl.learning.contract import Budget, Scores, mean_steps
from metarl.learning.places import Place, Where, place
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.params import Params
from metarl.parallel import intra_op_threads
from metarl.sampling.blocks import Blocks
from metarl.sampling.recording import Recorder, Recording
from metarl.sampling.rollout import Watch
from metarl.sampling.trials import TrialEpisodes, run_trials
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks

EVALUATION_STEPS = 1_000_000  # environment steps held at once when a curve is measured
STREAM = "rl2"  # what the streams of acting are called, for every agent of this kind


class AdaptationWarning(UserWarning):
    """An agent is put to a use that it was not trained for."""


@dataclass(frozen=True)
class MemoryAgent(Acts):
    """A trained memory; an `Adaptable` that acts.

    Attributes:
        policy: what acts.
        params: of the policy, one set.
        family: whose tasks it is put on.
        trials: the same tasks as trials, with observations as `run_trials` says.
        inner: episodes a trial.
        threads: that act, each in a block of the tasks.
        likeliest: take the most likely actions; by default they are drawn, as in training.
    """

    policy: RecurrentPolicy
    params: Params
    family: TaskFamily
    trials: TaskFamily
    inner: int
    threads: int = 1
    likeliest: bool = False

    @plain_torch()
    def act(self, tasks: Tasks, replicas: int, key: Key, watch: Watch | None = None) -> TrialEpisodes:
        """Act in `replicas` trials of each task, each from an empty memory."""
        env = Blocks(self.trials, tasks, replicas, 1 if watch else self.threads)
        with intra_op_threads(1):
            experience = run_trials(
                env, self.policy, self.params, key, inner=self.inner, watch=watch, likeliest=self.likeliest
            )
        env.close()
        return experience

    @plain_torch()
    def adapt(self, where: Where, steps: int | None = None, *, episodes: int = 40, seed: int = 0) -> AdaptedMemory:
        """The memory after `steps` episodes of a trial, by default all but the last; see `Acts.adapt`.

        To act is to adapt, so one episode is a step, and `episodes` has no meaning here. More episodes than a trial
        had in training are allowed, with a warning.
        """
        steps = self.inner - 1 if steps is None else steps
        check_counts(steps)
        if steps >= self.inner:
            warnings.warn(
                f"{self.family.name}: the memory was trained on trials of {self.inner} episodes, and is to act in the "
                f"next after {steps}",
                AdaptationWarning,
                stacklevel=3,
            )
        at, key = place(self.family, where), Key(seed)(STREAM, "adapt")
        fresh = AdaptedMemory(at, self.policy, self.params, key("action"), estimator=self._estimator)
        if not steps:
            return fresh
        return fresh.after_episodes(at, steps, key, likeliest=self.likeliest)

    def validation_metrics(self, count: int, seed: int) -> dict[str, float]:
        """Mean returns, as `return_metrics` says, over a trial of each of so many validation tasks."""
        scores = self.curve(self.family.fixed("validation", count), Budget(0, 1), seed)
        return return_metrics(torch.from_numpy(scores.values.mean(0)), "validation_")

    def unadapted(self) -> AdaptedMemory:
        """The empty memory at the start of a trial."""
        where, key = Place(self.family, None, None), Key(0)(STREAM, "action")
        return AdaptedMemory(where, self.policy, self.params, key, estimator=self._estimator)

    @property
    def _estimator(self) -> Estimator | None:
        """What the trials show beside the rest, where they do."""
        estimator: Estimator | None = getattr(self.trials, "estimator", None)
        return estimator

    def film(self, task: Tasks, budget: Budget, seed: int) -> list[Recording]:
        """The first and the last episode of one trial; a bandit's trial is one episode."""
        recorder = Recorder()
        episodes = self.act(task, 1, Key(seed)(STREAM, "film"), recorder).episodes
        ended = episodes.obs[0, 0, :, -1].bool() & episodes.valid[0, 0]  # the first step of a later episode
        bounds = [0, *torch.nonzero(ended).flatten().tolist(), int(episodes.valid.sum())]
        count = len(bounds) - 1
        return [
            recorder.cut(f"episode {i + 1} of {count}, one trial" if count > 1 else "one trial", *bounds[i : i + 2])
            for i in sorted({0, count - 1})
        ]

    @plain_torch()
    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Mean return of each episode of a trial, over `budget.episodes` fresh trials a task.

        The trial's length is the one trained on, so `budget.steps` has no meaning here.
        """
        key, horizon = Key(seed)(STREAM, "evaluate"), self.trials.horizon
        size = max(1, EVALUATION_STEPS // (budget.episodes * horizon))
        values, consumed, regret, bandit = [], [], [], hasattr(self.family, "likelihood")
        for i in range(0, len(tasks), size):
            experience = self.act(some := tasks[i : i + size], budget.episodes, key)
            values.append(experience.returns().mean(1).numpy())
            consumed.append(experience.steps().double().mean(1).numpy().cumsum(1))
            if bandit:
                regret.append(experience.regret(some).mean(1))
        what = f"{self.inner} episodes" if self.inner > 1 else f"{horizon} steps"
        how = ", most likely actions" if self.likeliest else ""
        return Scores(
            values=np.concatenate(values),
            gradient_steps=None,
            env_steps=mean_steps(np.concatenate(consumed)[:, :-1]),
            shots=None,
            kind="return",
            protocol=f"adapts within a trial of {what}{how}; {budget.episodes} fresh trials a score",
            regret=np.concatenate(regret) if bandit else None,
        )


def return_metrics(by_episode: Tensor, prefix: str = "") -> dict[str, float]:
    """Mean return of a trial, and of its first and last episode where it has more than one.

    Args:
        by_episode: `(inner,)`, mean return of each episode of a trial.
        prefix: of the last part of the metrics' names.
    """
    metrics = {f"return/{prefix}trial": float(by_episode.sum())}
    if len(by_episode) > 1:
        metrics |= {f"return/{prefix}first": float(by_episode[0]), f"return/{prefix}last": float(by_episode[-1])}
    return metrics
