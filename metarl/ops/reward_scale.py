"""The scale of rewards: the running deviation of the discounted return."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from metarl.ops import returns


@dataclass(frozen=True)
class RewardScale:
    """Running moments of the discounted return so far, whose deviation rewards are divided by.

    As Stable-Baselines3's VecNormalize and VariBAD do it, with the count of a whole update at once, but without
    cutting the divided rewards to +-10.
    """

    count: float = 0.0
    mean: float = 0.0
    square: float = 0.0  # sum of squared distances from the mean

    def update(self, rewards: Tensor, valid: Tensor, gamma: float) -> RewardScale:
        """The moments with the steps of an update added: `rewards (N, H)`, `valid (N, H)`."""
        so_far = returns.discount((rewards * valid).flip(-1), gamma).flip(-1)[valid]
        count, mean = float(so_far.numel()), float(so_far.mean())
        total, shift = self.count + count, mean - self.mean
        square = float(((so_far - mean) ** 2).sum()) + shift * shift * self.count * count / total
        return RewardScale(total, self.mean + shift * count / total, self.square + square)

    @property
    def deviation(self) -> float:
        """Standard deviation; 1 before there is any."""
        return math.sqrt(self.square / self.count) if self.square > 0 else 1.0
