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

What an environment is given is a member of its own action space; what it gives is checked against its own
observation space. An environment that does otherwise is refused in one line that names the task, as is one that
answers with a number that is not finite (`NonFiniteError`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray

from metarl.errors import UserError, shown
from metarl.tasks import TERM, Array, Task, TaskFamily, Tasks, TaskVectorEnv
from metarl.tasks.spaces import MOST_CHOICES, member, offered

TAKEN = ("unstable", "task")  # names in infos that mean something here, as those that begin with `TERM` do


@dataclass(frozen=True)
class GymFamily(TaskFamily):
    """A family whose environments are built one a task; see the module for an example.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Pendulums(GymFamily):
    ...     name = "mine/Pendulums-v0"
    ...     presets = ("mine",)
    ...     horizon = 100
    ...     preset: str = "mine"
    ...
    ...     def draw(self, n, uniform, split):
    ...         return Tasks({"gravity": 5.0 + 7.0 * uniform((n,))})
    ...
    ...     def build(self, task):
    ...         return gymnasium.make("Pendulum-v1", g=float(task["gravity"]))
    >>> Pendulums().make_vec(Pendulums().fixed("test", 2)).num_envs
    2

    Continuous actions are in units of the bound, as everywhere: -1 and 1 are mapped to the
    environment's own bounds. The whole reward is one term, `reward_env`. The environment's infos are passed on under
    their own names, with `env_` in front of those that mean something else here (`reward_...`, `unstable`, `task`).
    """

    @abstractmethod
    def build(self, task: Task) -> gymnasium.Env[Any, Any]:
        """A new environment that runs this task; give it `render_mode="rgb_array"` if pictures are wanted."""

    def built(self, task: Task) -> gymnasium.Env[Any, Any]:
        """What `build` returns.

        Raises:
            UserError: it raises, or returns no environment.
        """
        try:
            env = self.build(task)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self.name}: build raised {_line(error)}, for the task {shown(task)}") from error
        if not isinstance(env, gymnasium.Env):
            raise UserError(f"{self.name}: build must return a gymnasium.Env, got {shown(env)}")
        return env

    @cached_property
    def _first(self) -> gymnasium.Env[Any, Any]:
        return self.built(self.fixed("train", 1)[0])

    def __getstate__(self) -> dict[str, Any]:
        """The fields; a copy builds its first environment anew."""
        return {name: value for name, value in self.__dict__.items() if name != "_first"}

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        """The environments' own.

        Raises:
            UserError: their observations are no arrays.
        """
        space = self._first.observation_space
        if not isinstance(space, (Box, Discrete, MultiDiscrete, MultiBinary)):
            raise UserError(
                f"{self.name}: observations must be arrays, got {space}; gymnasium.wrappers.FlattenObservation makes "
                "one of them"
            )
        return space

    @property
    def action_space(self) -> Box | Discrete:
        """See `offered` and `member`: a Discrete that counts from 0, or a flat Box between -1 and 1.

        Raises:
            UserError: the environments' actions are of another kind, have no bounds, or too many choices.
        """
        own = self._first.action_space
        space = offered(own)
        if space is None:
            raise UserError(
                f"{self.name}: actions must be a Discrete, a bounded Box, or a MultiDiscrete or MultiBinary of at most "
                f"{MOST_CHOICES} choices, got {own}"
            )
        return space

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> GymVectorEnv:
        """All tasks x replicas, stepped one after the other; `threads` cannot help Python environments."""
        return GymVectorEnv(self, tasks, replicas)


