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
from scipy.special import gammaincinv, ndtri

from metarl.envs.chart import BLUE, INK, PATH, Chart
from metarl.envs.episode_noise import EpisodeNoise, renewed
from metarl.tasks import Array, TaskFamily, Tasks, TaskVectorEnv, Uniform

REWARD_MEAN, REWARD_SCALE = 1.0, 1.0  # the prior of a mean reward; the noise around it is standard normal
OOD_CONCENTRATION = 0.25
SUM_SLACK = 1e-6  # of rows of probabilities, which are rounded when frozen
RING, FITS = (4, 4, 356, 356), 9  # pixels: where a picture's states lie, and the least radius that holds a number
MOST_NUMBERS, MOST_STEPS = 1_000_000, 1_000_000  # of a task's transitions (8 MB), and of a trial
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
        if self.states**2 * self.actions > MOST_NUMBERS or self.steps * self.episodes > MOST_STEPS:
            raise ValueError(
                f"{self.name} holds states x actions x states of at most {MOST_NUMBERS:,} and steps x episodes of at "
                f"most {MOST_STEPS:,}, got {self.options()}"
            )

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
        self._last: tuple[Array, Array, Array] | None = None  # states left, actions and rewards, for pictures

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
        left = self.state
        pair = self._first + left * self.family.actions + actions
        rewards = self._mean.take(pair) + self._reward_noise[self._clock]
        self.state = (self._cumulative.take(pair, axis=0) <= self._transition_noise[self._clock]).argmin(
            -1
        )  # the first above
        self._clock = (self._clock + 1) % self.family.steps
        self._last = left, actions, rewards
        return self._observe(), {"reward_state_action": rewards}, np.zeros(self.num_envs, dtype=bool)

    def _observe(self) -> Array:
        observed: NDArray[np.float64] = self._one_hot.take(self.state, axis=0)
        return observed

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """The states on a circle, darker where the best action pays more; the state in blue, the last step an arrow."""
        states, here = self.family.states, int(self.state[index])
        best = self.task["reward"][index].max(-1)
        shade = (best - best.min()) / max(float(np.ptp(best)), 1e-12)
        angle = 2 * np.pi * np.arange(states) / states
        places = np.stack([np.sin(angle), np.cos(angle)], -1)
        chart = Chart((-1.2, 1.2), (-1.2, 1.2), RING)
        radius = min(20.0, 0.4 * np.pi * (RING[2] - RING[0]) / 2.4 / states)
        for state, place in enumerate(places):
            grey = int(235 - 195 * shade[state])
            chart.dot(place, radius + 4 * (state == here), BLUE if state == here else PATH)
            chart.dot(place, radius - 1, f"#{grey:02x}{grey:02x}{grey:02x}")
            if radius >= FITS:
                chart.text(chart.at(place), str(state), "white" if grey < 128 else INK, "mm", 15)
        entries = [("state", str(here), BLUE)]
        if self._last is not None and self.elapsed[index]:
            left, action, reward = (int(self._last[0][index]), int(self._last[1][index]), self._last[2][index])
            chart.arrow(places[left], places[here], BLUE, radius + 4)
            entries += [("left", f"{left}", ""), ("by action", f"{action}", ""), ("reward", f"{reward:+.2f}", "")]
        entries += [("pays least", f"{best.min():+.2f}", "#ebebeb"), ("pays most", f"{best.max():+.2f}", "#282828")]
        chart.key(entries)
        return chart.picture()
