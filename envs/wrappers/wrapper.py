"""A family's tasks in other environments: what `Trials` and `TaskObserved` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from metarl.tasks import TERM, Array, TaskFamily, Tasks, Uniform


@dataclass(frozen=True)
class FamilyWrapper(TaskFamily):
    """The same tasks and actions as a family's; a subclass says what is observed, for how long, and runs it.

    Attributes:
        family: whose tasks they are.
    """

    family: TaskFamily = field(kw_only=True)

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """The family's."""
        return self.family.action_space

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """The family's."""
        return self.family.bounds

    def check_tasks(self, tasks: Tasks) -> None:
        """The family's check."""
        self.family.check_tasks(tasks)

    @property
    def splits(self) -> tuple[str, ...]:
        """The family's."""
        return self.family.splits

    @property
    def unseen(self) -> bool:
        """The family's."""
        return self.family.unseen

    def finite(self, split: str) -> Tasks | None:
        """The family's."""
        return self.family.finite(split)

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """The family's tasks."""
        return self.family.draw(n, uniform, split)

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Tasks:
        """The family's tasks."""
        return self.family.sample(n, rng, split)

    def fixed(self, split: str, n: int) -> Tasks:
        """The family's frozen tasks."""
        return self.family.fixed(split, n)

    def options(self) -> dict[str, Any]:
        """The family's name and options."""
        return {"family": self.family.name, **self.family.options()}


def split_infos(infos: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """The terms of the reward among a step's infos, and the rest."""
    terms = {name: values for name, values in infos.items() if name.startswith(TERM)}
    return terms, {name: values for name, values in infos.items() if name not in terms}