def _line(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class GymVectorEnv(TaskVectorEnv):
    """N environments of a `GymFamily`, stepped one after the other.

    In `infos`, what every environment gives as a number is an array of numbers `(N,)`; anything else is an array
    `(N,)` of objects, None where an environment does not give it. An ended episode keeps its last infos.
    """

    family: GymFamily

    def __init__(self, family: GymFamily, tasks: Tasks, replicas: int) -> None:
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._obs: Array = np.zeros(0)
        self._built_for: Tasks | None = None
        super().__init__(family, tasks, replicas)
        self._infos: list[dict[str, Any]] = [{}] * self.num_envs

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        if not self._envs:
            space = self.single_observation_space
            self._envs = [self._make(i) for i in range(self.num_envs)]
            self._obs = np.zeros((self.num_envs, *(space.shape or ())), space.dtype)
        elif self._built_for is not self.tasks:
            for i in np.flatnonzero(mask).tolist():  # the others go on, with the task they have
                self._envs[i].close()
                self._envs[i] = self._make(i)
        if self._built_for is not self.tasks:
            self._check_apart()
        self._built_for = self.tasks
        for i in np.flatnonzero(mask).tolist():
            task, replica = divmod(i, self.replicas)
            key = self._key(*self.tasks.place(task), int(self._episodes[i]), replica)
            obs, self._infos[i] = self._ask(i, "reset", 2, seed=key.integer() % 2**31)
            self._observe(i, obs)
        return self._obs

    def _make(self, i: int) -> gymnasium.Env[Any, Any]:
        env, first = self.family.built(self._task(i)), self.family._first
        for what in ("observation_space", "action_space"):
            own, common = getattr(env, what), getattr(first, what)
            if own != common:
                raise UserError(
                    f"{self.family.name}: the tasks of a family share their spaces, but {what} is {own} in the task "
                    f"{shown(self._task(i))} and {common} in the first one"
                )
        return env

    def _check_apart(self) -> None:
        apart = {id(env.unwrapped) for env in (self.family._first, *self._envs)}
        if len(apart) <= len(self._envs):
            raise UserError(
                f"{self.family.name}: build returned one and the same environment more than once, which would run the "
                "last task for all; have it make a new one every time"
            )

    def _task(self, i: int) -> Task:
        task: Task = self.tasks[i // self.replicas]
        return task

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=bool)
        for i in np.flatnonzero(~self._ended).tolist():
            action = member(self._envs[i].action_space, actions[i])
            obs, reward, terminated[i], truncated, self._infos[i] = self._ask(i, "step", 5, action)
            rewards[i] = self._reward(i, reward)
            self._observe(i, obs)
            if truncated and self.elapsed[i] + 1 < self.family.horizon:
                raise UserError(
                    f"{self.family.name}: an environment truncated its episode after {self.elapsed[i] + 1} steps, but "
                    f"the family's horizon is {self.family.horizon}; lower the horizon or build it without the limit"
                )
        return self._obs, {"reward_env": rewards}, terminated

    def _ask(self, i: int, what: str, size: int, *args: Any, **options: Any) -> Any:
        """What environment i answers to `reset` or `step`, `size` things."""
        try:
            answer = getattr(self._envs[i], what)(*args, **options)
        except UserError:
            raise
        except Exception as error:
            raise self._refusal(i, f"{what} raised {_line(error)}") from error
        if not isinstance(answer, tuple) or len(answer) != size or not isinstance(answer[-1], dict):
            raise self._refusal(
                i, f"{what} must return {size} things, the last a dict (Gymnasium's API), got {shown(answer)}"
            )
        return answer

    def _reward(self, i: int, reward: Any) -> float:
        try:
            return float(reward)
        except (TypeError, ValueError):
            raise self._refusal(i, f"the reward must be a number, got {shown(reward)}") from None

    def _observe(self, i: int, obs: Any) -> None:
        space, values = self.single_observation_space, np.asarray(obs)
        if values.shape != space.shape or not np.can_cast(values.dtype, self._obs.dtype, "same_kind"):
            got = f"{values.dtype} of shape {values.shape}"
            raise self._refusal(i, f"the observation is {got}, but the observation space is {space}")
        self._obs[i] = values

    def _refusal(self, i: int, what: str) -> UserError:
        return UserError(
            f"{self.family.name}: {what}, in step {self.elapsed[i] + 1} of the task {shown(self._task(i))}"
        )

    def _info(self) -> dict[str, Array]:
        return {
            f"env_{name}" if name.startswith(TERM) or name in TAKEN else name: _column(
                [info.get(name) for info in self._infos]
            )
            for name in dict.fromkeys(str(name) for info in self._infos for name in info)
        }

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """The environment's own picture.

        Raises:
            UserError: it was built without `render_mode="rgb_array"`, cannot draw here, or gives no picture.
        """
        if self._envs[index].render_mode != "rgb_array":
            raise UserError(f"{self.family.name} draws nothing: build its environments with render_mode='rgb_array'")
        try:
            picture = np.asarray(self._envs[index].render())
        except Exception as error:
            raise self._refusal(index, f"render raised {_line(error)}") from error
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 or not picture.size:
            got = f"{picture.dtype} of shape {picture.shape}"
            raise self._refusal(index, f"render must return a picture, uint8 of shape (height, width, 3), got {got}")
        return picture

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()
        self._envs = []


def _column(values: list[Any]) -> Array:
    """One info of every environment `(N,)`."""
    if all(isinstance(value, (bool, int, float, np.bool_, np.number)) for value in values):
        return np.array(values)
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        column[i] = value
    return column
