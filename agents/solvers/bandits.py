"""Classical solvers of Bernoulli and Gaussian bandits: what a learned agent has to beat.

All of them know the prior the arms are drawn from and keep the exact posterior of every arm. A strategy
gives each arm an index and the arm with the highest is pulled, ties broken by chance:

- `BayesOptimum`: the expected total reward of pulling an arm and going on optimally, by dynamic programming
  over the multisets of arm histories; Bernoulli arms, few pulls. No agent is better on average.
- `Gittins`: the discounted infinite-horizon index (Gittins 1979), by calibration.
- `UCB1` (Auer et al. 2002), `Thompson` (Thompson 1933), `OptimisticThompson` (May et al. 2012),
  `EpsilonGreedy`, `Greedy`, `Random`.

Deviations: UCB1 uses the posterior mean and counts the prior as observations, so it need not pull every
arm once (with 50 arms and 10 pulls it could not); its width, epsilon and the discount are constants
chosen on validation tasks by `scripts/solver_tables.py tune` (`CONSTANTS`).

As an `Adaptable` a solver has one score a task: its mean total reward over trials that each begin with
the prior. Adaptation happens inside the trial; the regret of every pull shows it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve

from metarl.errors import UserError
from metarl.learning.contract import Budget, Scores
from metarl.seeding import AnyGenerator, Key, Rows
from metarl.tasks import Tasks, TaskVectorEnv

Values = NDArray[np.float64]

BATCH = 100_000  # arms held at once: their arrays stay in the cache
MOST_PULLS = 16  # of the exact optimum; its states grow about twofold with every pull
TAIL = 1e-2  # discount of what the calibration of the Gittins index does not look at any more
LEVELS = 1601  # rewards of the known arm that the calibration of Bernoulli arms compares with
SPACING = 5e-3  # of the lattice of mean minus the known arm's reward, for Gaussian arms
FAR = 16.0  # where the lattice ends, in deviations: nobody stops above it, nobody goes on below

# (pulls, arms) -> constants with the best validation return: (epsilon, UCB1's width, Gittins' discount)
CONSTANTS: dict[tuple[int, int], tuple[float, float, float]] = {
    (10, 5): (0.0, 0.15, 0.7),
    (10, 10): (0.0, 0.15, 0.5),
    (10, 50): (0.0, 0.15, 0.5),
    (100, 5): (0.0, 0.2, 0.99),
    (100, 10): (0.0, 0.2, 0.98),
    (100, 50): (0.0, 0.2, 0.98),
    (500, 5): (0.05, 0.25, 0.998),
    (500, 10): (0.05, 0.2, 0.998),
    (500, 50): (0.05, 0.2, 0.998),
}


class BanditFamily(Protocol):
    """What a solver needs to know about a family."""

    @property
    def name(self) -> str:
        """Its id."""

    @property
    def arms(self) -> int:
        """The number of arms k."""

    @property
    def pulls(self) -> int:
        """The pulls of a trial, n."""

    @property
    def likelihood(self) -> str:
        """Either "bernoulli" (prior U[0, 1]) or "gaussian" (prior N(0, 1), unit noise)."""

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> TaskVectorEnv:
        """All tasks x replicas as one environment."""


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


def pulls_ahead(discount: float) -> int:
    """How many pulls beyond the last one a calibration looks: what comes later is discounted by `TAIL`.

    Raises:
        ValueError: the discount is not in [0, 1).
    """
    if not 0 <= discount < 1:
        raise ValueError(f"a Gittins index needs a discount in [0, 1), got {discount}")
    return math.ceil(math.log(TAIL) / math.log(discount)) if discount > 0 else 1


@cache
def bernoulli_gittins(discount: float, pulls: int, levels: int = LEVELS) -> Values:
    """Gittins indices of Bernoulli arms with prior U[0, 1], by calibration against arms of known reward.

    For each of `levels` known rewards the optimal stopping problem (pull, or switch to the known arm for ever)
    is solved backwards; the index is the reward at which both are worth the same, interpolated between levels.
    The levels are dense near 0 and 1, where posteriors are narrow, and each is solved for means within 5
    posterior deviations of it: far below it one stops, far above it one never does.

    Args:
        discount: in [0, 1).
        pulls: the most pulls the table holds.
        levels: more are finer; the default is good to 1e-4 (see the tests).

    Returns:
        `(pulls + 1, pulls + 1)`, after n pulls with s successes; NaN where s > n.
    """
    known = np.sin(np.linspace(0, np.pi / 2, levels))[:, None] ** 2
    last = pulls + pulls_ahead(discount)
    half = math.ceil(5 * 0.5 * math.sqrt(last + 3)) + 1
    width = np.arange(2 * half + 1)

    def successes(n: int) -> NDArray[np.int64]:
        """Those that every level is solved for after n pulls `(levels, 2 half + 1)`; some are below 0 or above n."""
        centre: NDArray[np.int64] = np.floor(known * (n + 2)).astype(np.int64) - half
        return centre + width

    def mean(s: NDArray[np.int64], n: int) -> Values:
        return np.clip((s + 1) / (n + 2), 0.0, 1.0)

    s = successes(last)
    value = np.maximum(mean(s, last), known)  # per step: (1 - discount) times the total
    table = np.full((pulls + 1, pulls + 1), np.nan)
    for n in range(last - 1, -1, -1):
        # The values one pull later, and one more on each side: of a mean far below, and of one far above.
        later, first = np.concatenate([known, value, mean(s[:, -1:] + 1, n + 1)], 1), s[:, :1]
        s = successes(n)
        ahead = np.where(s[:, :1] == first, later[:, 1:], later[:, :-1])  # the band moves by one at most
        p = mean(s, n)
        go_on = p * (1 - discount + discount * ahead[:, 1:]) + (1 - p) * discount * ahead[:, :-1]
        if n <= pulls:
            at = np.arange(n + 1) - s[:, :1]  # of 0..n successes in the band
            gain = np.take_along_axis(go_on - known, at.clip(0, 2 * half), 1)
            table[n, : n + 1] = _crossing(np.where(at < 0, -1.0, np.where(at > 2 * half, 1.0, gain)), known[:, 0])
        value = np.maximum(go_on, known)
    return table


def _crossing(gain: Values, known: Values) -> Values:
    """The level `known (L,)` at which `gain (L, n)`, decreasing in the level, falls below zero, `(n,)`."""
    above = np.clip((gain > 0).sum(0), 1, len(known) - 1)
    high, low = (np.take_along_axis(gain, above[None] - i, 0)[0] for i in (1, 0))
    share = high / np.maximum(high - low, 1e-300)
    crossing: Values = known[above - 1] + share * (known[above] - known[above - 1])
    return crossing


@cache
def gaussian_gittins(discount: float, pulls: int, spacing: float = SPACING) -> Values:
    """What a Gaussian arm's Gittins index adds to its posterior mean; prior N(0, 1), unit noise.

    The index moves with the mean, so one optimal stopping problem in y = mean - known reward is enough: go on
    for y now and the discounted future, or stop for 0; the bonus is -y where both are worth the same. The
    mean moves on a lattice, with the variance of its move after every number of pulls; the lattice becomes
    finer as the posterior becomes narrower.

    Args:
        discount: in [0, 1).
        pulls: the most pulls of an arm the table must hold.
        spacing: of the lattice, in prior deviations; its error falls with the square.

    Returns:
        `(pulls + 1,)`, after n pulls.
    """
    points = np.arange(-round(FAR / spacing), round(FAR / spacing) + 1)
    y = np.array([0.0])
    value = np.maximum(y, 0.0)  # per step: (1 - discount) times the total
    bonus = np.empty(pulls + 1)
    for n in range(pulls + pulls_ahead(discount) - 1, -1, -1):
        step = spacing * 0.5 ** ((n + 1).bit_length() // 2)  # spacing / sqrt(n + 1), within a factor sqrt 2
        value = np.where(step * points > y[-1], step * points, np.interp(step * points, y, value))
        y = step * points
        move = _moves(math.sqrt(1 / (n + 1) - 1 / (n + 2)), step)
        beyond = step * np.arange(1, len(move) // 2 + 1)
        padded = np.concatenate([np.zeros_like(beyond), value, y[-1] + beyond])  # far above one never stops
        go_on = (1 - discount) * y + discount * convolve(padded, move, mode="valid")
        if n <= pulls:
            bonus[n] = -np.interp(0.0, go_on, y)
        value = np.maximum(go_on, 0.0)
    return bonus


def _moves(deviation: float, spacing: float) -> Values:
    """Probabilities of moves by -m..m lattice points, with mean 0 and the variance of a normal."""
    if deviation < spacing:
        side = 0.5 * (deviation / spacing) ** 2
        return np.array([side, 1 - 2 * side, side])
    points = math.ceil(9 * deviation / spacing)
    density = np.exp(-0.5 * (np.arange(-points, points + 1) * spacing / deviation) ** 2)
    moves: Values = density / density.sum()
    return moves


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


def choose(index: Values, noise: Values) -> NDArray[np.int64]:
    """The arm with the highest index `(N,)`, the highest `noise` `(N, k)` in (0, 1) deciding between equals."""
    best: NDArray[np.int64] = np.where(index == index.max(1, keepdims=True), noise, -1.0).argmax(1)
    return best


@dataclass(frozen=True)
class Play:
    """What was pulled and paid in E trials of T tasks.

    Attributes:
        arms: `(T, E, n)` arm pulled.
        rewards: `(T, E, n)` what it paid.
    """

    arms: NDArray[np.int64]
    rewards: Values

    def regret(self, tasks: Tasks) -> Values:
        """Mean of the best arm minus mean of the arm pulled, `(T, E, n)`."""
        mean = tasks.arrays["mean"]
        pulled = np.take_along_axis(mean[:, None, :], self.arms, axis=2)
        lost: Values = mean.max(1)[:, None, None] - pulled
        return lost


@dataclass(frozen=True)
class BanditSolver:
    """A strategy on a family of bandits.

    Attributes:
        family: the bandits; its prior is the one of the train and test splits.
        strategy: how to choose an arm.
    """

    family: BanditFamily
    strategy: Strategy

    def play(self, tasks: Tasks, trials: int, key: Key) -> Play:
        """Play `trials` trials of each task, each beginning with the prior.

        Args:
            tasks: T tasks of the family.
            trials: E.
            key: names the streams of rewards and choices.
        """
        size = max(1, BATCH // (trials * self.family.arms))
        parts = [self._play(tasks[start : start + size], trials, key) for start in range(0, len(tasks), size)]
        return Play(np.concatenate([p.arms for p in parts]), np.concatenate([p.rewards for p in parts]))

    def _play(self, tasks: Tasks, trials: int, key: Key) -> Play:
        env = self.family.make_vec(tasks, trials)
        rng = Rows([key("choice", *tasks.place(t)).numpy() for t in range(len(tasks))], trials)
        env.reset(seed=key("reward").integer())
        shape, rows = (env.num_envs, self.family.arms), np.arange(env.num_envs)
        belief = Belief(self.family.likelihood, np.zeros(shape), np.zeros(shape))
        arms = np.empty((env.num_envs, self.family.pulls), np.int64)
        rewards = np.empty((env.num_envs, self.family.pulls))
        for t in range(self.family.pulls):
            arms[:, t] = choose(self.strategy.index(belief, t, rng), rng.random(shape))
            rewards[:, t] = env.step(arms[:, t])[1]
            belief.count[rows, arms[:, t]] += 1
            belief.total[rows, arms[:, t]] += rewards[:, t]
        return Play(arms.reshape(len(tasks), trials, -1), rewards.reshape(len(tasks), trials, -1))

    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Mean total reward of `budget.episodes` trials a task, one score; `budget.steps` has no meaning here."""
        played = self.play(tasks, budget.episodes, Key(seed)("bandit solver"))
        return Scores(
            values=played.rewards.sum(2).mean(1, keepdims=True),
            gradient_steps=None,
            env_steps=(0,),
            shots=None,
            kind="return",
            protocol=f"adapts within a trial of {self.family.pulls} pulls; {budget.episodes} fresh trials a score",
            regret=played.regret(tasks).mean(1),
        )


