"""Any family with the task in the observation: what an agent that need not find out is shown.

    family = TaskObserved(family=make_family("metarl/HalfCheetahVelocity-v0"))

The observation is `[observation, task]`, the task's arrays flattened in the order of their names, each number
less its mean over the family's frozen training tasks and divided by its standard deviation there. So the
normalisation belongs to the family, and needs storing nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from metarl.envs.wrappers.wrapper import FamilyWrapper, split_infos
from metarl.errors import UserError
from metarl.tasks import Array, TaskFamily, Tasks, TaskVectorEnv

TASKS = 1000  # frozen training tasks behind the normalisation


def flat(tasks: Tasks) -> NDArray[np.float64]:
    """The tasks as vectors `(T, D)`."""
    parts = [values.reshape(len(tasks), -1) for values in tasks.arrays.values()]
    return np.concatenate(parts, axis=1).astype(np.float64)


@cache
def _moments(family: TaskFamily) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = flat(family.fixed("train", TASKS))
    deviation = known.std(0)
    return known.mean(0), np.where(deviation > 0, deviation, 1.0)


@dataclass(frozen=True)
class TaskObserved(FamilyWrapper):
    """The same tasks as a family's, shown.

    Attributes:
        family: whose tasks they are. Box observations of one axis.

    Raises:
        UserError: the family's observations are of another kind.
    """

    name: ClassVar[str] = "metarl/TaskObserved"
    presets: ClassVar[tuple[str, ...]] = ("normalised",)

    preset: str = "normalised"

    def __post_init__(self) -> None:
        super().__post_init__()
        obs = self.family.observation_space
        if not isinstance(obs, Box) or len(obs.shape) != 1:
            raise UserError(f"{self.family.name}: a task can be shown beside flat Box observations only, got {obs}")

    def shown(self, tasks: Tasks) -> NDArray[np.float64]:
        """What is shown of T tasks, `(T, D)`: mean 0 and deviation 1 over the training tasks."""
        mean, deviation = _moments(self.family)
        return (flat(tasks) - mean) / deviation

    @property
    def horizon(self) -> int:
        """The family's."""
        return self.family.horizon

    @property
    def observation_space(self) -> Box:
        """`(obs_dim + D,)`."""
        inner = self.family.observation_space
        assert isinstance(inner, Box)
        unbounded = np.full(len(_moments(self.family)[0]), np.inf)
        return Box(
            np.concatenate([inner.low, -unbounded]).astype(np.float64),
            np.concatenate([inner.high, unbounded]).astype(np.float64),
            dtype=np.float64,
        )

    def optimal_policy(self, tasks: Tasks) -> Callable[[Array], Array] | None:
        """The family's, which looks at its own part of the observation."""
        inner, size = self.family.optimal_policy(tasks), self.family.observation_space.shape
        return inner and (lambda obs: inner(obs[..., : size[0] if size else 0]))

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> TaskObservedVectorEnv:
        """All tasks x replicas."""
        return TaskObservedVectorEnv(self, tasks, replicas, self.family.make_vec(tasks, replicas, threads=threads))


class TaskObservedVectorEnv(TaskVectorEnv):
    """N environments that show their tasks.

    Attributes:
        inner: the environment that does not.
    """

    family: TaskObserved

    def __init__(self, family: TaskObserved, tasks: Tasks, replicas: int, inner: TaskVectorEnv) -> None:
        self.inner = inner
        super().__init__(family, tasks, replicas)
        self._inner_info: dict[str, Array] = {}

    def _set_tasks(self, tasks: Tasks) -> None:
        super()._set_tasks(tasks)
        self.inner._set_tasks(tasks)
        self._shown = np.repeat(self.family.shown(tasks), self.replicas, axis=0)

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        seed = self._key("inner").integer() if self._new_streams else None
        obs, self._inner_info = self.inner.reset(seed=seed, options={"reset_mask": mask})
        return np.concatenate([obs, self._shown], axis=1)

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        obs, _, terminated, _, infos = self.inner.step(actions)
        terms, self._inner_info = split_infos(infos)
        return np.concatenate([obs, self._shown], axis=1), terms, terminated

    def _info(self) -> dict[str, Array]:
        return self._inner_info

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """The inner environment's picture."""
        return self.inner.render_frame(index)

    def close_extras(self, **kwargs: Any) -> None:
        """Release the inner environment."""
        self.inner.close()
