"""What environments need of their family, apart from the family itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, Protocol

import gymnasium
import numpy as np

from metarl.tasks.data import Tasks

SPLITS = ("train", "validation", "test", "ood")
TERM = "reward_"  # how the names of the reward's terms begin, and no other names in infos


class Family(Hashable, Protocol):
    """A `metarl.tasks.TaskFamily`, as the environments that it makes see it."""

    @property
    def name(self) -> str:
        """The family's id."""

    @property
    def preset(self) -> str:
        """Which source's definition it is."""

    @property
    def horizon(self) -> int:
        """Steps after which an episode is truncated."""

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        """Of every task."""

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """Of every task."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits it has."""

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Tasks:
        """Draw n fresh tasks."""

    def fixed(self, split: str, n: int) -> Tasks:
        """The first n of the split's frozen tasks."""

    def check_tasks(self, tasks: Tasks) -> None:
        """Raise ValueError unless the tasks are of the family."""

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> Any:
        """T tasks x `replicas` environments, a `TaskVectorEnv`."""

    def options(self) -> Mapping[str, Any]:
        """Its preset and options, plain data."""

    def optimal_policy(self, tasks: Tasks) -> Any:
        """The closed-form optimal controller, or None."""


@cache
def prototype(family: Family) -> Tasks:
    """A batch of one task of the family: names, types and shapes of its arrays."""
    return family.fixed("train", 1)