def constants(family: BanditFamily) -> tuple[float, float, float]:
    """(epsilon, UCB1's width, Gittins' discount) chosen for the pulls and arms nearest to the family's, by ratio."""

    def distance(cell: tuple[int, int]) -> float:
        return math.hypot(math.log(cell[0] / family.pulls), 0.1 * math.log(cell[1] / family.arms))

    return CONSTANTS[min(CONSTANTS, key=distance)]


STRATEGIES: dict[str, Callable[[BanditFamily], Strategy]] = {
    "random": lambda family: Random(),
    "gittins": lambda family: Gittins(constants(family)[2], family.pulls),
    "thompson": lambda family: Thompson(),
    "optimistic-thompson": lambda family: OptimisticThompson(),
    "ucb1": lambda family: UCB1(constants(family)[1]),
    "epsilon-greedy": lambda family: EpsilonGreedy(constants(family)[0]),
    "greedy": lambda family: Greedy(),
    "bayes-optimum": lambda family: BayesOptimum(family.arms, family.pulls),
}


def solver(name: str, family: Any) -> BanditSolver:
    """A solver by its name, with the constants chosen for the family.

    Raises:
        UserError: there is no such solver, or the family is no bandit.
    """
    if name not in STRATEGIES:
        raise UserError(f"no bandit solver {name!r}; choose from {', '.join(STRATEGIES)}")
    if not hasattr(family, "likelihood"):
        raise UserError(f"{name} plays bandits, and {getattr(family, 'name', family)} is none")
    return BanditSolver(family, STRATEGIES[name](family))
