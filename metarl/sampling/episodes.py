"""What a rollout returns: whole episodes of many tasks, as tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gymnasium
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from metarl.tasks.contract import Family


@dataclass(frozen=True)
class Episodes:
    """T tasks x E episodes x H steps, episode by episode, padded to the horizon.

    Steps after an episode's end are padding: `valid` is false there and everything else is 0.
    `terminated` (the problem ended) and `truncated` (time ran out) never merge.
    """

    obs: Tensor  # (T, E, H, obs_dim) float32, what the policy saw before acting
    actions: Tensor  # (T, E, H, A) float32 in units of the action bound, unclipped; (T, E, H) int64 if discrete
    rewards: Tensor  # (T, E, H) float32
    terminated: Tensor  # (T, E, H) bool, true at the step that ended in a terminal state
    truncated: Tensor  # (T, E, H) bool, true at the step at which time ran out
    valid: Tensor  # (T, E, H) bool, the steps that were really taken
    unstable: Tensor  # (T, E) bool, whether the episode ended because its simulation broke

    def returns(self) -> Tensor:
        """Undiscounted return of every episode, `(T, E)` float64."""
        return (self.rewards.double() * self.valid).sum(-1)

    def lengths(self) -> Tensor:
        """Steps taken in every episode, `(T, E)` int64."""
        return self.valid.sum(-1)

    def to(self, device: torch.device | str) -> Episodes:
        """The same episodes on another device."""
        return Episodes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @staticmethod
    def concatenate(parts: Sequence[Episodes]) -> Episodes:
        """The tasks of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        return Episodes(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Episodes)})


def flat_size(space: gymnasium.Space[Any]) -> int:
    """Numbers that an observation has, or that describe an action: one for each of a Discrete's."""
    return int(space.n) if isinstance(space, Discrete) else math.prod(space.shape or ())


def episode_bytes(family: Family) -> int:
    """Bytes of one recorded episode: observations and actions, and 7 a step of reward, ends and validity."""
    observed, acted = family.observation_space, family.action_space
    action = 8 if isinstance(acted, Discrete) else 4 * flat_size(acted)
    return family.horizon * (4 * flat_size(observed) + action + 7)
