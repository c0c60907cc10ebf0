"""Multi-armed bandits: pull an arm, get a reward, find out which arm is best before the pulls run out.

Sources, one a preset:

- Bernoulli arms, `duan2016` (Duan et al. 2016, RL²): k arms that pay 1 with probability p ~ U[0, 1], n pulls.
- Gaussian arms, `testbed` (Sutton and Barto's testbed): means N(0, 1), unit noise, n pulls.

A pull is a step and the n pulls of a task are one episode, so a trial is one episode. The observation
is a constant zero: all there is to know is in the previous action and reward (`metarl.envs.wrappers.trials`).

The `ood` split draws each task from one of two other priors, with equal chance: Bernoulli arms from
Beta(1/2, 1/2) or U[.4, .6], Gaussian means from N(0, .3²) or N(0, 3²).
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from scipy.special import ndtri

from metarl.envs.chart import BLUE, GREEN, INK, PATH, Chart, bar_scale
from metarl.envs.episode_noise import EpisodeNoise, renewed
from metarl.tasks import Array, TaskFamily, Tasks, TaskVectorEnv, Uniform

NARROW = (0.4, 0.6)  # ood Bernoulli arms that are hard to tell apart
SCALES = (0.3, 3.0)  # ood standard deviations of Gaussian means
MEANS, PULLS = (44, 50, 470, 190), (44, 222, 470, 324)  # boxes of a picture's two charts, pixels
MOST_ARMS, MOST_PULLS = 10_000, 1_000_000  # a thousand frozen tasks, or an episode, are then under 100 MB
HALF_STEP = 2.0**-54  # lifts uniform numbers off 0, where the normal quantile is infinite


@dataclass(frozen=True)
class Bandit(TaskFamily):
    """k arms, n pulls; a task is `{"mean": (k,)}`, the expected reward of each arm.

    Attributes:
        arms: k, 2 to 10,000.
        pulls: n, the steps of an episode, 1 to 1,000,000.
    """

    episodes: ClassVar[int] = 1  # a trial is one episode
    likelihood: ClassVar[str]  # "bernoulli" or "gaussian"

    arms: int = 5
    pulls: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.arms <= MOST_ARMS and 1 <= self.pulls <= MOST_PULLS):
            raise ValueError(
                f"{self.name} needs 2 to {MOST_ARMS:,} arms and 1 to {MOST_PULLS:,} pulls, "
                f"got {self.arms} and {self.pulls}"
            )

    @property
    def horizon(self) -> int:
        """The number of pulls."""
        return self.pulls

    @property
    def observation_space(self) -> Box:
        """A constant zero `(1,)`."""
        return Box(0.0, 1.0, (1,), np.float64)

    @property
    def action_space(self) -> Discrete:
        """Which arm to pull."""
        return Discrete(self.arms)

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> BanditVectorEnv:
        """All tasks x replicas, stepped in NumPy; `threads` has nothing to speed up here."""
        return BanditVectorEnv(self, tasks, replicas)

    def optimal_policy(self, tasks: Tasks) -> Callable[[Array], Array] | None:
        """The best arm, always."""
        best = tasks.arrays["mean"].argmax(1)[:, None]
        return lambda obs: np.broadcast_to(best, obs.shape[:2])

    @abstractmethod
    def draw_noise(self, noise: EpisodeNoise, episode: int) -> Array:
        """The random numbers of an episode, `(pulls, N)`."""

    @abstractmethod
    def rewards(self, mean: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rewards of arms with these means, `(rows,)`, by the noise drawn for them `(rows,)`."""


@dataclass(frozen=True)
class BernoulliBandit(Bandit):
    """Arms that pay 1 with probability `mean`, else 0."""

    name: ClassVar[str] = "metarl/BernoulliBandit-v0"
    presets: ClassVar[tuple[str, ...]] = ("duan2016",)
    likelihood: ClassVar[str] = "bernoulli"

    preset: str = "duan2016"

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Draw n tasks; `ood` mixes Beta(1/2, 1/2) and U[.4, .6]."""
        u = uniform((n, self.arms))
        if split != "ood":
            return Tasks({"mean": u})
        arcsine = np.sin(np.pi / 2 * u) ** 2
        narrow = NARROW[0] + (NARROW[1] - NARROW[0]) * u
        return Tasks({"mean": np.where(uniform((n, 1)) < 0.5, arcsine, narrow)})

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """Means are probabilities."""
        return {"mean": (0.0, 1.0)}

    def draw_noise(self, noise: EpisodeNoise, episode: int) -> Array:
        """Uniform numbers."""
        return noise.uniform(episode, self.pulls)

    def rewards(self, mean: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 where the uniform number is below the mean."""
        return (drawn < mean).astype(np.float64)


