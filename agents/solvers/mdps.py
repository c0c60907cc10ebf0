"""Classical solvers of random tabular MDPs: what a learned agent has to beat.

All of them know the prior (Dirichlet(1) transitions, mean rewards N(1, 1), unit noise) and keep the exact
posterior. At the start of each episode a strategy turns the posterior into a policy for the episode's H
steps, by planning backwards in

- `PSRL`: an MDP drawn from the posterior (Strens 2000; Osband et al. 2013);
- `OptimisticPSRL`: the best of several such MDPs, for each state, action and time (TabulaRL, Osband's code);
- `UCRL2`: the best MDP within confidence bounds (Jaksch et al. 2010), planned for H steps;
- `BEB`: the mean MDP with a bonus for what was seldom tried (Kolter and Ng 2009);
- `Greedy`, `EpsilonGreedy`: the mean MDP, the latter with random actions now and then;
- `Informed`: the true MDP. It is told the task: an upper bound for all, and no learner;
- `Random`: nothing.

Deviations: UCRL2 replans every episode, centres its bounds on the posterior mean and multiplies both
published widths by one constant. The constants are chosen on validation tasks by
`scripts/solver_tables.py tune` (`CONSTANTS`).

As an `Adaptable` a solver has a score for each of the family's n episodes: score k is the mean return of
episode k + 1 of trials that each begin with the prior, after k H environment steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.learning.contract import Budget, Scores
from metarl.seeding import AnyGenerator, Key, Rows
from metarl.tasks import Task, Tasks, TaskVectorEnv

Values = NDArray[np.float64]
Backup = Callable[[Values], Values]  # the value of each state next step (N, S) to that of each action now (N, S, A)

BATCH = 500  # trials played at once: their posteriors stay in the cache
CONFIDENCE = 0.05  # the chance UCRL2's published bounds leave for being wrong
TIE = 1e-9  # equal actions are told apart by noise of this size, drawn anew every episode

# episodes -> constants with the best validation return:
# (epsilon, BEB's bonus, UCRL2's scale, optimistic PSRL's samples)
CONSTANTS: dict[int, tuple[float, float, float, int]] = {
    10: (0.0, 12.0, 0.02, 2),
    25: (0.0, 12.0, 0.03, 10),
    50: (0.0, 12.0, 0.03, 10),
    75: (0.05, 12.0, 0.03, 5),
    100: (0.05, 12.0, 0.03, 5),
}


class MDPFamily(Protocol):
    """What a solver needs to know about a family."""

    @property
    def name(self) -> str:
        """Its id."""

    @property
    def states(self) -> int:
        """S."""

    @property
    def actions(self) -> int:
        """A."""

    @property
    def steps(self) -> int:
        """Steps of an episode, H."""

    @property
    def episodes(self) -> int:
        """Episodes of a trial, n."""

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> TaskVectorEnv:
        """All tasks x replicas as one environment."""


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
        mean: Values = self.concentration / (self.count + self.concentration.shape[-1])[..., None]
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
        self, state: NDArray[np.int64], action: NDArray[np.int64], reward: Values, to: NDArray[np.int64]
    ) -> None:
        """Take in one transition of each MDP, each `(N,)`."""
        rows = np.arange(len(state))
        self.concentration[rows, state, action, to] += 1
        self.count[rows, state, action] += 1
        self.total[rows, state, action] += reward


def model(reward: Values, transition: Values) -> Backup:
    """The backup of known MDPs: reward `(N, S, A)`, transition `(N, S, A, S)`."""
    n, states, actions, _ = transition.shape
    flat = transition.reshape(n, states * actions, states)
    return lambda value: reward + (flat @ value[..., None]).reshape(n, states, actions)


def plan(backup: Backup, n: int, states: int, horizon: int) -> Values:
    """Backward induction.

    Args:
        backup: the model.
        n: MDPs, N.
        states: S.
        horizon: H.

    Returns:
        `(N, H, S, A)`, the expected return of an action at step h and the best ones from then on.
    """
    worth, value = [], np.zeros((n, states))
    for _ in range(horizon):
        worth.append(backup(value))
        value = worth[-1].max(-1)
    return np.stack(worth[::-1], axis=1)


class Strategy(ABC):
    """How to plan an episode."""

    epsilon: float = 0.0  # probability of a random action instead of the planned one

    @abstractmethod
    def backup(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Backup:
        """The model to plan an episode in.

        Args:
            belief: the posterior of N MDPs.
            task: the truth, arrays `(N, ...)`; for `Informed` only.
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


