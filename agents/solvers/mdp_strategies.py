"""Strategies for tabular MDPs: each turns the posterior into a policy for an episode.

They plan backwards in

- `PSRL`: an MDP drawn from the posterior (Strens 2000; Osband et al. 2013);
- `OptimisticPSRL`: the best of several such MDPs, for each state, action and time (TabulaRL, Osband's code);
- `UCRL2`: the best MDP within confidence bounds (Jaksch et al. 2010), planned for H steps;
- `BEB`: the mean MDP with a bonus for what was seldom tried (Kolter and Ng 2009);
- `Greedy`, `EpsilonGreedy`: the mean MDP, the latter with random actions now and then;
- `KnownMDP`: the true MDP. It is told the task: an upper bound for all, and no learner;
- `Random`: nothing.

Deviations: UCRL2 replans every episode, centres its bounds on the posterior mean and multiplies both
published widths by one constant.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarl.envs.tabular_belief import Belief
from metarl.envs.tabular_planning import Backup, model, most_hopeful, plan
from metarl.seeding import AnyGenerator
from metarl.tasks import Task

Values = NDArray[np.float64]

CONFIDENCE = 0.05  # the chance UCRL2's published bounds leave for being wrong


class Strategy(ABC):
    """How to plan an episode."""

    epsilon: float = 0.0  # probability of a random action instead of the planned one

    @abstractmethod
    def backup(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Backup:
        """The model to plan an episode in.

        Args:
            belief: the posterior of N MDPs.
            task: the truth, arrays `(N, ...)`; for `KnownMDP` only.
            t: steps taken so far.
            rng: for strategies that draw.
        """

    def worth(self, belief: Belief, task: Task, t: int, horizon: int, rng: AnyGenerator) -> Values:
        """What each action is thought to be worth, `(N, H, S, A)`; arguments as for `backup`."""
        n, states, _ = belief.count.shape
        return plan(self.backup(belief, task, t, rng), n, states, horizon)


@dataclass(frozen=True)
class Random(Strategy):
    """Any action."""

    epsilon = 1.0

    def backup(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Backup:
        """Nothing to plan."""
        return lambda value: np.zeros_like(belief.count)


@dataclass(frozen=True)
class Greedy(Strategy):
    """Plans in the mean MDP."""

    def backup(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Backup:
        """The posterior means."""
        return model(belief.reward, belief.transition)


@dataclass(frozen=True)
class EpsilonGreedy(Greedy):
    """Plans in the mean MDP, but acts at random with probability epsilon at each step.

    Attributes:
        epsilon: probability in [0, 1].
    """

    epsilon: float = 0.1


@dataclass(frozen=True)
class PSRL(Strategy):
    """Plans in an MDP drawn from the posterior."""

    def backup(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Backup:
        """The draw."""
        return model(*belief.sample(rng))


@dataclass(frozen=True)
class OptimisticPSRL(PSRL):
    """Plans in several MDPs drawn from the posterior and takes, for each action, its highest worth in any.

    Attributes:
        samples: how many; one is PSRL.
    """

    samples: int

    def worth(self, belief: Belief, task: Task, t: int, horizon: int, rng: AnyGenerator) -> Values:
        """The upper envelope of the plans."""
        highest = super().worth(belief, task, t, horizon, rng)
        for _ in range(self.samples - 1):
            np.maximum(highest, super().worth(belief, task, t, horizon, rng), out=highest)
        return highest


@dataclass(frozen=True)
class BEB(Strategy):
    """Plans in the mean MDP with reward bonus / (1 + S + visits); S is the prior's weight.

    Attributes:
        bonus: in units of reward.
    """

    bonus: float

    def backup(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Backup:
        """The posterior means and the bonus."""
        weight = 1 + belief.concentration.shape[-1] + belief.count
        return model(belief.reward + self.bonus / weight, belief.transition)


@dataclass(frozen=True)
class UCRL2(Strategy):
    """Plans in the best MDP whose rewards and transitions lie within confidence bounds.

    Attributes:
        scale: multiplies the published widths; 1 has the guarantee (for rewards in [0, 1]), less explores less.
    """

    scale: float

    def backup(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Backup:
        """Extended value iteration's step (Jaksch et al. 2010, figure 2)."""
        _, states, actions = belief.count.shape
        visits, now = np.maximum(belief.count, 1), max(t, 1)
        reward_width = np.sqrt(7 * math.log(2 * states * actions * now / CONFIDENCE) / (2 * visits))
        radius = np.sqrt(14 * states * math.log(2 * actions * now / CONFIDENCE) / visits)
        reward, radius = belief.reward + self.scale * reward_width, self.scale * radius
        to = np.ascontiguousarray(np.moveaxis(belief.transition, -1, 1))
        return lambda value: reward + most_hopeful(to, radius, value)


@dataclass(frozen=True)
class KnownMDP(Strategy):
    """Plans in the true MDP."""

    def backup(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Backup:
        """The truth."""
        return model(task["reward"], task["transition"])
