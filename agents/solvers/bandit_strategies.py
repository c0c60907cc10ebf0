"""Strategies for bandits: each gives every arm an index, and the arm with the highest is pulled.

- `BayesOptimum`: the expected total reward of pulling an arm and going on optimally, by dynamic programming
  over the multisets of arm histories; Bernoulli arms, few pulls. No agent is better on average.
- `Gittins`: the discounted infinite-horizon index (Gittins 1979), see `metarl.agents.solvers.gittins`.
- `UCB1` (Auer et al. 2002), `Thompson` (Thompson 1933), `OptimisticThompson` (May et al. 2012),
  `EpsilonGreedy`, `Greedy`, `Random`.

Deviation: UCB1 uses the posterior mean and counts the prior as observations, so it need not pull every arm once
(with 50 arms and 10 pulls it could not).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metarl.agents.solvers.bandit_belief import Belief
from metarl.agents.solvers.gittins import bernoulli_gittins, gaussian_gittins
from metarl.errors import UserError
from metarl.seeding import AnyGenerator

Values = NDArray[np.float64]

MOST_PULLS = 16  # of the exact optimum; its states grow about twofold with every pull


class Strategy(ABC):
    """How to choose an arm."""

    @abstractmethod
    def index(self, belief: Belief, t: int, rng: AnyGenerator) -> Values:
        """The worth of each arm `(N, k)` before pull t = 0, 1, ...; the highest is pulled.

        Raises:
            UserError: the strategy cannot play such arms.
        """


@dataclass(frozen=True)
class Random(Strategy):
    """Any arm."""

    def index(self, belief: Belief, t: int, rng: AnyGenerator) -> Values:
        """The same for all arms."""
        return np.zeros_like(belief.count)


@dataclass(frozen=True)
class Greedy(Strategy):
    """The arm with the highest posterior mean."""

    def index(self, belief: Belief, t: int, rng: AnyGenerator) -> Values:
        """The posterior mean."""
        return belief.mean


@dataclass(frozen=True)
class EpsilonGreedy(Strategy):
    """Greedy, but any arm with probability epsilon.

    Attributes:
        epsilon: probability in [0, 1].
    """

    epsilon: float

    def index(self, belief: Belief, t: int, rng: AnyGenerator) -> Values:
        """The posterior mean, or the same for all arms where exploring."""
        explore = rng.random((len(belief.count), 1)) < self.epsilon
        return np.where(explore, 0.0, belief.mean)


@dataclass(frozen=True)
class UCB1(Strategy):
    """Posterior mean + width sqrt(2 ln(t + 1) / weight).

    Attributes:
        width: 1 is the published one for rewards in [0, 1], with a guarantee; smaller ones explore less.
    """

    width: float

    def index(self, belief: Belief, t: int, rng: AnyGenerator) -> Values:
        """The upper confidence bound."""
        return belief.mean + self.width * np.sqrt(2 * math.log(t + 1) / belief.weight)


@dataclass(frozen=True)
class Thompson(Strategy):
    """A draw from each arm's posterior."""

    def index(self, belief: Belief, t: int, rng: AnyGenerator) -> Values:
        """The draw."""
        return belief.sample(rng)


@dataclass(frozen=True)
class OptimisticThompson(Strategy):
    """A draw from each arm's posterior, but not less than its mean."""

    def index(self, belief: Belief, t: int, rng: AnyGenerator) -> Values:
        """The draw or the mean, whichever is higher."""
        return np.maximum(belief.sample(rng), belief.mean)


@dataclass(frozen=True)
class Gittins(Strategy):
    """The Gittins index of each arm.

    Attributes:
        discount: of the infinite-horizon problem whose index it is, in [0, 1).
        pulls: the most pulls of an arm the table must hold.
    """

    discount: float
    pulls: int

    def index(self, belief: Belief, t: int, rng: AnyGenerator) -> Values:
        """From the table."""
        count = belief.count.astype(np.int64)
        if belief.likelihood == "bernoulli":
            return bernoulli_gittins(self.discount, self.pulls)[count, belief.total.astype(np.int64)]
        return belief.mean + gaussian_gittins(self.discount, self.pulls)[count]


@dataclass(frozen=True)
class BayesOptimum(Strategy):
    """The exact optimum for Bernoulli arms with prior U[0, 1].

    Attributes:
        arms: k.
        pulls: n, at most `MOST_PULLS`.
    """

    arms: int
    pulls: int
    _values: dict[tuple[tuple[int, int], ...], float] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.pulls > MOST_PULLS:
            raise UserError(
                f"the exact optimum is computed for at most {MOST_PULLS} pulls, got {self.pulls}; use gittins"
            )

    def value(self, tried: tuple[tuple[int, int], ...] = ()) -> float:
        """Expected reward of the pulls that are left.

        Args:
            tried: (successes, failures) of the arms pulled so far, sorted.
        """
        if (known := self._values.get(tried)) is None:
            left = self.pulls - sum(s + f for s, f in tried)
            known = max(self.worth(tried).values()) if left else 0.0
            self._values[tried] = known
        return known

    def worth(self, tried: tuple[tuple[int, int], ...]) -> dict[tuple[int, int], float]:
        """Expected reward of pulling an arm with (successes, failures) and then going on optimally."""
        worth = {}
        for arm in {*tried, (0, 0)} if len(tried) < self.arms else {*tried}:
            s, f = arm
            others = list(tried)
            if arm in others:
                others.remove(arm)
            p = (s + 1) / (s + f + 2)
            success = self.value(tuple(sorted([*others, (s + 1, f)])))
            failure = self.value(tuple(sorted([*others, (s, f + 1)])))
            worth[arm] = p * (1 + success) + (1 - p) * failure
        return worth

    def index(self, belief: Belief, t: int, rng: AnyGenerator) -> Values:
        """Expected reward of the arm and of all that follows it."""
        if belief.likelihood != "bernoulli":
            raise UserError(f"the exact optimum is computed for Bernoulli arms, not {belief.likelihood} ones")
        base = self.pulls + 1
        code = (belief.total * base + belief.count - belief.total).astype(np.int64)
        states, inverse = np.unique(np.sort(code, axis=1), axis=0, return_inverse=True)
        worth = np.zeros((len(states), base * base))
        for row, state in zip(worth, states, strict=True):
            tried = tuple(divmod(int(c), base) for c in state if c)
            for (s, f), value in self.worth(tuple(sorted(tried))).items():
                row[s * base + f] = value
        return worth[inverse.reshape(-1, 1), code]
