"""Trials of tabular MDPs with value iteration's estimates beside what is observed (RL3, Bhatia et al. 2023).

    observation, estimates, previous action, previous reward, 1 if an episode has just ended

At every moment the MDP of posterior means is planned in for the steps that are left of the episode. The estimates are
of the state one is in: what each action is worth there less what the best is, and 1 / (1 + visits) of each action.

Deviations: the model is the posterior mean, as the family's prior is known, not the maximum-likelihood one; the horizon
is the episode's, without discount.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from metarl.envs.tabular_belief import Belief
from metarl.envs.tabular_mdp import TabularMDP
from metarl.envs.tabular_planning import model, plan
from metarl.envs.wrappers.trials import Trials
from metarl.envs.wrappers.wrapper import FamilyWrapper, split_infos
from metarl.errors import UserError
from metarl.tasks import Array, Tasks, TaskVectorEnv

Values = NDArray[np.float64]


class Known(NamedTuple):
    """What N trials have shown so far."""

    concentration: Values  # (N, S, A, S), as `Belief` says
    visits: Values  # (N, S, A)
    total: Values  # (N, S, A)
    state: NDArray[np.int64]  # (N,), the one they are in
    step: NDArray[np.int64]  # (N,), steps taken in the present episode


@dataclass(frozen=True)
class Estimator:
    """Value iteration's estimates in trials of a family of MDPs.

    Attributes:
        states: S.
        actions: A.
        steps: of an episode.
    """

    states: int
    actions: int
    steps: int

    @property
    def size(self) -> int:
        """How many estimates there are at a moment."""
        return 2 * self.actions

    def __call__(self, seen: Array, known: Known | None) -> tuple[Array, Known]:
        """What is seen with the estimates after the observation, and what is known now.

        Args:
            seen: `(N, S + A + 2)`, observations of trials; a row without a previous action begins a trial.
            known: from the moment before, left as it is; None at the start of all trials.

        Returns:
            `(N, S + size + A + 2)`, and what to give the next time.
        """
        n, everyone = len(seen), np.arange(len(seen))
        now, acted = seen[:, : self.states].argmax(1), seen[:, self.states : self.states + self.actions]
        begins, ended = ~acted.any(1), seen[:, -1] > 0
        belief = Belief.prior(n, self.states, self.actions)
        step = np.zeros(n, np.int64)
        if known is not None:
            rows = np.flatnonzero(~begins)
            for fresh, old in zip((belief.concentration, belief.count, belief.total), known[:3], strict=True):
                fresh[rows] = old[rows]
            pair = rows, known.state[rows], acted[rows].argmax(1)
            belief.concentration[(*pair, now[rows])] += ~ended[rows]
            belief.count[pair] += 1
            belief.total[pair] += seen[rows, -2]
            step[rows] = np.where(ended[rows], 0, known.step[rows] + 1)
        left = np.maximum(self.steps - step, 1)
        longest = int(left.max())
        worth = plan(model(belief.reward, belief.transition), n, self.states, longest)[everyone, longest - left, now]
        advantage, novelty = worth - worth.max(1, keepdims=True), 1 / (1 + belief.count[everyone, now])
        shown = np.concatenate([seen[:, : self.states], advantage, novelty, seen[:, self.states :]], 1)
        return shown, Known(belief.concentration, belief.count, belief.total, now, step)


@dataclass(frozen=True)
class ValueTrials(FamilyWrapper):
    """Trials of a family of tabular MDPs, with estimates.

    Attributes:
        family: the trials.

    Raises:
        UserError: they are of another family.
    """

    name: ClassVar[str] = "metarl/ValueTrials"
    presets: ClassVar[tuple[str, ...]] = ("rl3",)

    preset: str = "rl3"
    family: Trials = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.family.family, TabularMDP):
            raise UserError(f"values are estimated in tabular MDPs, and {self.family.family.name} is none")

    @property
    def estimator(self) -> Estimator:
        """What makes the estimates, for whoever acts without these trials."""
        mdp = self.family.family
        assert isinstance(mdp, TabularMDP)
        return Estimator(mdp.states, mdp.actions, mdp.steps)

    @property
    def episodes(self) -> int:
        """Of a trial."""
        return self.family.episodes

    @property
    def horizon(self) -> int:
        """The most steps of a trial."""
        return self.family.horizon

    @property
    def observation_space(self) -> Box:
        """`(S + 2 A + A + 2,)`."""
        inner, made = self.family.observation_space, self.estimator
        low, high = (
            np.concatenate([ends[: made.states], of_values, of_novelty, ends[made.states :]])
            for ends, of_values, of_novelty in (
                (inner.low, np.full(made.actions, -np.inf), np.zeros(made.actions)),
                (inner.high, np.zeros(made.actions), np.ones(made.actions)),
            )
        )
        return Box(low, high, dtype=np.float64)

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> ValueTrialVectorEnv:
        """All tasks x replicas, each a trial."""
        return ValueTrialVectorEnv(self, tasks, replicas, self.family.make_vec(tasks, replicas, threads=threads))


class ValueTrialVectorEnv(TaskVectorEnv):
    """N trials stepped at once, with estimates.

    Attributes:
        inner: the trials.
    """

    family: ValueTrials

    def __init__(self, family: ValueTrials, tasks: Tasks, replicas: int, inner: TaskVectorEnv) -> None:
        self.inner = inner
        super().__init__(family, tasks, replicas)
        self._inner_info: dict[str, Array] = {}
        self._known: Known | None = None
        self._shown = np.empty((0, 0))

    def _set_tasks(self, tasks: Tasks) -> None:
        super()._set_tasks(tasks)
        self.inner._set_tasks(tasks)

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        seed = self._key("inner").integer() if self._new_streams else None
        seen, self._inner_info = self.inner.reset(seed=seed, options={"reset_mask": mask})
        shown, known = self.family.estimator(seen, None)
        if self._known is not None and not mask.all():  # who goes on knows what it knew, and is shown it again
            for fresh, old in zip((*known, shown), (*self._known, self._shown), strict=True):
                fresh[~mask] = old[~mask]
        self._known, self._shown = known, shown
        return shown

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        seen, _, terminated, _, infos = self.inner.step(actions)
        terms, self._inner_info = split_infos(infos)
        self._shown, self._known = self.family.estimator(seen, self._known)
        return self._shown, terms, terminated

    def _info(self) -> dict[str, Array]:
        return self._inner_info

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """The trial's picture."""
        return self.inner.render_frame(index)

    def close_extras(self, **kwargs: Any) -> None:
        """Release the trials."""
        self.inner.close()
