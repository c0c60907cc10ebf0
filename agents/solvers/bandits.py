"""Classical solvers of Bernoulli and Gaussian bandits: what a learned agent has to beat.

All of them know the prior the arms are drawn from and keep the exact posterior of every arm. A strategy gives each arm
an index and the arm with the highest is pulled, ties broken by chance (`metarl.agents.solvers.bandit_strategies`).

UCB1's width, epsilon and Gittins' discount are constants chosen on validation tasks by
`scripts/reproduce.py bandit --tune` (`CONSTANTS`).

As an `Adaptable` a solver has one score a task: its mean total reward over trials that each begin with
the prior. Adaptation happens inside the trial; the regret of every pull shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metarl.agents.solvers.acting_bandit import ActingBandit
from metarl.agents.solvers.bandit_belief import Belief
from metarl.agents.solvers.bandit_strategies import (
    UCB1,
    BayesOptimum,
    EpsilonGreedy,
    Gittins,
    Greedy,
    OptimisticThompson,
    Random,
    Strategy,
    Thompson,
)
from metarl.agents.solvers.streams import choice_streams, in_parts
from metarl.errors import UserError
from metarl.learning.acting import Acts, check_counts
from metarl.learning.contract import Budget, Scores
from metarl.learning.places import Place, Where, place
from metarl.sampling.episodes import Episodes
from metarl.seeding import Key
from metarl.tasks import Tasks, TaskVectorEnv

Values = NDArray[np.float64]

BATCH = 100_000  # arms at once: their arrays stay in the cache

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
class BanditSolver(Acts):
    """A strategy on a family of bandits.

    Attributes:
        family: the bandits; its prior is the one of the train and test splits.
        strategy: how to choose an arm.
    """

    family: BanditFamily
    strategy: Strategy

    def adapt(self, where: Where, steps: int | None = None, *, episodes: int = 40, seed: int = 0) -> ActingBandit:
        """The strategy on one bandit, at the start of a trial: all adapting is within. See `Acts.adapt`."""
        check_counts(steps or 0, episodes)
        family: Any = self.family
        return ActingBandit(place(family, where), self.strategy, family, Key(seed)("bandit solver", "act"))

    def unadapted(self) -> ActingBandit:
        """The same: at the start of a trial nothing is known."""
        family: Any = self.family
        return ActingBandit(Place(family, None, None), self.strategy, family, Key(0)("bandit solver", "act"))

    def play(self, tasks: Tasks, trials: int, key: Key) -> Play:
        """Play `trials` trials of each task, each beginning with the prior.

        Args:
            tasks: T tasks of the family.
            trials: E.
            key: names the streams of rewards and choices.
        """
        size = max(1, BATCH // (trials * self.family.arms))
        parts = [self._play(part, trials, key) for part in in_parts(tasks, size)]
        return Play(np.concatenate([p.arms for p in parts]), np.concatenate([p.rewards for p in parts]))

    def _play(self, tasks: Tasks, trials: int, key: Key) -> Play:
        env = self.family.make_vec(tasks, trials)
        rng = choice_streams(tasks, trials, key)
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

    def advise(self, episodes: Episodes, tasks: Tasks, key: Key) -> NDArray[np.bool_]:
        """Which arms are best at every pull of trials, `(N, n, k)`; see `metarl.learning.teacher.Teacher`."""
        arms, rewards = episodes.actions.flatten(0, 1).numpy(), episodes.rewards.flatten(0, 1).double().numpy()
        (n, pulls), shape, rows = arms.shape, (len(arms), self.family.arms), np.arange(len(arms))
        belief, rng = Belief(self.family.likelihood, np.zeros(shape), np.zeros(shape)), key("advice").numpy()
        best = np.empty((n, pulls, self.family.arms), bool)
        for t in range(pulls):
            index = self.strategy.index(belief, t, rng)
            best[:, t] = index == index.max(1, keepdims=True)
            belief.count[rows, arms[:, t]] += 1
            belief.total[rows, arms[:, t]] += rewards[:, t]
        return best

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
