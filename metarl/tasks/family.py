"""Task families: distributions over decision problems that share their spaces.

A task is data, not code: an environment is made of it when it is run.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import gymnasium
import numpy as np

from metarl.errors import UserError, shown
from metarl.seeding import Key
from metarl.tasks.contract import SPLITS, prototype
from metarl.tasks.data import DECIMALS, NUMBERS, Array, Task, Tasks, Uniform, first_wrong, rounded, row_bytes
from metarl.tasks.single import TaskEnv
from metarl.tasks.vector import TaskVectorEnv

FROZEN = 1000  # tasks of each fixed split that training may never draw
REDRAWS = 1000  # rounds in which training tasks that equal a frozen one are drawn anew before a family counts as finite


@dataclass(frozen=True)
class TaskFamily(ABC):
    """A distribution over tasks with common spaces.

    A concrete family is a frozen dataclass: its fields are its options (and, on the command line,
    its flags). Two families with equal fields are the same family.

    >>> family = make_family("metarl/Navigation2D-v0")     # one of those below it
    >>> isinstance(family, TaskFamily), family.horizon, family.splits
    (True, 100, ('train', 'validation', 'test', 'ood'))
    >>> unseen = family.fixed("test", 40)                  # frozen, never trained on
    >>> env = family.make(unseen[0])                       # one Gymnasium environment
    >>> vec = family.make_vec(unseen, replicas=20)         # 800 stepped at once
    >>> vec.num_envs
    800

    Attributes:
        preset: which source's definition is used; see the family's `presets`.
    """

    name: ClassVar[str]  # the Gymnasium id, "metarl/Navigation2D-v0"
    presets: ClassVar[tuple[str, ...]]  # allowed values of `preset`, the default first
    steps_in_parallel: ClassVar[bool] = False  # whether stepping lets go of the interpreter, so that threads help

    preset: str

    def __post_init__(self) -> None:
        if self.preset not in self.presets:
            raise ValueError(f"{self.name} has no preset {self.preset!r}; choose from {', '.join(self.presets)}")

    @property
    @abstractmethod
    def horizon(self) -> int:
        """Steps after which an episode is truncated."""

    @property
    @abstractmethod
    def observation_space(self) -> gymnasium.Space[Any]:
        """What the agent sees in one environment."""

    @property
    @abstractmethod
    def action_space(self) -> gymnasium.Space[Any]:
        """What the agent may do: a Discrete that counts from 0, or a flat Box between -1 and 1.

        Policies, memories and baselines know these two; the family maps them to what its simulation takes
        (`GymFamily` does so for any bounded space). Policies are Gaussian, so what lies beyond 1 is clipped.
        """

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """The least and the greatest value of a task's arrays over all splits, by name; tasks beyond are refused.

        Each broadcasts against the array of one task. An array that is not named may hold any finite number.
        """
        return {}

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of train, validation, test and ood the family (under this preset) has."""
        return SPLITS

    @property
    def unseen(self) -> bool:
        """Whether test tasks differ from training tasks; False for a finite family, which reuses them."""
        return True

    def finite(self, split: str) -> Tasks | None:
        """Every task of a split, each once, where there are few enough to list; else None.

        By default a family with `unseen = False` lists the distinct tasks among `FROZEN` frozen draws, sorted. One
        that knows its tasks returns them, in the order in which they should be shown.
        """
        if self.unseen:
            return None
        drawn = self._drawn(split, FROZEN)
        several = drawn[np.unique(drawn.distinct())]
        columns = [values.reshape(len(several), -1) for values in several.arrays.values()]
        sorting = np.lexsort(np.concatenate(columns, axis=1).T[::-1])
        return several[sorting].at(split)

    @abstractmethod
    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Draw n tasks of a split as a function of uniform numbers.

        Args:
            n: how many.
            uniform: called with a shape, returns numbers in [0, 1). Its only source of randomness.
            split: one of `splits`.
        """

    @abstractmethod
    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> TaskVectorEnv:
        """All tasks x replicas as one vector environment; environment i runs task i // replicas.

        Args:
            tasks: T tasks.
            replicas: E environments a task.
            threads: worker threads where the stepping can use them; never changes results.
        """

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Tasks:
        """Draw n fresh tasks. Training tasks never equal a frozen validation or test task (redrawn if they do).

        Raises:
            ValueError: the family has no such split.
            UserError: redrawing finds no training task apart from the frozen ones: it has too few.
        """
        self._check_split(split)
        arrays = {name: values.copy() for name, values in self.draw(n, rng.random, split).arrays.items()}
        if split == "train" and self.unseen:
            forbidden = _frozen_rows(self)
            for _ in range(REDRAWS):
                hits = [i for i, row in enumerate(row_bytes(Tasks(arrays))) if row in forbidden]
                if not hits:
                    break
                for name, values in self.draw(len(hits), rng.random, split).arrays.items():
                    arrays[name][hits] = values
            else:
                raise UserError(
                    f"{self.name}: {REDRAWS} draws in a row gave no training task apart from the frozen validation and "
                    "test tasks, so its tasks are few; set `unseen = False` in the family (tasks are then reused, and "
                    "every result says so), or draw test tasks that training does not have"
                )
        return Tasks(arrays, split=split)

    def fixed(self, split: str, n: int) -> Tasks:
        """The first n tasks of the split's one frozen sequence: raw Philox bits, rounded to `DECIMALS`.

        A finite split has each of its tasks once: the first n of `finite`, so no more than there are.

        Raises:
            ValueError: the family has no such split.
        """
        self._check_split(split)
        every = self.finite(split)
        return self._drawn(split, n) if every is None else every[:n].at(split)

    def _drawn(self, split: str, n: int) -> Tasks:
        """The first n frozen draws of a split."""
        key = Key(0)("fixed", self.name, json.dumps(self.options(), sort_keys=True), split)
        exact = Tasks.stack([self.draw(1, key(i).uniforms(), split)[0] for i in range(n)])
        return Tasks({name: rounded(values) for name, values in exact.arrays.items()}, split=split)

    def check_tasks(self, tasks: Tasks) -> None:
        """Check that these can be tasks of the family; every environment does so with the tasks it is given.

        Raises:
            ValueError: names, shapes or kinds are not those of the family's own tasks, or a number is not finite
                or beyond `bounds`.
        """
        like, arrays = prototype(self).arrays, tasks.arrays
        if unlike := set(arrays) ^ set(like):
            raise ValueError(f"a task of {self.name} has {sorted(like)}; {sorted(unlike, key=str)} is not in both")
        for name, values in arrays.items():
            what = f"{name} of a task of {self.name}"
            if values.shape[1:] != like[name].shape[1:]:
                raise ValueError(f"{what} has shape {like[name].shape[1:]}, got {values.shape[1:]}")
            if not np.can_cast(values.dtype, like[name].dtype, "same_kind"):
                raise ValueError(f"{what} is of type {like[name].dtype}, got {values.dtype}")
            if values.dtype.kind in NUMBERS and not np.isfinite(values).all():
                raise ValueError(f"{what} must be finite, got {first_wrong(values, ~np.isfinite(values))}")
            if name not in self.bounds:
                continue
            least, most = self.bounds[name]
            slack = 10.0**-DECIMALS * (1 + np.maximum(np.abs(least), np.abs(most)))  # frozen tasks are rounded
            beyond = ~((least - slack <= values) & (values <= most + slack))
            if beyond.any():
                raise ValueError(f"{what} lies between {least} and {most}, got {first_wrong(values, beyond)}")

    def _check_listed(self, tasks: Tasks) -> None:
        """For `check_tasks` of a family that lists its tasks: ValueError unless each is in `finite` of some split."""
        lists = [listed for split in self.splits if (listed := self.finite(split)) is not None]
        for name, values in tasks.arrays.items():
            every = np.unique(np.concatenate([listed.arrays[name] for listed in lists]), axis=0)
            same = np.abs(values[:, None] - every) < 10.0**-DECIMALS  # (T, listed, ...)
            missing = ~same.reshape(len(values), len(every), -1).all(2).any(1)
            if missing.any():
                raise ValueError(
                    f"{name} of a task of {self.name} is one of {shown(every)}, got {first_wrong(values, missing)}"
                )

    def make(self, task: Task | None = None, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """One Gymnasium environment. Without a task, each reset draws a training task."""
        return TaskEnv(self, task, render_mode)

    def options(self) -> dict[str, Any]:
        """The fields, preset included, as plain data; with `name` they identify the family."""
        return dataclasses.asdict(self)

    def optimal_policy(self, tasks: Tasks) -> Callable[[Array], Array] | None:
        """A closed-form optimal controller where one is known, else None.

        Returns:
            A function from observations `(T, E, obs_dim)` to actions `(T, E, act_dim)`.
        """
        return None

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise ValueError(
                f"{self.name} (preset {self.preset}) has no split {split!r}; it has {', '.join(self.splits)}"
            )


@cache
def _frozen_rows(family: TaskFamily) -> frozenset[bytes]:
    held_out = [split for split in ("validation", "test") if split in family.splits]
    return frozenset(row for split in held_out for row in row_bytes(family.fixed(split, FROZEN)))
