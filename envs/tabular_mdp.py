"""Random tabular Markov decision processes: learn the dynamics and the rewards, and use them.

`duan2016` (Duan et al. 2016, RL², after Osband et al. 2013): 10 states, 5 actions, episodes of 10 steps
from state 0. Each transition row is Dirichlet(1, ..., 1); the reward of (s, a) is N(mean, 1) with mean
N(1, 1), and depends on the state left and not on the state entered.

The observation is the state, one-hot, so that a linear baseline or policy can tell states apart.

The `ood` split has transition rows from Dirichlet(1/4), nearly deterministic ones, and the same rewards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.special import gammaincinv, ndtri

from metarl.envs.episode_noise import EpisodeNoise, renewed
from metarl.tasks import Array, TaskFamily, Tasks, TaskVectorEnv, Uniform

REWARD_MEAN, REWARD_SCALE = 1.0, 1.0  # the prior of a mean reward; the noise around it is standard normal
OOD_CONCENTRATION = 0.25
SUM_SLACK = 1e-6  # of rows of probabilities, which are rounded when frozen
HALF_STEP = 2.0**-54  # lifts uniform numbers off 0, where logarithm and normal quantile are infinite


def dirichlet(u: NDArray[np.float64], concentration: float) -> NDArray[np.float64]:
    """Rows of a symmetric Dirichlet distribution from uniform numbers in [0, 1), along the last axis."""
    u = u + HALF_STEP
    gamma = -np.log(u) if concentration == 1 else gammaincinv(concentration, u)
    rows: NDArray[np.float64] = gamma / gamma.sum(-1, keepdims=True)
    return rows


@dataclass(frozen=True)
class TabularMDP(TaskFamily):
    """A task is `{"transition": (S, A, S), "reward": (S, A)}`: probabilities of the next state, mean rewards.

    Attributes:
        states: S, at least 2.
        actions: A, at least 2.
        steps: the length of an episode.
        episodes: the episodes of a trial, n in the literature's tables.
    """

    name: ClassVar[str] = "metarl/TabularMDP-v0"
    presets: ClassVar[tuple[str, ...]] = ("duan2016",)

    preset: str = "duan2016"
    states: int = 10
    actions: int = 5
    steps: int = 10
    episodes: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.states, self.actions) < 2 or min(self.steps, self.episodes) < 1:
            raise ValueError(f"{self.name} needs states, actions >= 2 and steps, episodes >= 1, got {self.options()}")

    @property
    def horizon(self) -> int:
        """The steps of an episode."""
        return self.steps

    @property
    def observation_space(self) -> Box:
        """The state, one-hot `(S,)`."""
        return Box(0.0, 1.0, (self.states,), np.float64)

    @property
    def action_space(self) -> Discrete:
        """One of A actions."""
        return Discrete(self.actions)

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Draw n MDPs; `ood` ones have nearly deterministic transitions."""
        rows = dirichlet(
            uniform((n, self.states, self.actions, self.states)), OOD_CONCENTRATION if split == "ood" else 1.0
        )
        reward = REWARD_MEAN + REWARD_SCALE * ndtri(uniform((n, self.states, self.actions)) + HALF_STEP)
        return Tasks({"transition": rows, "reward": reward})

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """Transitions are probabilities."""
        return {"transition": (0.0, 1.0)}

    def check_tasks(self, tasks: Tasks) -> None:
        """As of every family; and a state's probabilities of what comes next sum to 1."""
        super().check_tasks(tasks)
        sums = tasks.arrays["transition"].sum(-1)
        if (np.abs(sums - 1) > SUM_SLACK).any():
            raise ValueError(
                f"transition of a task of {self.name} holds probabilities that sum to 1 along the last axis, got sums "
                f"from {sums.min():g} to {sums.max():g}"
            )

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> TabularVectorEnv:
        """All tasks x replicas, stepped in NumPy; `threads` has nothing to speed up here."""
        return TabularVectorEnv(self, tasks, replicas)


class TabularVectorEnv(TaskVectorEnv):
    """N chains stepped at once.

    The noise of an episode comes in two blocks (`EpisodeNoise`), one for the next states and one for the rewards.
    """

    family: TabularMDP

    def __init__(self, family: TabularMDP, tasks: Tasks, replicas: int) -> None:
        super().__init__(family, tasks, replicas)
        self.state = np.zeros(self.num_envs, dtype=np.int64)
        self._one_hot = np.eye(family.states)
        self._transition_noise = np.zeros((family.steps, self.num_envs, 1))  # uniform: chooses the next state
        self._reward_noise = np.zeros((family.steps, self.num_envs), np.float32)  # standard normal
        self._clock = 0

    def _set_tasks(self, tasks: Tasks) -> None:
        super()._set_tasks(tasks)
        pairs = self.family.states * self.family.actions
        cumulative = tasks.arrays["transition"].cumsum(-1).reshape(-1, self.family.states)
        cumulative[:, -1] = np.inf  # whatever the rounding, some state is next
        self._cumulative = cumulative
        self._mean = tasks.arrays["reward"].ravel()
        self._streams: tuple[EpisodeNoise, EpisodeNoise] | None = None
        self._first = np.arange(self.num_envs) // self.replicas * pairs  # where a row's task begins

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        if self._new_streams or self._streams is None:
            keys = self._key("next state"), self._key("reward")
            self._streams = (
                EpisodeNoise(keys[0], self.tasks, self.replicas),
                EpisodeNoise(keys[1], self.tasks, self.replicas),
            )
        transitions, rewards = self._streams
        begins, steps = (self._clock, mask, self._episodes), self.family.steps
        self._transition_noise, _ = renewed(
            self._transition_noise, *begins, lambda episode: transitions.uniform(episode, steps)[..., None]
        )
        self._reward_noise, self._clock = renewed(
            self._reward_noise, *begins, lambda episode: rewards.normal(episode, steps)
        )
        self.state[mask] = 0
        return self._observe()

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        pair = self._first + self.state * self.family.actions + actions
        rewards = self._mean.take(pair) + self._reward_noise[self._clock]
        self.state = (self._cumulative.take(pair, axis=0) <= self._transition_noise[self._clock]).argmin(
            -1
        )  # the first above
        self._clock = (self._clock + 1) % self.family.steps
        return self._observe(), {"reward_state_action": rewards}, np.zeros(self.num_envs, dtype=bool)

    def _observe(self) -> Array:
        observed: NDArray[np.float64] = self._one_hot.take(self.state, axis=0)
        return observed

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """The states on a circle, darker where the best action pays more; the present one ringed in blue.

        The line below is the part of the episode that has passed.
        """
        size, states = 256, self.family.states
        best = self.task["reward"][index].max(-1)
        shade = (best - best.min()) / max(float(np.ptp(best)), 1e-12)
        picture = Image.new("RGB", (size, size), "white")
        pen = ImageDraw.Draw(picture)
        radius = min(20.0, 0.4 * np.pi * 100 / states)
        for state in range(states):
            angle = 2 * np.pi * state / states
            x, y = size / 2 + 100 * np.cos(angle), size / 2 + 100 * np.sin(angle)
            grey = int(230 - 180 * shade[state])
            here = state == self.state[index]
            pen.ellipse(
                (x - radius, y - radius, x + radius, y + radius),
                fill=(grey, grey, grey),
                outline="#1f77b4" if here else "#888888",
                width=5 if here else 1,
            )
        pen.line([(0, size - 2), (size * self.elapsed[index] / self.family.steps, size - 2)], fill="#1f77b4", width=3)
        return np.asarray(picture)
