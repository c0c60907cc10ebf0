"""Supervised lessons before reinforcement learning: a solver says what it would have done in trials of the agent.

    minimise  mean_t -log sum_{a in B_t} pi(a | h_t) + w (V_t - R_t)^2 / 2

B_t are the actions that a solver thinks best at moment t of a trial, knowing what the agent has seen of it. The trials
are the agent's own (DAgger without the expert's, Ross et al. 2011), so that it is told what to do where it comes to be,
and any of several best actions is right. The critic is fitted to the returns R_t meanwhile, and reinforcement
learning goes on from there with the optimiser as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.errors import UserError
from metarl.learning.settings import check_range
from metarl.nets.distributions import Categorical
from metarl.sampling.episodes import Episodes
from metarl.seeding import Key
from metarl.tasks import TaskFamily, Tasks


class Teacher(Protocol):
    """Who says what to do in trials that another has acted."""

    def advise(self, episodes: Episodes, tasks: Tasks, key: Key) -> NDArray[np.bool_]:
        """The best actions at every moment.

        Args:
            episodes: T x E trials of H steps, whose observations are those of trials.
            tasks: theirs, T.
            key: names the stream of a teacher that draws.

        Returns:
            `(T E, H, A)`, true for the best of A actions; several may be, one at least.
        """


@dataclass(frozen=True)
class Lessons:
    """A teacher for the first iterations.

    Attributes:
        teacher: who advises; None for nobody.
        iterations: so many.
    """

    teacher: Teacher | None = None
    iterations: int = 0

    def __call__(self, episodes: Episodes, tasks: Tasks, iteration: int, key: Key) -> Tensor | None:
        """The best actions, `(N, H, A)` bool, in the first iterations, and None afterwards."""
        if self.teacher is None or iteration >= self.iterations:
            return None
        return torch.from_numpy(self.teacher.advise(episodes, tasks, key))


NO_LESSONS = Lessons()


@dataclass(frozen=True)
class LessonSettings:
    """Settings of the lessons."""

    teacher: str | None = None
    """A solver (`metarl list agents`: gittins, online-beb, ...) whose actions are imitated first."""
    teacher_iterations: int = 0
    """Iterations of that, before the others."""

    def __post_init__(self) -> None:
        check_range(self, "teacher_iterations", least=0)
        if (self.teacher is None) != (self.teacher_iterations == 0):
            raise UserError(
                f"--teacher is {self.teacher} and --teacher-iterations {self.teacher_iterations}; give both, or neither"
            )

    def lessons(self, make: Callable[[str, TaskFamily], Any], family: TaskFamily, episodes: int, own: int) -> Lessons:
        """The lessons of the teacher, if there is one.

        Args:
            make: a solver of a name, for a family.
            family: whose trials they are.
            episodes: of a trial.
            own: of a trial that the solver plays.

        Raises:
            UserError: it has no advice for such trials.
        """
        if self.teacher is None:
            return NO_LESSONS
        solver = make(self.teacher, family)
        if not callable(getattr(solver, "advise", None)):
            raise UserError(
                f"--teacher is {self.teacher}, which gives no advice; name a solver of bandits or of tabular MDPs"
            )
        if episodes != own:
            raise UserError(
                f"--teacher {self.teacher} plays trials of {own} episodes, not {episodes}: leave --trial-episodes out"
            )
        return Lessons(solver, self.teacher_iterations)


def log_probability(distribution: Any, advice: Tensor) -> Tensor:
    """The log-probability of doing what is advised, `(...)`: any of the best actions `advice (..., A)`.

    Where nothing is advised (a step that was never taken), everything is right.

    Raises:
        ValueError: the actions are no choices.
    """
    if not isinstance(distribution, Categorical):
        raise ValueError(f"a teacher advises on choices among actions, not on a {type(distribution).__name__}")
    right = advice | ~advice.any(-1, keepdim=True)
    return distribution.logits.masked_fill(~right, -torch.inf).logsumexp(-1)
