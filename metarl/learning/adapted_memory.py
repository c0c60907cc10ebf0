"""A policy that adapts in its memory, put on one task: what it is told between two actions, and what it keeps.

It was trained to see, beside an observation, its previous action, the reward that brought, and whether an episode has
just ended. Its state remembers the action; the end is `predict`'s `episode_start`, and the reward is `reward=`:

    action, state = adapted.predict(obs, state, episode_start=ended, reward=reward)

The state lasts over the episodes of a trial; a new trial begins with None. Where observations are those of
`metarl.envs.wrappers.trials.RL2Env`, which hold all this already, nothing else needs to be given, and
`episode_start` begins a new trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.errors import UserError, shown
from metarl.learning.acting import Adapted
from metarl.learning.places import Place
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.nets.params import Params
from metarl.seeding import Key
from metarl.tasks import Array
from metarl.tasks.spaces import described


class Estimator(Protocol):
    """What is shown of a trial beside observation, previous action, reward and end, such as values."""

    @property
    def size(self) -> int:
        """How many numbers."""

    def __call__(self, seen: Array, known: Any) -> tuple[Array, Any]:
        """What is seen, with the estimates; and what is known now, a NamedTuple of `(N, ...)`, None at the start."""


@dataclass(frozen=True)
class TrialState:
    """What the agent knows of N trials.

    Attributes:
        memory: `(N, ...)`, the policy's.
        action: `(N, ...)`, what it did last, in the family's units; None at the start of a trial.
        reward: `(N,)`, what that brought; None as long as it has not been told.
        ended: `(N,)`, whether that ended an episode, as far as it has been told.
        known: arrays `(N, ...)`, what the estimator has seen; None at the start, and where there is none.
    """

    memory: Tensor
    action: Array | None = None
    reward: Array | None = None
    ended: NDArray[np.bool_] | None = None
    known: Any = None

    def __len__(self) -> int:
        return self.memory.shape[0]


class AdaptedMemory(Adapted):
    """A recurrent policy and what it remembers.

    Attributes:
        policy: what acts.
        params: of the policy, one set.
        start: the state that `predict` begins with where it is given none.
        estimator: what the policy is shown besides; None for nothing.
    """

    def __init__(
        self,
        where: Place,
        policy: RecurrentPolicy,
        params: Params,
        key: Key,
        start: TrialState | None = None,
        estimator: Estimator | None = None,
        **cost: Any,
    ) -> None:
        super().__init__(where, **cost)
        self.estimator = estimator
        self.policy = policy
        self.params = params
        self.start = start or TrialState(policy.start(1, self._device))
        self._rng = key.numpy()

    @property
    def _device(self) -> torch.device:
        return next(iter(self.params.values())).device

    def _sizes(self) -> tuple[tuple[int, ...], ...]:
        return *super()._sizes(), (self._seen,)

    @property
    def _seen(self) -> int:
        """Numbers in an observation of a trial, as `RL2Env` gives it."""
        return self.policy.inputs - (0 if self.estimator is None else self.estimator.size)

    def after_episodes(self, where: Place, count: int, key: Key, *, likeliest: bool) -> AdaptedMemory:
        """The same memory after it has acted in episodes of a trial, one or more."""
        env, horizon = where.environment(), where.family.horizon
        returns, steps = [0.0] * count, 0
        state, reward, ended = self.start, None, False
        for episode in range(count):
            obs = where.begin(env, key("start", episode))
            ended = episode > 0
            for _ in range(horizon):
                action, state = self.predict(obs, state, ended, likeliest, reward=reward)
                obs, reward, terminated, truncated = where.step(env, action)
                returns[episode] += reward
                steps, ended = steps + 1, False
                if terminated or truncated:
                    break
        if where.env is None:
            env.close()
        told = TrialState(state.memory, state.action, np.array([reward]), np.array([True]), state.known)
        cost = {"steps": count, "env_steps": steps, "returns": tuple(returns)}
        return AdaptedMemory(where, self.policy, self.params, key("action", "after"), told, self.estimator, **cost)

    @plain_torch()
    def _act(
        self, obs: Array, state: Any, starts: NDArray[np.bool_], rewards: Array | None, deterministic: bool
    ) -> tuple[Array, Any]:
        before = _repeated(self.start, len(obs)) if state is None else state
        if not isinstance(before, TrialState) or len(before) != len(obs):
            raise UserError(f"the state must be what predict returned for {len(obs)} observations, got {shown(state)}")
        memory = before.memory
        if obs.shape[1] == self._seen:  # of a trial, with all that there is to be told
            fresh = self.policy.start(len(obs), self._device)
            at_start = torch.from_numpy(starts).to(memory.device).view(-1, *[1] * (memory.ndim - 1))
            memory, seen = torch.where(at_start, fresh, memory), obs
        else:
            seen = np.concatenate([obs, self._told(before, starts, rewards)], 1)
        known = None
        if self.estimator is not None:
            seen, known = self.estimator(seen, before.known)
        with torch.no_grad():
            decision = self.policy.step(self.params, torch.from_numpy(seen.astype("float32")).to(self._device), memory)
            distribution = decision.distribution
            if deterministic:
                drawn = distribution.mode()
            else:
                noise = torch.from_numpy(self.policy.noise(self._rng, (len(obs),))).to(self._device)
                drawn = distribution.sample(noise)
        actions: Array = drawn.cpu().numpy()
        return actions, TrialState(decision.state, actions, known=known)

    def _told(self, state: TrialState, starts: NDArray[np.bool_], rewards: Array | None) -> Array:
        """What follows the observation of a trial: `(N, action_size + 2)`."""
        ended = starts if state.ended is None else starts | state.ended
        if state.action is None or state.reward is not None:
            if rewards is not None and rewards.any():
                raise UserError(
                    f"no action of this trial has brought the reward {shown(rewards)}: give none at its start"
                )
            rewards = state.reward
        elif rewards is None:
            raise UserError(
                "this agent learns from rewards: give predict(obs, state, reward=...) what the last action brought"
            )
        if state.action is None:  # the start of a trial: all is 0
            size: int = self._seen - self._sizes()[0][0]
            return np.zeros((len(state), size))
        assert rewards is not None
        return np.concatenate([described(self._family.action_space, state.action), rewards[:, None], ended[:, None]], 1)


def _repeated(state: TrialState, n: int) -> TrialState:
    """The state of one trial, as that of n."""
    memory = state.memory.expand(n, *state.memory.shape[1:]).clone()
    action, reward, ended = (
        None if part is None else np.repeat(part, n, 0) for part in (state.action, state.reward, state.ended)
    )
    known = None if state.known is None else state.known._make(np.repeat(part, n, 0) for part in state.known)
    return TrialState(memory, action, reward, ended, known)
