"""Action spaces: the two kinds that learners act in, and what they stand for in an environment of any kind."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray

from metarl.tasks.data import Array

LARGEST_BOUND = 2.0**53  # bounds beyond this mean that there are none, and floats no longer count in ones
MOST_CHOICES = 1024  # of a MultiDiscrete or MultiBinary: one logit each


def offered(space: gymnasium.Space[Any]) -> Box | Discrete | None:
    """The action space of a family whose environments have `space`, None where there is none.

    A bounded Box becomes a flat one between -1 and 1; a Discrete counts from 0; the joint choices of a MultiDiscrete
    or MultiBinary are numbered, the last axis the fastest, if there are no more than `MOST_CHOICES`.
    """
    if isinstance(space, Box):
        bounds = np.array([space.low, space.high], dtype=np.float64)
        flat = Box(-1.0, 1.0, (math.prod(space.shape),), np.float32)
        return flat if bounds.size and (np.abs(bounds) <= LARGEST_BOUND).all() else None
    if isinstance(space, Discrete):
        return Discrete(int(space.n))
    if isinstance(space, (MultiDiscrete, MultiBinary)):
        choices = math.prod(_sides(space))
        return Discrete(choices) if choices <= MOST_CHOICES else None
    return None


def member(space: gymnasium.Space[Any], action: Any) -> Any:
    """The member of an environment's own `space` that an action of `offered(space)` stands for.

    Args:
        space: Box, Discrete, MultiDiscrete or MultiBinary.
        action: for a Box numbers `(A,)`: -1 and 1 are its bounds, what is beyond them is clipped, and where its
            numbers are whole, the nearest is taken. Else an integer.
    """
    if isinstance(space, Box):
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        share = (np.clip(action, -1.0, 1.0).astype(np.float64).reshape(space.shape) + 1.0) / 2.0
        own = (1.0 - share) * low + share * high  # the bounds exactly at -1 and 1
        if space.dtype.kind != "f":
            own = np.rint(own)
        return np.asarray(np.clip(own, low, high), dtype=space.dtype)
    if isinstance(space, Discrete):
        return space.dtype.type(int(action) + int(space.start))
    assert isinstance(space, (MultiDiscrete, MultiBinary))
    digits = np.reshape(np.unravel_index(int(action), _sides(space)), space.shape)
    return (digits + getattr(space, "start", 0)).astype(space.dtype)


def described(space: gymnasium.Space[Any], actions: Array) -> NDArray[np.float64]:
    """Actions as what an agent is told of them, `(N, size)`: one-hot of a Discrete, clipped to the bounds of a Box.

    Args:
        space: a family's: a Discrete that counts from 0, or a flat Box between -1 and 1.
        actions: `(N,)` integers, or `(N, size)`.
    """
    if isinstance(space, Box):
        return np.clip(actions, -1.0, 1.0).astype(np.float64)
    assert isinstance(space, Discrete)
    told = np.zeros((len(actions), int(space.n)))
    told[np.arange(len(actions)), actions] = 1.0
    return told


def _sides(space: MultiDiscrete | MultiBinary) -> tuple[int, ...]:
    """How many choices there are along each axis."""
    each = space.nvec.ravel().tolist() if isinstance(space, MultiDiscrete) else [2] * math.prod(space.shape)
    return tuple(each)
