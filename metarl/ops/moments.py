"""Count, mean and variance of numbers, of which parts can be put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Count, mean and (biased) variance of some numbers."""

    count: int
    mean: float
    variance: float

    @staticmethod
    def of(values: Tensor) -> Moments:
        """Those of at least one number, in double precision."""
        values = values.double()
        return Moments(values.numel(), float(values.mean()), float(values.var(unbiased=False)))

    @staticmethod
    def merged(parts: Sequence[Moments]) -> Moments:
        """Those of all numbers together (Chan, Golub and LeVeque 1983); of one part, the part itself."""
        if len(parts) == 1:
            return parts[0]
        count = sum(part.count for part in parts)
        mean = sum(part.count * part.mean for part in parts) / count
        variance = sum(part.count * (part.variance + (part.mean - mean) ** 2) for part in parts) / count
        return Moments(count, mean, variance)