def most_hopeful(to: Values, radius: Values, value: Values) -> Values:
    """The highest expected `value` over distributions within an L1 `radius` of a transition.

    Up to radius / 2 moves to the best state, taken from the worst ones first.

    Args:
        to: `(N, S', S, A)` probability of the next state S', which comes first here.
        radius: `(N, S, A)`.
        value: `(N, S')`.

    Returns:
        `(N, S, A)`.
    """
    rows, order = np.arange(len(to)), value.argsort(-1).T  # the worst state first
    best = value[rows, order[-1]]
    left = np.minimum(radius / 2, 1 - to[rows, order[-1]])
    hopeful: Values = np.einsum("nz,nzsa->nsa", value, to)
    for state in order[:-1]:
        moved = np.minimum(to[rows, state], left)
        hopeful += moved * (best - value[rows, state])[:, None, None]
        left -= moved
    return hopeful


@dataclass(frozen=True)
class Informed(Strategy):
    """Plans in the true MDP."""

    def backup(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Backup:
        """The truth."""
        return model(task["reward"], task["transition"])


@dataclass(frozen=True)
class MDPSolver:
    """A strategy on a family of tabular MDPs.

    Attributes:
        family: the MDPs; its prior is the one of the train and test splits.
        strategy: how to plan an episode.
        prior_mean: what it believes mean rewards to be before it has seen any; 1 is the truth.
    """

    family: MDPFamily
    strategy: Strategy
    prior_mean: float = 1.0

    def play(self, tasks: Tasks, trials: int, key: Key) -> Values:
        """Returns of the n episodes of `trials` trials of each task, `(T, E, n)`; each begins with the prior.

        Args:
            tasks: T tasks of the family.
            trials: E.
            key: names the streams of environment and choices.
        """
        size = max(1, BATCH // trials)
        return np.concatenate(
            [self._play(tasks[start : start + size], trials, key) for start in range(0, len(tasks), size)]
        )

    def _play(self, tasks: Tasks, trials: int, key: Key) -> Values:
        family, env = self.family, self.family.make_vec(tasks, trials)
        rng = Rows([key("choice", *tasks.place(t)).numpy() for t in range(len(tasks))], trials)
        n, rows = env.num_envs, np.arange(env.num_envs)
        belief = Belief.prior(n, family.states, family.actions, self.prior_mean)
        returns = np.zeros((n, family.episodes))
        for episode in range(family.episodes):
            worth = self.strategy.worth(belief, env.task, episode * family.steps, family.steps, rng)
            policy = (worth + TIE * rng.random((n, 1, family.states, family.actions))).argmax(-1)
            obs, _ = env.reset(seed=key("world", episode).integer())
            state = obs.argmax(1)
            for h in range(family.steps):
                action = policy[rows, h, state]
                if self.strategy.epsilon:
                    explore, other = rng.random((n, 2)).T
                    random_action = (other * family.actions).astype(np.int64)
                    action = np.where(explore < self.strategy.epsilon, random_action, action)
                obs, reward, *_ = env.step(action)
                to = obs.argmax(1)
                belief.update(state, action, reward, to)
                returns[:, episode] += reward
                state = to
        return returns.reshape(len(tasks), trials, family.episodes)

    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Mean return of each of the family's n episodes over `budget.episodes` trials a task.

        The trial's length is the family's, so `budget.steps` has no meaning here.
        """
        episodes, steps = self.family.episodes, self.family.steps
        return Scores(
            values=self.play(tasks, budget.episodes, Key(seed)("MDP solver")).mean(1),
            gradient_steps=None,
            env_steps=tuple(k * steps for k in range(episodes)),
            shots=None,
            kind="return",
            protocol=f"adapts within a trial of {episodes} episodes; {budget.episodes} fresh trials a score",
        )


def constants(family: MDPFamily) -> tuple[float, float, float, int]:
    """(epsilon, BEB's bonus, UCRL2's scale, samples) chosen for the trial length nearest to the family's, by ratio."""
    return CONSTANTS[min(CONSTANTS, key=lambda episodes: abs(math.log(episodes / family.episodes)))]


STRATEGIES: dict[str, Callable[[MDPFamily], Strategy]] = {
    "random": lambda family: Random(),
    "psrl": lambda family: PSRL(),
    "optimistic-psrl": lambda family: OptimisticPSRL(constants(family)[3]),
    "ucrl2": lambda family: UCRL2(constants(family)[2]),
    "beb": lambda family: BEB(constants(family)[1]),
    "epsilon-greedy": lambda family: EpsilonGreedy(constants(family)[0]),
    "greedy": lambda family: Greedy(),
    "informed": lambda family: Informed(),
}


def solver(name: str, family: Any) -> MDPSolver:
    """A solver by its name, with the constants chosen for the family.

    Raises:
        UserError: there is no such solver, or the family is no tabular MDP.
    """
    if name not in STRATEGIES:
        raise UserError(f"no MDP solver {name!r}; choose from {', '.join(STRATEGIES)}")
    if not hasattr(family, "states"):
        raise UserError(f"{name} plays tabular MDPs, and {getattr(family, 'name', family)} is none")
    return MDPSolver(family, STRATEGIES[name](family))
