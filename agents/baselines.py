"""Baselines that need no training: random, standing still, and the closed-form optimum.

None of them adapts, so their K + 1 scores are K + 1 independent measurements of one number. They are
the reference lines of every adaptation curve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.errors import UserError
from metarl.learning.non_adaptive import Controller, Fixed
from metarl.seeding import Key
from metarl.tasks import Array, Tasks


@dataclass(frozen=True)
class Random(Fixed):
    """Actions drawn uniformly from the action space."""

    def controller(self, tasks: Tasks, episodes: int, key: Key) -> Controller:
        """Uniform actions, one keyed stream a task."""
        space, horizon = self.family.action_space, self.family.horizon

        def draw(rng: np.random.Generator) -> Array:
            if isinstance(space, Discrete):
                return rng.integers(space.n, size=(horizon, episodes))
            if isinstance(space, Box) and space.is_bounded():
                return rng.uniform(space.low, space.high, (horizon, episodes, *space.shape)).astype(np.float32)
            raise UserError(f"{self.family.name} has no bounded action space to draw from: {space}")

        actions = np.stack([draw(rng) for rng in tasks.streams(key)])  # (T, H, E, ...)
        return lambda obs, t: actions[:, t]


@dataclass(frozen=True)
class StandStill(Fixed):
    """The zero action, always."""

    def controller(self, tasks: Tasks, episodes: int, key: Key) -> Controller:
        """Zeros; the action space must be continuous and hold them."""
        space = self.family.action_space
        if not isinstance(space, Box) or not space.contains(np.zeros(space.shape, space.dtype)):
            raise UserError(f"nobody can stand still in {self.family.name}: its actions are {space}")
        zeros = np.zeros((len(tasks), episodes, *space.shape), np.float32)
        return lambda obs, t: zeros


@dataclass(frozen=True)
class Oracle(Fixed):
    """The family's closed-form optimal controller, which is told the task."""

    told: ClassVar[bool] = True

    def controller(self, tasks: Tasks, episodes: int, key: Key) -> Controller:
        """What `TaskFamily.optimal_policy` returns."""
        policy: Callable[[Any], Array] | None = self.family.optimal_policy(tasks)
        if policy is None:
            raise UserError(f"no optimal policy is known for {self.family.name} (preset {self.family.preset})")
        return lambda obs, t: policy(obs)
