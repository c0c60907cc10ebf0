"""Acting: an agent put on one task, then used step by step, with the signature of Stable-Baselines3's `predict`.

    adapted = agent.adapt(env, steps=3)      # or a task: it collects episodes there, and learns from them
    obs, _ = env.reset()
    state = None
    while True:
        action, state = adapted.predict(obs, state)
        obs, reward, terminated, truncated, _ = env.step(action)

An environment is any Gymnasium environment with the family's spaces, or with those that `GymFamily` maps to them:
what `family.make(task)` or `gymnasium.make("metarl/...")` gives, or one of your own. Actions are members of its own
action space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from metarl.errors import NonFiniteError, UserError, shown
from metarl.learning.places import Place, Where
from metarl.nets.distributions import NO_ACTION
from metarl.tasks import Array
from metarl.tasks.data import within_float32
from metarl.tasks.spaces import member


class Adapted(ABC):
    """An agent on one task; made by its `adapt`.

    Attributes:
        action_space: what its actions are members of.
        steps: bits of adaptation it has done: gradient steps, or episodes in memory.
        env_steps: environment steps that these took.
        returns: mean return of the episodes that each of them learned from.
    """

    def __init__(self, where: Place, steps: int = 0, env_steps: int = 0, returns: tuple[float, ...] = ()) -> None:
        self.action_space = where.action_space
        self.steps = steps
        self.env_steps = env_steps
        self.returns = returns
        self._family = where.family

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        *,
        reward: Any = None,
    ) -> tuple[Any, Any]:
        """Actions for an observation, or for N of them; with the signature of Stable-Baselines3.

        Args:
            observation: one, or N along the first axis (then actions, states and the arguments below are of N too).
            state: what the call before returned; None at the start, and where there is none.
            episode_start: whether an episode has just begun; memories are told that one has ended, and go on.
            deterministic: take the most likely actions; otherwise they are drawn.
            reward: what the last action brought. Agents that learn in their memory need it; others do not look at it.

        Returns:
            Members of `action_space`, and the state for the next call.

        Raises:
            UserError: an argument has another shape or is not finite, or the reward is missing.
        """
        obs = _array(observation, "an observation")
        single = self._is_single(obs)
        rows = obs[None] if single else obs
        if rows.dtype.kind not in "biuf" or not within_float32(rows):
            raise UserError(f"an observation must be finite numbers, got {shown(obs)}")
        starts = (
            np.zeros(len(rows), bool) if episode_start is None else _rows(episode_start, len(rows), "episode_start")
        )
        rewards = None if reward is None else _rows(reward, len(rows), "reward").astype(np.float64)
        actions, state = self._act(rows, state, starts.astype(bool), rewards, deterministic)
        own = self._own(actions)
        return (own[0] if single else own), state

    @abstractmethod
    def _act(
        self, obs: Array, state: Any, starts: NDArray[np.bool_], rewards: Array | None, deterministic: bool
    ) -> tuple[Array, Any]:
        """Actions in the family's units for N observations, and the next state; see `predict`."""

    def _sizes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that one observation may have."""
        return (self._family.observation_space.shape or (),)

    def _is_single(self, obs: Array) -> bool:
        for shape in self._sizes():
            if obs.shape == shape:
                return True
            if obs.shape[1:] == shape and obs.ndim == len(shape) + 1 and len(obs):
                return False
        wanted = " or ".join(map(str, self._sizes()))
        raise UserError(
            f"an observation of {self._family.name} has shape {wanted}, N of them (N, ...); got shape {obs.shape}"
        )

    def _own(self, actions: Array) -> Array:
        """The members of `action_space` for actions `(N, ...)` in the family's units."""
        if (actions == NO_ACTION).any() or not np.isfinite(actions).all():
            raise NonFiniteError(f"an action is not finite in {self._family.name}")
        if self.action_space != self._family.action_space:
            return np.stack([member(self.action_space, action) for action in actions])
        return np.clip(actions, -1.0, 1.0) if isinstance(self.action_space, Box) else actions


def _array(values: Any, what: str) -> Array:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors that NumPy cannot read
        raise UserError(f"{what} is no array: {' '.join(str(error).split())}") from None


def _rows(values: Any, n: int, what: str) -> Array:
    """`(n,)` of one value or n of them."""
    array = _array(values, what)
    if array.shape not in ((), (1,), (n,)) or array.dtype.kind not in "biuf" or not within_float32(array):
        raise UserError(f"{what} is one finite number, or {n} of them; got {shown(values)}")
    return np.broadcast_to(array, (n,))


class Acts(ABC):
    """An agent that can be put on a task, and used."""

    @abstractmethod
    def adapt(self, where: Where, steps: int | None = None, *, episodes: int = 40, seed: int = 0) -> Adapted:
        """The agent adapted to one task.

        Args:
            where: a task of the family, or an environment that runs one; see `metarl.learning.acting`.
            steps: bits of adaptation: gradient steps, or episodes in memory; see the agent for how many there are by
                default.
            episodes: to collect for a gradient step.
            seed: names the streams of adapting, and of the actions drawn afterwards.

        Raises:
            UserError: there is nothing to adapt to there, in one line.
            NonFiniteError: adapting led to numbers that are not finite.
        """

    @abstractmethod
    def unadapted(self) -> Adapted:
        """The agent before it has adapted to anything, acting in the family's units."""

    @cached_property
    def _unadapted(self) -> Adapted:
        return self.unadapted()

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        *,
        reward: Any = None,
    ) -> tuple[Any, Any]:
        """Actions before any adaptation; see `Adapted.predict`."""
        return self._unadapted.predict(observation, state, episode_start, deterministic, reward=reward)


class PlansTrials(Acts):
    """An agent that plays whole trials of a family at once, and says that it cannot be used step by step."""

    def adapt(self, where: Where, steps: int | None = None, *, episodes: int = 40, seed: int = 0) -> Adapted:
        """Refused.

        Raises:
            UserError: always.
        """
        raise UserError(f"{type(self).__name__} plans whole trials and does not act step by step; it has a curve")

    def unadapted(self) -> Adapted:
        """Refused, as `adapt`."""
        return self.adapt(None)


def check_counts(steps: Any, episodes: Any = 1) -> None:
    """Check how much an agent is to adapt.

    Raises:
        UserError: it is no number of steps or of episodes.
    """
    for name, value, least in (("steps", steps, 0), ("episodes", episodes, 1)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise UserError(f"{name} is {shown(value)}; it must be a whole number, at least {least}")
