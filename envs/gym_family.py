"""A task family over environments of your own: anything a Gymnasium constructor makes.

    @dataclass(frozen=True)
    class Pendulums(GymFamily):
        name = "mine/Pendulums-v0"
        presets = ("mine",)
        horizon = 200
        preset: str = "mine"

        def draw(self, n, uniform, split):
            low, high = (12.0, 15.0) if split == "ood" else (5.0, 12.0)
            return Tasks({"gravity": low + (high - low) * uniform((n,))})

        def build(self, task):
            return gymnasium.make("Pendulum-v1", g=float(task["gravity"]))

Every learner takes such a family. The environments are stepped one by one in Python, so this is for
convenience; the speed of the built-in families comes from stepping all of them at once.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from metarl.learner import UserError
from metarl.tasks import Array, Task, TaskFamily, Tasks, TaskVectorEnv


@dataclass(frozen=True)
class GymFamily(TaskFamily):
    """A family whose environments are built one a task; see the module for an example.

    Continuous actions are in units of the bound, as everywhere: -1 and 1 are mapped to the
    environment's own bounds. The whole reward is one term, `reward_env`.
    """

    @abstractmethod
    def build(self, task: Task) -> gymnasium.Env[Any, Any]:
        """An environment that runs this task; give it `render_mode="rgb_array"` if pictures are wanted."""

    @cached_property
    def _first(self) -> gymnasium.Env[Any, Any]:
        return self.build(self.fixed("train", 1)[0])

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        """The environments' own."""
        return self._first.observation_space

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """The environments' own if discrete, else a box of its shape between -1 and 1.

        Raises:
            UserError: the environments' actions are neither, or have no bounds.
        """
        space = self._first.action_space
        if isinstance(space, Box) and space.is_bounded():
            return Box(-1.0, 1.0, space.shape, np.float32)
        if isinstance(space, Discrete):
            return space
        raise UserError(f"{self.name}: actions must be a Discrete or a bounded Box, got {space}")

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> GymVectorEnv:
        """All tasks x replicas, stepped one after the other; `threads` cannot help Python environments."""
        return GymVectorEnv(self, tasks, replicas)


class GymVectorEnv(TaskVectorEnv):
    """N environments of a `GymFamily`, stepped one after the other."""

    def __init__(self, family: GymFamily, tasks: Tasks, replicas: int) -> None:
        super().__init__(family, tasks, replicas)
        self._build = family.build
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._obs: Array = np.zeros(0)
        self._built_for: Tasks | None = None
        space = family._first.action_space
        self._bounds = (space.low, space.high) if isinstance(space, Box) else None

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        if not self._envs:
            space = self.single_observation_space
            self._envs = [self._build(task) for task in self.tasks for _ in range(self.replicas)]
            self._obs = np.zeros((self.num_envs, *(space.shape or ())), space.dtype)
        elif self._built_for is not self.tasks:
            for i in np.flatnonzero(mask):  # the others go on, with the task they have
                self._envs[i].close()
                self._envs[i] = self._build(self.tasks[int(i) // self.replicas])
        self._built_for = self.tasks
        for i in np.flatnonzero(mask):
            task, replica = divmod(int(i), self.replicas)
            key = self._key(*self.tasks.place(task), int(self._episodes[i]), replica)
            self._obs[i], _ = self._envs[i].reset(seed=key.integer() % 2**31)
        return self._obs

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=bool)
        for i in np.flatnonzero(~self._ended):
            self._obs[i], rewards[i], terminated[i], truncated, _ = self._envs[i].step(self._own_units(actions[i]))
            if truncated and self.elapsed[i] + 1 < self.family.horizon:
                raise UserError(
                    f"{self.family.name}: an environment truncated its episode after {self.elapsed[i] + 1} steps, but "
                    f"the family's horizon is {self.family.horizon}; lower the horizon or build it without the limit"
                )
        return self._obs, {"reward_env": rewards}, terminated

    def _own_units(self, action: Array) -> Any:
        if self._bounds is None:
            return action
        low, high = self._bounds
        scaled = low + (high - low) * (np.clip(action, -1.0, 1.0) + 1.0) / 2.0
        return scaled.astype(low.dtype)

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """The environment's own picture.

        Raises:
            UserError: it was built without `render_mode="rgb_array"`.
        """
        picture = self._envs[index].render() if self._envs[index].render_mode == "rgb_array" else None
        if picture is None:
            raise UserError(f"{self.family.name} draws nothing: build its environments with render_mode='rgb_array'")
        return np.asarray(picture)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()
        self._envs = []
