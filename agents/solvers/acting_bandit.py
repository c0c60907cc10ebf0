"""A bandit strategy put on one bandit, pull by pull: its state is what it has seen; `reward=` says what a pull paid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.agents.solvers.bandit_belief import Belief
from metarl.agents.solvers.bandit_strategies import Strategy
from metarl.errors import UserError
from metarl.learning.acting import Adapted
from metarl.learning.places import Place
from metarl.seeding import Key
from metarl.tasks import Array

Values = NDArray[np.float64]
Memory = tuple[Values, Values, int, NDArray[np.int64]]  # pulls and rewards of every arm (N, k), pulls in all, last arms


class ActingBandit(Adapted):
    """A strategy and its streams; a trial begins with the prior, where there is no state or an episode starts."""

    def __init__(self, where: Place, strategy: Strategy, family: Any, key: Key) -> None:
        super().__init__(where)
        self._strategy, self._bandit, self._rng = strategy, family, key.numpy()

    def _act(
        self, obs: Array, state: Any, starts: NDArray[np.bool_], rewards: Array | None, deterministic: bool
    ) -> tuple[Array, Any]:
        if starts.any() and not starts.all():
            raise UserError("these trials begin together, or have a state each: episode_start is true for some only")
        shape = (len(obs), self._bandit.arms)
        if state is None or starts.all():
            count, total, t = np.zeros(shape), np.zeros(shape), 0
        else:
            count, total, t = self._seen(state, shape, rewards)
        belief = Belief(self._bandit.likelihood, count, total)
        index = self._strategy.index(belief, t, self._rng)
        best = index == index.max(1, keepdims=True)
        arms = np.where(best, self._rng.random(shape), -1.0).argmax(1)  # ties are broken by chance
        return arms, (count, total, t, arms)

    def _seen(self, state: Memory, shape: tuple[int, int], rewards: Array | None) -> tuple[Values, Values, int]:
        """Pulls and rewards of every arm, and pulls in all, with the last pull and what it brought."""
        if rewards is None:
            raise UserError(
                "a solver learns from rewards: give predict(obs, state, reward=...) what the last pull paid"
            )
        count, total, t, arms = state
        if count.shape != shape:
            raise UserError(f"the state is of {len(count)} observations, got {shape[0]}")
        if t + 1 >= self._bandit.pulls:
            raise UserError(
                f"a trial of {self._bandit.name} has {self._bandit.pulls} pulls; begin another with state=None"
            )
        count, total, rows = count.copy(), total.copy(), np.arange(shape[0])
        count[rows, arms] += 1
        total[rows, arms] += rewards
        return count, total, t + 1
