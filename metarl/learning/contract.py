"""The contract between learners and everything that trains, evaluates or compares them.

A learner is a module with `Config`, `train` and `load`; what `load` returns, and every baseline that
needs no training, is an `Adaptable`. The command line and the evaluation know nothing else, so they
never switch on a learner's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.tasks import Tasks

if TYPE_CHECKING:  # they load torch, which families and data sets do without
    from metarl.runs.run import Run
    from metarl.sampling.recording import Recording

ScoreKind = Literal["return", "accuracy", "mse"]


@dataclass(frozen=True)
class Budget:
    """How much data an agent may use on each unseen task.

    >>> agent = make_agent("random", "metarl/Navigation2D-v0")
    >>> agent.curve(agent.family.fixed("test", 2), Budget(steps=1, episodes=3), seed=0).values.shape
    (2, 2)

    Attributes:
        steps: K, the bits of adaptation; scores are reported after 0..K of them.
        episodes: fresh episodes a bit of adaptation may use, and as many again judge each of the
            K + 1 policies (RL; few-shot tasks carry their own support and query sets).
    """

    steps: int = 3
    episodes: int = 40

    def __post_init__(self) -> None:
        if self.steps < 0 or self.episodes < 1:
            raise UserError(f"a budget needs steps >= 0 and episodes >= 1, got {self.steps} and {self.episodes}")


@dataclass(frozen=True)
class Scores:
    """What adaptation bought on T tasks.

    Attributes:
        values: `(T, K+1)` float64, score of task t after k bits of adaptation, on fresh data each time.
        gradient_steps: K+1 gradient steps taken before each score, or None where none are taken.
        env_steps: K+1 environment steps that adaptation consumed before each score, the mean over tasks, rounded
            (`mean_steps`), or None. Steps really taken: an episode that ends early has consumed fewer.
        shots: K+1 labelled examples a class (or points) consumed before each score, or None.
        kind: what a score is; "mse" is better when lower, the others when higher.
        protocol: one line that says how the budget was spent.
        regret: `(T, n)` what pull 1..n of a bandit cost, mean of the best arm minus mean of the arm pulled;
            None elsewhere.
    """

    values: NDArray[np.float64]
    gradient_steps: tuple[int, ...] | None
    env_steps: tuple[int, ...] | None
    shots: tuple[int, ...] | None
    kind: ScoreKind
    protocol: str
    regret: NDArray[np.float64] | None = None


def mean_steps(steps: NDArray[Any]) -> tuple[int, ...]:
    """`Scores.env_steps` of the steps `(T, K)` that T tasks had taken before their 2nd to last score."""
    return (0, *map(round, steps.mean(0).tolist()))


class Source(Protocol):
    """Where tasks come from: a `TaskFamily`, or a few-shot data set; a dataclass, whose fields are its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """The family's id or the data set's name."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits it has."""

    @property
    def unseen(self) -> bool:
        """Whether test tasks differ from training tasks."""

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Tasks:
        """Draw n fresh tasks."""

    def fixed(self, split: str, n: int) -> Tasks:
        """The first n of the split's frozen tasks."""

    def options(self) -> dict[str, Any]:
        """Its preset and options, plain data."""


class Adaptable(Protocol):
    """Anything that can be put on a new task and judged as it adapts."""

    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Scores after 0..K bits of adaptation on each task; `seed` names the evaluation's streams."""


@runtime_checkable
class Filmable(Protocol):
    """An `Adaptable` that acts, and so can be filmed; optional."""

    def film(self, task: Tasks, budget: Budget, seed: int) -> list[Recording]:
        """Episodes on one task (a batch of 1), the first before adaptation, the last after all of it.

        Raises:
            UserError: the family cannot be drawn here.
        """


class Learner(Protocol):
    """A trainable method: a module with these three names.

    Two more are optional. `DEFAULTS` maps names to other configs. `SHARED` names the field of `Config` that counts what
    the processes of torchrun share out, such as "tasks": `train` works on `run.ranks.share(...)` of them and takes sums
    by `run.ranks`, so that all ranks keep the same state; without it the learner trains in one process only.
    """

    # A frozen dataclass; every field documented with unit, default and source. Two class variables may speak of runs
    # that are resumed: `iterations_may_grow = False` where a schedule depends on them, and `decide_nothing`, the names
    # of fields that no number depends on. A property `variant`, where it is not empty, is added to the learner's name
    # in tables and pictures: "rl2-hypernetwork" is a row of its own beside "rl2".
    Config: type

    def train(self, config: Any, source: Any, run: Run) -> None:
        """Train until `config.iterations`, from the run's last checkpoint if it has one."""

    def load(self, run: Run, source: Any) -> Adaptable:
        """The trained learner of a run, from its last checkpoint."""
