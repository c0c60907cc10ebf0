"""One environment of a family, for Gymnasium's own loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from metarl.errors import shown
from metarl.tasks.contract import Family, prototype
from metarl.tasks.data import NUMBERS, Array, Task, Tasks
from metarl.tasks.vector import check_names


class TaskEnv(gymnasium.Env[Any, Any]):
    """One environment of a family: the vector environment with a single row.

    `reset(options={"task": task})` chooses the task; otherwise the task given at construction is
    kept, and without one every reset draws a training task. `info` holds the reward's terms (`reward_...`,
    which sum to the reward), what else the family says of the moment, and the task as `info["task"]`.

    Raises:
        ValueError: a task is none of the family's (`TaskFamily.check_tasks`).
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, family: Family, task: Task | None = None, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r}: choose from {self.metadata['render_modes']} or None")
        self.family = family
        self.render_mode = render_mode
        self.observation_space = family.observation_space
        self.action_space = family.action_space
        self._own = self._checked(task) if task is not None else None
        self.vector = family.make_vec(self._own or prototype(family), 1)

    @property
    def task(self) -> Task:
        """The task being run."""
        task: Task = self.vector.tasks[0]
        return task

    @property
    def keeps_task(self) -> bool:
        """Whether every episode is of the task given at construction, unless a reset asks for another."""
        return self._own is not None

    def _checked(self, task: Any) -> Tasks:
        """A batch of this one task, in the family's types; ValueError if it is not one of the family's."""
        like = prototype(self.family).arrays
        if not isinstance(task, Mapping) or not task:
            raise ValueError(f"a task of {self.family.name} is a mapping with {sorted(like)}, got {shown(task)}")
        try:
            tasks = Tasks({str(name): np.asarray(values)[None] for name, values in task.items()})
        except ValueError as error:
            raise ValueError(f"a task of {self.family.name} holds arrays, got {shown(task)} ({error})") from error
        self.family.check_tasks(tasks)
        arrays = tasks.arrays
        return Tasks({n: v.astype(like[n].dtype) if v.dtype.kind in NUMBERS else v for n, v in arrays.items()})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; `options={"task": ...}` sets its task."""
        super().reset(seed=seed)
        asked = check_names(options, "task").get("task")
        tasks = self._own if asked is None else self._checked(asked)
        if tasks is None:
            tasks = self.family.sample(1, self.np_random)
        obs, infos = self.vector.reset(seed=int(self.np_random.integers(2**62)), options={"tasks": tasks})
        return obs[0].copy(), self._said(infos)

    def _said(self, infos: dict[str, Array]) -> dict[str, Any]:
        task = {name: values.copy() for name, values in self.task.items()}
        return {**{name: values.item(0) for name, values in infos.items()}, "task": task}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; raises RuntimeError before the first reset, ValueError for an action `TaskVectorEnv` refuses."""
        action = np.asarray(action)
        if action.shape != self.action_space.shape:
            raise ValueError(
                f"{self.family.name}: step takes an action of shape {self.action_space.shape}, got {action.dtype} of "
                f"shape {action.shape}: {shown(action)}"
            )
        obs, rewards, terminated, truncated, infos = self.vector.step(action[None])
        return obs[0].copy(), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), self._said(infos)

    def render(self) -> Any:
        """An RGB picture `(height, width, 3)` uint8, or None without a render mode."""
        if self.render_mode is None:
            return None
        return self.vector.render_frame(0)

    def close(self) -> None:
        """Release the vector environment."""
        self.vector.close()