@dataclass(frozen=True)
class GaussianBandit(Bandit):
    """Arms that pay N(mean, 1)."""

    name: ClassVar[str] = "metarl/GaussianBandit-v0"
    presets: ClassVar[tuple[str, ...]] = ("testbed",)
    likelihood: ClassVar[str] = "gaussian"

    preset: str = "testbed"

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Draw n tasks; `ood` mixes means closer together and farther apart."""
        mean = ndtri(uniform((n, self.arms)) + HALF_STEP)
        if split == "ood":
            mean = mean * np.where(uniform((n, 1)) < 0.5, *SCALES)
        return Tasks({"mean": mean})

    def draw_noise(self, noise: EpisodeNoise, episode: int) -> Array:
        """Standard normal numbers."""
        return noise.normal(episode, self.pulls)

    def rewards(self, mean: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean plus a standard normal number."""
        return mean + drawn


class BanditVectorEnv(TaskVectorEnv):
    """N bandits pulled at once.

    The noise of an episode comes in one block (`EpisodeNoise`).
    """

    family: Bandit

    def __init__(self, family: Bandit, tasks: Tasks, replicas: int) -> None:
        super().__init__(family, tasks, replicas)
        self._arm_type = np.min_scalar_type(family.arms)
        self._first = np.arange(self.num_envs) * family.arms  # where a row's means begin
        self._reward_noise = np.zeros((family.pulls, self.num_envs))
        self._clock = 0
        self._pulled: deque[Array] = deque(maxlen=family.pulls)  # arms (N,), for pictures
        self._rewards = np.zeros(self.num_envs)  # of the last pull

    def _set_tasks(self, tasks: Tasks) -> None:
        super()._set_tasks(tasks)
        self._means = self.task["mean"].ravel()
        self._stream: EpisodeNoise | None = None

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        if self._new_streams or self._stream is None:
            key = self._key("luck")  # the word is part of every reward drawn so far
            self._stream = EpisodeNoise(key, self.tasks, self.replicas)
        draw = partial(self.family.draw_noise, self._stream)
        self._reward_noise, self._clock = renewed(self._reward_noise, self._clock, mask, self._episodes, draw)
        return np.zeros((self.num_envs, 1))

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        rewards = self.family.rewards(self._means.take(self._first + actions), self._reward_noise[self._clock])
        self._clock = (self._clock + 1) % self.family.pulls
        self._pulled.append(actions.astype(self._arm_type))
        self._rewards = rewards
        return np.zeros((self.num_envs, 1)), {"reward_pull": rewards}, np.zeros(self.num_envs, dtype=bool)

    def step(
        self, actions: Array
    ) -> tuple[Array, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """As `TaskVectorEnv.step`, with the half of its work done that pulls need (they are that short)."""
        obs, terms, terminated = self._advance(self._checked(actions))
        rewards = terms["reward_pull"]
        if np.count_nonzero(self._ended):
            rewards[self._ended] = 0.0
        self.elapsed += 1
        truncated = self.elapsed == self.family.pulls
        self._ended |= truncated
        return obs, rewards, terminated, truncated, {"reward_pull": rewards.copy()}

    def _arms_pulled(self, index: int) -> NDArray[np.int64]:
        """The arms that environment `index` pulled in this episode, oldest first."""
        pulls = int(min(self.elapsed[index], len(self._pulled)))
        return np.array([arms[index] for arms in list(self._pulled)[len(self._pulled) - pulls :]], dtype=np.int64)

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """Two bars an arm: its mean above, how often it was pulled below; the arm pulled last in blue."""
        mean, pulled = self.task["mean"][index], self._arms_pulled(index)
        counts, arms = np.bincount(pulled, minlength=len(mean)), np.arange(len(mean))
        last = int(pulled[-1]) if len(pulled) else -1
        ends = (-0.5, len(mean) - 0.5)
        means = Chart(ends, bar_scale([0.0, 1.0, *mean]), MEANS)
        means.axes(up="mean reward of each arm", numbers=False)
        pulls = Chart(ends, bar_scale([0, 1, *counts]), PULLS, on=means)
        pulls.axes("arm", "how often it was pulled", whole=True)
        for arm, value, count in zip(arms, mean, counts, strict=True):
            colour = BLUE if arm == last else PATH
            means.bar((arm - 0.42, 0), (arm + 0.42, value), colour)
            pulls.bar((arm - 0.42, 0), (arm + 0.42, count), colour)
            if means.width("+0.00", 14) < (MEANS[2] - MEANS[0]) / len(mean):
                (x, y), (_, below) = means.at((arm, value)), pulls.at((arm, count))
                means.text((x, y - 2 if value >= 0 else y + 3), f"{value:.2f}", INK, "mb" if value >= 0 else "mt", 14)
                pulls.text((x, below - 2), str(count), INK, "mb", 14)
        best = means.at((int(mean.argmax()), 0))[0]
        means.text((best, MEANS[1] + 2), "best", GREEN, "ma")
        said = f"pull {len(pulled)}: arm {last}, reward {self._rewards[index]:.2f}" if len(pulled) else "no pull yet"
        means.text((MEANS[0], 8), said)
        return means.picture()
