"""Behaviours that do not change with experience, and how they are judged.

None of them adapts, so their K + 1 scores are K + 1 independent measurements of one number.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.errors import UserError
from metarl.learning.acting import Acts, Adapted, check_counts
from metarl.learning.contract import Budget, Scores
from metarl.learning.places import Place, Where, place
from metarl.parallel import intra_op_threads
from metarl.sampling.rollout import run_episodes
from metarl.seeding import Key
from metarl.tasks import Array, TaskFamily, Tasks

BATCH = 2_000_000  # environment steps held in memory at once
Controller = Callable[[Array, int], Array]  # observations (T, E, obs_dim) and time to actions (T, E, ...)


@dataclass(frozen=True)
class Fixed(Acts):
    """A behaviour that does not change with experience.

    Attributes:
        told: whether it is told the task, and so needs to know it.
        family: where it acts.
        stream: names its streams of start states and actions.
        manner: how it behaves, for the protocol of a curve.
    """

    stream: ClassVar[tuple[str, ...]] = ("baseline",)
    manner: ClassVar[str] = "no adaptation"
    told: ClassVar[bool] = False

    family: TaskFamily

    def __post_init__(self) -> None:
        if not isinstance(self.family, TaskFamily):
            raise UserError(f"{type(self).__name__} acts in environments, and {self.family!r} has none; give a family")

    @abstractmethod
    def controller(self, tasks: Tasks, episodes: int, key: Key) -> Controller:
        """How to act on T tasks in `episodes` episodes each.

        Args:
            tasks: T tasks.
            episodes: E.
            key: names its own streams; a task's by its place, `tasks.streams(key)`.

        Raises:
            UserError: the family does not allow it.
        """

    @property
    def acts_in(self) -> TaskFamily:
        """The family in whose environments it acts."""
        return self.family

    def seen(self, obs: Array, tasks: Tasks) -> Array:
        """What the controller is shown for observations `(N, obs_dim)` of one task's environments (`acts_in`)."""
        return obs

    def adapt(self, where: Where, steps: int | None = None, *, episodes: int = 40, seed: int = 0) -> FixedOnTask:
        """The same behaviour on a task, whatever the steps: none are taken, nothing is consumed. See `Acts.adapt`."""
        check_counts(steps or 0, episodes)
        at = place(self.acts_in, where)
        if self.told and at.tasks is None:
            raise UserError(
                f"{type(self).__name__} is told the task, which this environment does not say: give the task, or an "
                "environment of family.make(task)"
            )
        return FixedOnTask(self, at, Key(seed)(*self.stream, "act"))

    def unadapted(self) -> FixedOnTask:
        """The behaviour where no task is known.

        Raises:
            UserError: it is told the task.
        """
        if self.told:
            raise UserError(
                f"{type(self).__name__} is told the task: call adapt(task) first, and predict with the result"
            )
        return FixedOnTask(self, Place(self.acts_in, None, None), Key(0)(*self.stream, "act"))

    @plain_torch()
    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Mean undiscounted return over `budget.episodes` fresh episodes a task, K + 1 times.

        Args:
            tasks: T tasks of the family.
            budget: K and the episodes that judge each score.
            seed: names the streams of start states and actions.

        Returns:
            Scores `(T, K+1)`; nothing is consumed.
        """
        key = Key(seed)(*self.stream)
        columns = [self._returns(tasks, budget.episodes, key(k)) for k in range(budget.steps + 1)]
        return Scores(
            values=np.stack(columns, axis=1),
            gradient_steps=None,
            env_steps=None,
            shots=None,
            kind="return",
            protocol=f"{self.manner}; {budget.episodes} fresh episodes a score",
        )

    def _returns(self, tasks: Tasks, episodes: int, key: Key) -> Array:
        """Mean return of every task, `(T,)`, in batches that fit into memory."""
        size = max(1, BATCH // (episodes * self.family.horizon))
        parts = []
        for start in range(0, len(tasks), size):
            batch = tasks[start : start + size]
            control = self.controller(batch, episodes, key("action"))
            env = self.family.make_vec(batch, episodes)
            with torch.no_grad(), intra_op_threads(1):
                parts.append(run_episodes(env, _on_tensors(control), key).returns().mean(1).numpy())
            env.close()
        return np.concatenate(parts)


class FixedOnTask(Adapted):
    """A behaviour on one task.

    Its state says how far each row has come in which episode, since a controller is made for an episode.
    """

    def __init__(self, behaviour: Fixed, where: Place, key: Key) -> None:
        super().__init__(where)
        self._behaviour = behaviour
        self._tasks = behaviour.family.fixed("train", 1) if where.tasks is None else where.tasks
        self._key = key
        self._begun = 0  # episodes, by any row

    @plain_torch()
    def _act(
        self, obs: Array, state: Any, starts: NDArray[np.bool_], rewards: Array | None, deterministic: bool
    ) -> tuple[Array, Any]:
        rows: list[tuple[Controller | None, int]] = [(None, 0)] * len(obs) if state is None else list(state)
        seen, horizon, actions = self._behaviour.seen(obs, self._tasks), self._family.horizon, []
        if len(rows) != len(obs):
            raise UserError(f"the state is of {len(rows)} observations, got {len(obs)}")
        for i in range(len(obs)):
            control, t = rows[i]
            if control is None or starts[i] or t == horizon:
                control, t = self._behaviour.controller(self._tasks, 1, self._key(self._begun)), 0
                self._begun += 1
            rows[i] = control, t + 1
            actions.append(control(seen[i][None, None].astype(np.float32), t)[0, 0])
        return np.stack(actions), tuple(rows)


def _on_tensors(control: Controller) -> Callable[[Tensor, int], Tensor]:
    return lambda obs, t: torch.from_numpy(np.array(control(obs.numpy(), t)))
