"""Trials of earlier updates that a learner goes on learning from.

A checkpoint holds the buffer, so it is small by design: few trials of many updates, where VariBAD keeps all of the
last 10,000. Each update adds some of its trials, drawn at random, in place of the oldest, and a learner draws from the
buffer and its own fresh trials together. A trial is its observations, which tell all of its steps but the outcome of
the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.seeding import Key


class TrialBuffer:
    """A ring of trials, on the CPU.

    Args:
        size: trials that it can hold.
        horizon: H, steps of a trial.
        inputs: numbers of an observation.

    Attributes:
        obs: `(H, size, inputs)` float32; 0 where no trial is yet.
        valid: `(H, size)` bool, the steps that were really taken.
        added: trials put in so far.
    """

    def __init__(self, size: int, horizon: int, inputs: int) -> None:
        self.obs = torch.zeros(horizon, size, inputs)
        self.valid = torch.zeros(horizon, size, dtype=torch.bool)
        self.added = 0

    def __len__(self) -> int:
        """Trials in it."""
        return min(self.added, self.obs.shape[1])

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return dict(vars(self))

    def load(self, state: dict[str, Any]) -> None:
        """Take up where a checkpoint's `state()` was."""
        self.obs, self.valid, self.added = state["obs"], state["valid"], state["added"]

    def add(self, obs: Tensor, valid: Tensor, count: int, key: Key) -> None:
        """Put in `count` of N trials, or all if there are fewer, in place of the oldest.

        Args:
            obs: `(H, N, inputs)`.
            valid: `(H, N)`.
            count: how many; at most the buffer's size.
            key: names the stream that chooses them.
        """
        count, size = min(count, obs.shape[1]), self.obs.shape[1]
        if not count:
            return
        chosen = torch.from_numpy(key.numpy().choice(obs.shape[1], count, replace=False))
        places = torch.arange(self.added, self.added + count) % size
        self.obs[:, places], self.valid[:, places] = obs[:, chosen], valid[:, chosen]
        self.added += count

    def draw(self, obs: Tensor, valid: Tensor, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """`count` different trials out of N fresh ones and those in the buffer, or all of them if there are fewer.

        Args:
            obs: the fresh ones', `(H, N, inputs)`.
            valid: the fresh ones', `(H, N)`.
            count: how many.
            rng: chooses them.

        Returns:
            Observations `(H, count, inputs)` and valid steps `(H, count)`.
        """
        fresh, kept = obs.shape[1], len(self)
        chosen = torch.from_numpy(rng.choice(fresh + kept, min(count, fresh + kept), replace=False))
        new, old = chosen[chosen < fresh], chosen[chosen >= fresh] - fresh
        return torch.cat([obs[:, new], self.obs[:, old]], 1), torch.cat([valid[:, new], self.valid[:, old]], 1)
