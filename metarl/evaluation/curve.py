"""Adaptation curves: what each bit of adaptation bought, on tasks never trained on.

A curve holds the score of every training seed, test task and k = 0..K, and derives the rest: means
with 95 % bootstrap intervals, gain over k = 0, area, and the score normalised between random and
oracle. Rows that are the same task count as one. A score that is not finite is of a run that diverged: means
leave it out, with the share left out beside them, and by rank it is the worst. A curve is saved as JSON that names
the problem it was measured on, so that curves of different problems are never put on one plot.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from metarl.documents import parse_json, read_regular
from metarl.errors import UserError, one_line
from metarl.evaluation.distinct import FEW_TASKS, small_arrays, task_means, task_names
from metarl.evaluation.statistics import Interval, Values, bootstrap, mean
from metarl.evaluation.storage import VERSION, csv_table, curve_fields, dump_json, finite_or_none
from metarl.files import write_atomically
from metarl.learning.contract import Budget, ScoreKind

UNITS = {"gradient_steps": "gradient steps", "env_steps": "environment steps a task", "shots": "shots"}


@dataclass(frozen=True, eq=False)
class AdaptationCurve:
    """Scores of one agent after 0..K bits of adaptation, for S training seeds on the same T rows of tasks.

    >>> curve = measure(runs / "navigation", tasks=4, steps=1, episodes=2)
    >>> curve.per_task.shape, curve.gradient_steps, curve.interval.low.shape
    ((1, 4, 2), (0, 1), (2,))
    >>> curve.save("curve.json")
    >>> AdaptationCurve.load("curve.json").mean.tolist() == curve.mean.tolist()
    True

    Attributes:
        agent: the learner's name.
        family: id of the task family, or name of the data set.
        preset: the family's preset, or None.
        split: which frozen tasks.
        task_hash: SHA-256 of the tasks.
        seeds: S training seeds (an agent that is not trained has one, 0).
        protocol: one line that says how the budget was spent.
        score: "return", "accuracy" or "mse"; the last is better when lower.
        gradient_steps: K+1 gradient steps taken before each score, or None.
        env_steps: K+1 environment steps a task consumed before each score (a mean over tasks, rounded), or None.
        shots: K+1 shots consumed before each score, or None.
        per_task: `(S, T, K+1)` scores; NaN where not finite: the run diverged.
        random: mean score of random behaviour on the same tasks, or None.
        oracle: mean score of the best behaviour known on the same tasks, or None.
        options: the family's options beside the preset.
        unseen: False where test tasks are those trained on (a finite family).
        evaluation_seed: names the streams of the evaluation.
        budget: steps and episodes a task may use, or None where unknown.
        config: the learner's options, without the seed.
        regret: mean regret of each pull of a bandit (`Scores.regret`), or None.
        best_arm: mean reward of the best arm, a mean over tasks, or None where there is no regret.
        horizon: steps of the longest episode, or None where there are none or it is unknown.
        task_of: for each of the T rows, the first row of the same task (`Tasks.distinct`). None where unknown, as in
            files of old: then every row counts as a task of its own.
        task_arrays: the D distinct tasks as named arrays `(D, ...)` where they are small enough to be told by their
            numbers (`task_arrays.told`), else None.
        trained: False for an agent that is not, so that another seed would give the same.
    """

    agent: str
    family: str
    preset: str | None
    split: str
    task_hash: str
    seeds: tuple[int, ...]
    protocol: str
    score: ScoreKind
    gradient_steps: tuple[int, ...] | None
    env_steps: tuple[int, ...] | None
    shots: tuple[int, ...] | None
    per_task: Values
    random: float | None = None
    oracle: float | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unseen: bool = True
    evaluation_seed: int = 0
    budget: Budget | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    regret: tuple[float, ...] | None = None
    best_arm: float | None = None
    horizon: int | None = None
    task_of: tuple[int, ...] | None = None
    task_arrays: Mapping[str, Any] | None = None
    trained: bool = True

    def __post_init__(self) -> None:
        values = np.array(self.per_task, dtype=np.float64)
        if values.ndim != 3 or 0 in values.shape:
            raise ValueError(f"per_task must be (seeds, tasks, K+1) and not empty, got shape {values.shape}")
        if len(self.seeds) != values.shape[0] or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"need one distinct seed for each of the {values.shape[0]} blocks, got {self.seeds}")
        if self.score not in get_args(ScoreKind):
            raise ValueError(f"score must be one of {', '.join(get_args(ScoreKind))}, got {self.score!r}")
        values[~np.isfinite(values)] = np.nan
        values.setflags(write=False)
        object.__setattr__(self, "per_task", values)
        if self.task_of is not None:
            rows = tuple(int(row) for row in self.task_of)
            if len(rows) != values.shape[1] or any(not 0 <= row <= t or rows[row] != row for t, row in enumerate(rows)):
                raise ValueError(f"task_of must name, for each of {values.shape[1]} rows, the first of its task")
            object.__setattr__(self, "task_of", rows)
        if self.task_arrays is not None:
            object.__setattr__(self, "task_arrays", small_arrays(self.task_arrays, self.tasks))
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))
        for name in ("options", "config"):
            object.__setattr__(self, name, finite_or_none(getattr(self, name)))
        for name in UNITS:
            axis = getattr(self, name)
            if axis is None:
                continue
            if len(axis) != values.shape[2]:
                raise ValueError(f"{name} must have {values.shape[2]} entries, got {len(axis)}")
            positions = tuple(round(position) for position in axis)
            if any(b < a for a, b in itertools.pairwise(positions)):
                raise ValueError(f"{name} counts what was consumed and cannot fall, got {positions}")
            object.__setattr__(self, name, positions)

    @property
    def steps(self) -> int:
        """K, the bits of adaptation."""
        return int(self.per_task.shape[2]) - 1

    @property
    def rows(self) -> tuple[int, ...]:
        """The first row of each of the D distinct tasks."""
        return tuple(range(self.per_task.shape[1])) if self.task_of is None else tuple(sorted(set(self.task_of)))

    @property
    def tasks(self) -> int:
        """D, the number of distinct tasks."""
        return len(self.rows)

    @property
    def repeats_unknown(self) -> bool:
        """Whether rows count as tasks though some may be the same: a finite family in a file of old."""
        return self.task_of is None and not self.unseen and self.tasks > 1

    @cached_property
    def scores(self) -> Values:
        """The scores of distinct tasks `(S, D, K+1)`: means over their repeats, NaN where one of them diverged."""
        if self.tasks == self.per_task.shape[1]:
            return self.per_task
        by_task = task_means(np.moveaxis(self.per_task, 1, 0), np.array(self.task_of))
        return np.moveaxis(by_task, 0, 1)

    @property
    def diverged(self) -> Values:
        """Share of seeds and tasks whose score is not finite `(K+1,)`."""
        return np.asarray(np.isnan(self.scores).mean((0, 1)))

    @property
    def ranked(self) -> Values:
        """`scores` for statistics by rank: those that diverged are infinitely bad."""
        return np.where(np.isnan(self.scores), -np.inf if self.higher_is_better else np.inf, self.scores)

    @property
    def few_tasks(self) -> bool:
        """Whether the tasks are shown one by one: there are several, but few, and known to be distinct."""
        return self.task_of is not None and 1 < self.tasks <= FEW_TASKS

    @cached_property
    def task_names(self) -> tuple[str, ...]:
        """A name for each of the D tasks: its numbers where they tell them apart, else "task" and its first row."""
        return task_names(self.task_arrays or {}, self.rows)

    def of_task(self, d: int) -> AdaptationCurve:
        """The curve of one of the D tasks, without references, which are of all tasks."""
        rows = [t for t, row in enumerate(self.task_of or self.rows) if row == self.rows[d]]
        return dataclasses.replace(
            self,
            per_task=self.per_task[:, rows],
            task_of=(0,) * len(rows),
            task_arrays=self.task_arrays and {name: [values[d]] for name, values in self.task_arrays.items()},
            random=None,
            oracle=None,
            regret=None,
            best_arm=None,
        )

    @property
    def higher_is_better(self) -> bool:
        """False for an error."""
        return self.score != "mse"

    @property
    def better(self) -> Values:
        """The scores `(S, D, K+1)` in the direction in which higher is better: errors negated."""
        return self.scores if self.higher_is_better else -self.scores

    @property
    def adapts(self) -> bool:
        """Whether anything was consumed between the first score and the last."""
        axes = (self.gradient_steps, self.env_steps, self.shots)
        return any(axis is not None and axis[-1] > axis[0] for axis in axes)

    @property
    def axis(self) -> str:
        """The budget the curve is best drawn against: a key of `UNITS`, or "k" where nothing is consumed."""
        for name in UNITS:
            axis = getattr(self, name)
            if axis is not None and axis[-1] > axis[0]:
                return name
        return "k"

    def along(self, axis: str) -> tuple[int, ...]:
        """K+1 positions on an axis; 0..K for "k".

        Raises:
            UserError: this agent did not count that.
        """
        positions: tuple[int, ...] | None = tuple(range(self.steps + 1)) if axis == "k" else getattr(self, axis)
        if positions is None:
            raise UserError(f"{self.agent} consumes no {UNITS[axis]}; draw it against another axis")
        return positions

    @property
    def mean(self) -> Values:
        """Mean of the finite scores over seeds and distinct tasks `(K+1,)`; NaN where all diverged (see `diverged`)."""
        flat = self.scores.reshape(-1, self.steps + 1)
        return np.asarray(mean(np.ones((1, len(flat))), flat)[0])

    @cached_property
    def interval(self) -> Interval:
        """`mean` with its interval, each `(K+1,)`."""
        return bootstrap(self.scores)

    @cached_property
    def gain(self) -> Interval:
        """Improvement over k = 0, paired within seed and task, each `(K+1,)`; positive is better, errors included.

        Of an agent that does not adapt it is the noise of its evaluation, and not shown.
        """
        return bootstrap(self.better - self.better[..., :1])

    @cached_property
    def area(self) -> Interval:
        """Area under the curve over `axis`, divided by its length: a score, each `()`; K = 0 gives the score."""
        return self.area_until(self.axis, self.along(self.axis)[-1])

    def area_until(self, axis: str, end: int) -> Interval:
        """Area over an axis from the first score to `end`, divided by its length: a score, each `()`.

        The last score is held to the end, so that agents which stop early can be compared with others. An agent
        that does not adapt stays where it is: its area is its last score, and no noise between two measurements.
        """
        if not self.adapts:
            return bootstrap(self.scores[..., -1])
        x = np.asarray([*self.along(axis), end], dtype=np.float64)
        if x[-1] == x[0]:
            return bootstrap(self.scores[..., 0])
        extended = np.concatenate([self.scores, self.scores[..., -1:]], axis=-1)
        return bootstrap(np.asarray(np.trapezoid(extended, x, axis=-1)) / (x[-1] - x[0]))

    @property
    def normalised(self) -> Values | None:
        """(mean - random) / (oracle - random) `(K+1,)`: 0 is random, 1 the oracle, errors included; or None."""
        if self.random is None or self.oracle is None or self.oracle == self.random:
            return None
        return (self.mean - self.random) / (self.oracle - self.random)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that are not finite become None."""
        document = {"version": VERSION} | {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        document["per_task"] = self.per_task.tolist()
        document["task_arrays"] = self.task_arrays and {n: np.asarray(v).tolist() for n, v in self.task_arrays.items()}
        document["budget"] = self.budget and dataclasses.asdict(self.budget)
        document["mean"] = self.interval.value.tolist()
        document["ci_low"] = self.interval.low.tolist()
        document["ci_high"] = self.interval.high.tolist()
        document["diverged"] = self.diverged.tolist()
        plain: dict[str, Any] = finite_or_none(document)
        return plain

    def save(self, path: str | Path) -> None:
        """Write JSON, or CSV (one row a seed, task, repeat and k) when the name ends in .csv; never half a file.

        Raises:
            UserError: the file cannot be written.
        """
        axes = {name: getattr(self, name) for name in UNITS}
        table = csv_table(self.seeds, self.task_of or self.rows, axes, self.per_task)
        text = table if Path(path).suffix == ".csv" else dump_json(self.to_dict())
        write_atomically(path, text.encode())

    @staticmethod
    def load(path: str | Path) -> AdaptationCurve:
        """Read a curve from its JSON.

        Raises:
            UserError: there is no such file, or it does not hold one curve of this version.
        """
        curves = load_curves(path)
        if len(curves) != 1:
            raise UserError(f"{path} holds {len(curves)} curves, not one")
        return curves[0]

    @staticmethod
    def from_dict(document: Any) -> AdaptationCurve:
        """The inverse of `to_dict`.

        Raises:
            UserError: something is missing, of the wrong type, or inconsistent.
        """
        fields = curve_fields(document, AdaptationCurve)
        try:
            curve = AdaptationCurve(**fields)
            written = np.array(document.get("mean"), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(one_line(error)) from None
        alike = written.shape == curve.mean.shape
        if alike:  # of old, one score that diverged made the mean null
            written = np.where(np.isnan(written) & (curve.diverged > 0), curve.mean, written)
        if not alike or not np.allclose(written, curve.mean, equal_nan=True):
            raise UserError("its mean is not the mean of its per_task")
        return curve


def load_curves(path: str | Path) -> list[AdaptationCurve]:
    """The curves of a JSON file: that of one curve, or of a comparison.

    Raises:
        UserError: there is no such file, or it does not hold curves of this version.
    """
    try:
        document = parse_json(read_regular(Path(path)))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read a curve from {path}: {one_line(error)}") from None
    several = isinstance(document, dict) and isinstance(document.get("curves"), list)
    try:
        return [AdaptationCurve.from_dict(entry) for entry in (document["curves"] if several else [document])]
    except UserError as error:
        raise UserError(f"{path} is not an adaptation curve: {error}") from None
