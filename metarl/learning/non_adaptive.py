"""Behaviours that do not change with experience, and how they are judged.

None of them adapts, so their K + 1 scores are K + 1 independent measurements of one number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.errors import UserError
from metarl.learning.contract import Budget, Scores
from metarl.parallel import intra_op_threads
from metarl.sampling.rollout import run_episodes
from metarl.seeding import Key
from metarl.tasks import Array, TaskFamily, Tasks

BATCH = 2_000_000  # environment steps held in memory at once
Controller = Callable[[Array, int], Array]  # observations (T, E, obs_dim) and time to actions (T, E, ...)


@dataclass(frozen=True)
class Fixed(ABC):
    """A behaviour that does not change with experience.

    Attributes:
        family: where it acts.
        stream: names its streams of start states and actions.
        manner: how it behaves, for the protocol of a curve.
    """

    stream: ClassVar[tuple[str, ...]] = ("baseline",)
    manner: ClassVar[str] = "no adaptation"

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


def _on_tensors(control: Controller) -> Callable[[Tensor, int], Tensor]:
    return lambda obs, t: torch.from_numpy(np.array(control(obs.numpy(), t)))
