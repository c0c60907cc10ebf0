"""What is known of the arms of Bernoulli and Gaussian bandits: the exact posterior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarl.seeding import AnyGenerator

Values = NDArray[np.float64]


@dataclass
class Belief:
    """The posterior of every arm of N bandits.

    Attributes:
        likelihood: "bernoulli" with prior U[0, 1], or "gaussian" with prior N(0, 1) and unit noise.
        count: `(N, k)` pulls of each arm.
        total: `(N, k)` sum of its rewards.
    """

    likelihood: str
    count: Values
    total: Values

    @property
    def mean(self) -> Values:
        """Posterior mean of each arm's mean reward, `(N, k)`."""
        return (self.total + 1) / (self.count + 2) if self.likelihood == "bernoulli" else self.total / (self.count + 1)

    @property
    def weight(self) -> Values:
        """Observations behind each mean, the prior's included (2 for Bernoulli arms, 1 for Gaussian), `(N, k)`."""
        return self.count + (2 if self.likelihood == "bernoulli" else 1)

    def sample(self, rng: AnyGenerator) -> Values:
        """A draw from each arm's posterior, `(N, k)`."""
        if self.likelihood == "bernoulli":
            return rng.beta(self.total + 1, self.count - self.total + 1)
        return self.mean + rng.standard_normal(self.count.shape) / np.sqrt(self.weight)
