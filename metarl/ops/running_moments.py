"""Mean and deviation of all vectors so far."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 1e-8  # VariBAD's


@dataclass(frozen=True)
class RunningMoments:
    """Moments of vectors of K numbers, each number by itself (Chan, Golub and LeVeque 1983)."""

    count: float
    mean: Tensor  # (K,) float64
    square: Tensor  # (K,) float64, sum of squared distances from the mean

    @staticmethod
    def none(size: int) -> RunningMoments:
        """Those of no vector yet, of `size` numbers."""
        return RunningMoments(0.0, *torch.zeros(2, size, dtype=torch.float64))

    def update(self, values: Tensor) -> RunningMoments:
        """The moments with one vector or more added: `values (n, K)`."""
        values = values.double()
        count, mean = float(len(values)), values.mean(0)
        total, shift = self.count + count, mean - self.mean
        square = ((values - mean) ** 2).sum(0) + shift * shift * self.count * count / total
        return RunningMoments(total, self.mean + shift * count / total, self.square + square)

    @property
    def deviation(self) -> Tensor:
        """Standard deviations `(K,)`, of variances that are `LEAST` too large: where all was the same it is not 0."""
        return (self.square / max(self.count, 1.0) + LEAST).sqrt()
