"""What is known of random tabular MDPs: the exact posterior of transitions and rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarl.seeding import AnyGenerator

Values = NDArray[np.float64]


@dataclass
class Belief:
    """The posterior of N MDPs.

    Attributes:
        concentration: `(N, S, A, S)` Dirichlet parameters of the next state: 1 and how often it came.
        count: `(N, S, A)` visits.
        total: `(N, S, A)` sum of rewards.
        prior_mean: of a mean reward, whose prior variance is 1 like the noise's.
    """

    concentration: Values
    count: Values
    total: Values
    prior_mean: float = 1.0

    @staticmethod
    def prior(n: int, states: int, actions: int, mean: float = 1.0) -> Belief:
        """What is known of n MDPs before the first step."""
        pairs = (n, states, actions)
        return Belief(np.ones((*pairs, states)), np.zeros(pairs), np.zeros(pairs), mean)

    @property
    def transition(self) -> Values:
        """Posterior mean probabilities of the next state, `(N, S, A, S)`."""
        mean: Values = self.concentration / self.concentration.sum(-1, keepdims=True)
        return mean

    @property
    def reward(self) -> Values:
        """Posterior mean of the mean rewards, `(N, S, A)`."""
        return (self.prior_mean + self.total) / (1 + self.count)

    def sample(self, rng: AnyGenerator) -> tuple[Values, Values]:
        """Mean rewards `(N, S, A)` and transitions `(N, S, A, S)` drawn from the posterior."""
        reward = self.reward + rng.standard_normal(self.count.shape) / np.sqrt(1 + self.count)
        gamma = rng.standard_gamma(self.concentration)
        return reward, gamma / gamma.sum(-1, keepdims=True)

    def update(
        self,
        state: NDArray[np.int64],
        action: NDArray[np.int64],
        reward: Values,
        to: NDArray[np.int64],
        entered: NDArray[np.bool_] | bool = True,
    ) -> None:
        """Take in one transition of each MDP, each `(N,)`; of the state that came next only where it was seen."""
        rows = np.arange(len(state))
        self.concentration[rows, state, action, to] += entered
        self.count[rows, state, action] += 1
        self.total[rows, state, action] += reward
