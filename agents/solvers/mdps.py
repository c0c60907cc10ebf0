"""Classical solvers of random tabular MDPs: what a learned agent has to beat.

All of them know the prior (Dirichlet(1) transitions, mean rewards N(1, 1), unit noise) and keep the exact
posterior. At the start of each episode a strategy turns the posterior into a policy for the episode's H
steps (`metarl.agents.solvers.mdp_strategies`); `online-beb` does so at every step of it, for the steps that
are left, as Kolter and Ng 2009 do. Its constants are chosen on validation tasks by
`scripts/reproduce.py tabular_mdp --tune` (`CONSTANTS`).

As an `Adaptable` a solver has a score for each of the family's n episodes: score k is the mean return of
episode k + 1 of trials that each begin with the prior, after k H environment steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metarl.agents.solvers.mdp_strategies import (
    BEB,
    PSRL,
    UCRL2,
    EpsilonGreedy,
    Greedy,
    KnownMDP,
    OptimisticPSRL,
    Random,
    Strategy,
)
from metarl.agents.solvers.streams import choice_streams, in_parts
from metarl.envs.tabular_belief import Belief
from metarl.errors import UserError
from metarl.learning.acting import PlansTrials
from metarl.learning.contract import Budget, Scores
from metarl.sampling.episodes import Episodes
from metarl.seeding import AnyGenerator, Key
from metarl.tasks import Task, Tasks, TaskVectorEnv

Values = NDArray[np.float64]

BATCH = 500  # trials played at once: their posteriors stay in the cache
ONLINE = ("online-beb",)  # those that plan anew at every step
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


@dataclass(frozen=True)
class MDPSolver(PlansTrials):
    """A strategy on a family of tabular MDPs.

    Attributes:
        family: the MDPs; its prior is the one of the train and test splits.
        strategy: how to plan an episode.
        prior_mean: what it believes mean rewards to be before it has seen any; 1 is the truth.
        online: plan anew at every step, for what is left of the episode, instead of once an episode.
    """

    family: MDPFamily
    strategy: Strategy
    prior_mean: float = 1.0
    online: bool = False

    def play(self, tasks: Tasks, trials: int, key: Key) -> Values:
        """Returns of the n episodes of `trials` trials of each task, `(T, E, n)`; each begins with the prior.

        Args:
            tasks: T tasks of the family.
            trials: E.
            key: names the streams of environment and choices.
        """
        return np.concatenate([self._play(part, trials, key) for part in in_parts(tasks, max(1, BATCH // trials))])

    def _play(self, tasks: Tasks, trials: int, key: Key) -> Values:
        family, env = self.family, self.family.make_vec(tasks, trials)
        rng = choice_streams(tasks, trials, key)
        n, rows = env.num_envs, np.arange(env.num_envs)
        belief = Belief.prior(n, family.states, family.actions, self.prior_mean)
        returns = np.zeros((n, family.episodes))
        for episode in range(family.episodes):
            obs, _ = env.reset(seed=key("world", episode).integer())
            state = obs.argmax(1)
            for h in range(family.steps):
                if self.online or h == 0:
                    worth = self._worth(belief, env.task, episode * family.steps + h, rng)
                    policy = (worth + TIE * rng.random((n, 1, family.states, family.actions))).argmax(-1)
                action = policy[rows, 0 if self.online else h, state]
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

    def _worth(self, belief: Belief, task: Task, t: int, rng: AnyGenerator) -> Values:
        """What each action is thought to be worth at steps t, t + 1, ... of a trial, to the end of the episode."""
        return self.strategy.worth(belief, task, t, self.family.steps - t % self.family.steps, rng)

    def advise(self, episodes: Episodes, tasks: Tasks, key: Key) -> NDArray[np.bool_]:
        """Which actions are best at every moment of trials, `(N, H, A)`; see `metarl.learning.teacher.Teacher`.

        It knows what the agent has seen, so not in which state an episode ended.
        """
        observed, rewards = episodes.obs.flatten(0, 1).numpy(), episodes.rewards.flatten(0, 1).double().numpy()
        actions, replicas = episodes.actions.flatten(0, 1).numpy(), episodes.actions.shape[1]
        task = {name: array.repeat(replicas, 0) for name, array in tasks.arrays.items()}
        states, parts = observed[..., : self.family.states].argmax(-1), []
        for i in range(0, len(states), BATCH):
            mine, rng = slice(i, i + BATCH), key("advice", i).numpy()
            part = {name: array[mine] for name, array in task.items()}
            parts.append(self._advise(states[mine], actions[mine], rewards[mine], part, rng))
        return np.concatenate(parts)

    def _advise(
        self,
        states: NDArray[np.int64],
        actions: NDArray[np.int64],
        rewards: Values,
        task: Task,
        rng: AnyGenerator,
    ) -> NDArray[np.bool_]:
        (n, horizon), steps, rows = states.shape, self.family.steps, np.arange(len(states))
        belief = Belief.prior(n, self.family.states, self.family.actions, self.prior_mean)
        best = np.empty((n, horizon, self.family.actions), bool)
        for t in range(horizon):
            if self.online or t % steps == 0:
                planned, worth = t, self._worth(belief, task, t, rng)
            here = worth[rows, t - planned, states[:, t]]
            best[:, t] = here >= here.max(-1, keepdims=True) - TIE
            following = states[:, (t + 1) % horizon]
            belief.update(states[:, t], actions[:, t], rewards[:, t], following, entered=bool((t + 1) % steps))
        return best

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
    "online-beb": lambda family: BEB(constants(family)[1]),
    "epsilon-greedy": lambda family: EpsilonGreedy(constants(family)[0]),
    "greedy": lambda family: Greedy(),
    "informed": lambda family: KnownMDP(),
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
    return MDPSolver(family, STRATEGIES[name](family), online=name in ONLINE)
