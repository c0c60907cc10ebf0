"""The environment that runs a batch of tasks at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl.errors import NonFiniteError, UserError, shown
from metarl.seeding import Key
from metarl.tasks.contract import TERM, Family
from metarl.tasks.data import LARGEST, Array, Tasks, within_float32


class TaskVectorEnv(VectorEnv[Any, Any, Any], ABC):
    """T tasks x E replicas stepped together; environment i runs task i // E.

    >>> family = make_family("metarl/Navigation2D-v0")
    >>> env = family.make_vec(family.fixed("train", 3), replicas=2)
    >>> isinstance(env, TaskVectorEnv), env.reset(seed=0)[0].shape
    (True, (6, 2))
    >>> obs, rewards, terminated, truncated, infos = env.step(np.zeros((6, 2)))
    >>> rewards.shape
    (6,)

    No autoreset: an episode that ends stays ended until `reset(options={"reset_mask": mask})`.
    Stepping an ended environment is allowed and yields reward 0 and no new end. `infos` holds the
    terms of the reward, each `(N,)`; their names, and no others, begin with `reward_`, and they sum to the
    reward. Beside them it may hold what else is known of the moment, arrays `(N,)`, such as MuJoCo's flag
    `unstable` or the infos of an environment of one's own. The tasks are in `tasks`.

    `step` takes actions `(N, *shape)` of the family's action space: integers of a Discrete, finite numbers of a
    Box, which families clip to its bounds. Whatever else it is given, it refuses.

    `reset(seed=s)` starts new keyed streams; a reset without a seed continues them. Options:
    `tasks` (a `Tasks` of the same size, to re-use the environment) and `reset_mask` `(N,)` bool; with
    both, the tasks of the environments that go on must be those they have.

    A copy or a pickle goes on as the original does, step for step.

    Streams are named by the task's place (`Tasks.place`), by how many episodes the row has begun since the streams
    began, and by the replica: a row's luck does not depend on the other tasks, on their number or order, or on when
    their episodes end. It may depend on the number of replicas.

    An observation or a reward that is NaN or infinite (in float32) is an error of the environment: a reset or a
    step that meets one raises NonFiniteError, which names the term, the step and the task.

    A subclass implements `_start` and `_advance`, and may use `task` (its tasks' arrays, repeated
    to N rows), `_noise`, and for streams of its own `_key`, `_episodes` and `_new_streams`.

    Raises:
        UserError: the family's action space is not as `TaskFamily.action_space` says.
        ValueError: the tasks are none of the family's (`TaskFamily.check_tasks`).
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, family: Family, tasks: Tasks, replicas: int) -> None:
        if replicas < 1 or len(tasks) < 1:
            raise ValueError(f"need at least one task and one replica, got {len(tasks)} and {replicas}")
        self.family = family
        self.replicas = replicas
        self.num_envs = len(tasks) * replicas
        self.single_observation_space = family.observation_space
        self.single_action_space = space = family.action_space
        self._action_shape = (self.num_envs, *(space.shape or ()))
        if isinstance(space, Discrete) and space.start == 0:
            self._choices = int(space.n)
        elif isinstance(space, Box) and len(space.shape) == 1 and (space.low == -1).all() and (space.high == 1).all():
            self._choices = 0
        else:
            raise UserError(
                f"{family.name}: its actions are {space}, but learners act in a Discrete that counts from 0 or a flat "
                "Box between -1 and 1; have the family map these to its own (GymFamily does, for most spaces)"
            )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.elapsed = np.zeros(self.num_envs, dtype=np.int64)
        self._ended = np.ones(self.num_envs, dtype=bool)
        self._key = Key(np.random.SeedSequence().generate_state(1, np.uint64).item())
        self._new_streams = True  # whether they begin with this reset
        self._episodes = np.zeros(self.num_envs, dtype=np.int64)  # that rows have begun before, in these streams
        self._set_tasks(tasks)

    @property
    def tasks(self) -> Tasks:
        """The T tasks being run."""
        return self._tasks

    def _set_tasks(self, tasks: Tasks) -> None:
        if len(tasks) * self.replicas != self.num_envs:
            raise ValueError(f"this environment runs {self.num_envs // self.replicas} tasks, got {len(tasks)}")
        self.family.check_tasks(tasks)
        self._tasks = tasks
        self.task = tasks.repeat(self.replicas)

    @abstractmethod
    def _start(self, mask: NDArray[np.bool_]) -> Array:
        """Begin an episode where `mask` `(N,)` is true; return all observations `(N, obs_dim)`."""

    @abstractmethod
    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        """One step: observations `(N, obs_dim)`, terms `(N,)` of the reward by names `reward_...`, terminated `(N,)`.

        The actions are checked: int64 below the number of choices `(N,)`, or finite numbers `(N, A)`, which are
        clipped here to -1 and 1.
        """

    @abstractmethod
    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """A picture `(height, width, 3)` of environment `index`."""

    def _info(self) -> dict[str, Array]:
        """What else is known of the moment, arrays `(N,)` by name, for `infos`; no part of the reward."""
        return {}

    def _checked(self, actions: Array) -> Array:
        """The actions as an array that fits the action space.

        Raises:
            ValueError: they are of another shape or kind, not finite, or none of the choices.
            RuntimeError: nothing has been reset yet.
        """
        if self._new_streams:
            raise RuntimeError("call reset before step")
        actions = np.asarray(actions)
        if actions.shape == self._action_shape:
            if self._choices and actions.dtype.kind in "iu":
                actions = actions.astype(np.int64, copy=False)
                if not np.count_nonzero(actions.view(np.uint64) >= self._choices):  # as unsigned, negatives are large
                    return actions
            elif not self._choices and actions.dtype.kind in "fiu" and np.isfinite(actions).all():
                return actions
        wanted = f"integers from 0 to {self._choices - 1}" if self._choices else "finite numbers"
        raise ValueError(
            f"{self.family.name}: step takes {wanted} of shape {self._action_shape}, got {actions.dtype} of shape "
            f"{actions.shape}: {shown(actions)}"
        )

    def _noise(
        self,
        draw: Callable[[np.random.Generator, tuple[int, ...]], Array],
        shape: tuple[int, ...],
        mask: NDArray[np.bool_],
    ) -> Array:
        """Random numbers `(N, *shape)` for the episodes that begin where `mask` `(N,)` is true; for use in `_start`.

        The other rows are 0.
        """
        noise = np.zeros((len(self.tasks), self.replicas, *shape))
        for episode in np.unique(self._episodes[mask]):
            begun = (mask & (self._episodes == episode)).reshape(-1, self.replicas)
            rows = np.flatnonzero(begun.any(1))
            for t, rng in zip(rows, self.tasks.streams(self._key(int(episode)), rows), strict=True):
                noise[t][begun[t]] = draw(rng, (self.replicas, *shape))[begun[t]]
        return noise.reshape(self.num_envs, *shape)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new episodes; see the class for `seed` and `options`."""
        options = check_names(options, "tasks", "reset_mask")
        if isinstance(seed, list):
            raise ValueError("give one integer seed: the streams of all environments derive from it")
        if seed is not None:
            self._key, self._new_streams = Key(seed)("env"), True
            self._episodes[:] = 0
        mask, tasks = options.get("reset_mask"), options.get("tasks")
        if mask is None:
            mask = np.ones(self.num_envs, dtype=bool)
        elif not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask must be a boolean array of shape ({self.num_envs},), got {mask!r}")
        if tasks is not None:
            if len(tasks) == len(self.tasks) and not mask.all():
                new = tasks.repeat(self.replicas)
                if any((new[name][~mask] != old[~mask]).any() for name, old in self.task.items()):
                    raise ValueError("tasks differ where reset_mask is false: a row that goes on keeps its task")
            self._set_tasks(tasks)
        self.elapsed[mask] = 0
        self._ended[mask] = False
        obs = np.array(self._start(mask))
        self._new_streams = False
        self._episodes += mask
        if not within_float32(obs):
            raise self._not_finite({"an observation": obs})
        return obs, self._info()

    def step(
        self, actions: Array
    ) -> tuple[Array, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step of every environment: observations, rewards, terminated, truncated, infos; see the class."""
        obs, terms, terminated = self._advance(self._checked(actions))
        self.elapsed += 1
        truncated = (self.elapsed >= self.family.horizon) & ~terminated
        if self._ended.any():
            live = ~self._ended
            terms = {name: np.where(live, values, 0.0) for name, values in terms.items()}
            terminated &= live
            truncated &= live
        self._ended |= terminated | truncated
        rewards = np.zeros(self.num_envs)
        for name, values in terms.items():
            if not name.startswith(TERM):
                raise ValueError(f"{self.family.name}: the names of the reward's terms begin with {TERM}, got {name!r}")
            rewards += values
        if not (within_float32(rewards) and within_float32(obs)):
            raise self._not_finite({**terms, "the reward": rewards, "an observation": obs})
        return np.array(obs), rewards, terminated, truncated, {**terms, **self._info()}

    def _not_finite(self, numbers: Mapping[str, Array]) -> NonFiniteError:
        """The error of the first of some numbers, each `(N, ...)`, that are not all finite."""
        name, values = next((name, values) for name, values in numbers.items() if not within_float32(values))
        rows = values.reshape(self.num_envs, -1)
        row, column = np.argwhere(~(np.abs(rows) <= LARGEST))[0]
        place = f" (number {column} of it)" if values.ndim > 1 else ""
        return self.non_finite(f"{name}{place} of {self.family.name} is {rows[row, column]}", row, environment=True)

    def non_finite(self, what: str, row: int, *, environment: bool = False) -> NonFiniteError:
        """The error of a number that is not finite, with the step and the task of row `row`.

        Args:
            what: which number is what.
            row: in 0..N-1.
            environment: whether the environment gave it, not whoever acts.
        """
        t, steps = int(row) // self.replicas, int(self.elapsed[row])
        when = f"in step {steps} of an episode" if steps else "at the start of an episode"
        return NonFiniteError(
            f"{what} {when}",
            tasks=[int(self.tasks.indices[t])],
            of=len(self.tasks),
            task=self.tasks[[t]].arrays,
            data={"episode": int(row) % self.replicas, "step": steps},
            environment=environment,
            row=int(row),
        )


def check_names(options: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    """The options of a reset; ValueError if any has another name."""
    options = options or {}
    if unknown := sorted(set(options) - set(names), key=str):
        raise ValueError(f"reset knows the options {', '.join(names)}, got {', '.join(map(str, unknown))}")
    return options
