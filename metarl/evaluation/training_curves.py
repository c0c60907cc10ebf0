"""Trainings beside one another: the return after adaptation against the environment steps and the minutes of training.

Seeds of one agent were validated at the same iterations; their environment steps by then may differ (episodes end
early), so each keeps its own, and a point of the mean stands at their mean. It is taken only where all seeds have a
validation: a seed more or less would be a step in the curve.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import UserError
from metarl.evaluation import statistics
from metarl.evaluation.merging import distinct_labels
from metarl.evaluation.statistics import Interval, Values
from metarl.evaluation.storage import finite_or_none
from metarl.evaluation.training_runs import TrainingRun, training_run


@dataclass(frozen=True, eq=False)
class TrainingCurve:
    """S runs that differ only in their seeds, at the n iterations at which all of them were validated.

    Attributes:
        label: a distinct name.
        runs: the S of them, in the order of their seeds.
        iterations: `(n,)`.
        env_steps: `(S, n)`.
        minutes: `(S, n)`; None where a run has lost them.
        before: `(S, n)`; None where a run has none.
        after: `(S, n)`.
    """

    label: str
    runs: tuple[TrainingRun, ...]
    iterations: Values
    env_steps: Values
    minutes: Values | None
    before: Values | None
    after: Values

    @property
    def agent(self) -> str:
        """The learner's name."""
        return self.runs[0].learner

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the training."""
        return tuple(run.seed for run in self.runs)

    @property
    def validation_tasks(self) -> int | None:
        """How many tasks each validation had, where the config says it."""
        tasks = self.runs[0].config.get("validation_tasks")
        return tasks if isinstance(tasks, int) else None

    @cached_property
    def interval(self) -> Interval:
        """The mean return after adaptation over seeds, each `(n,)`, by a bootstrap over seeds."""
        return statistics.bootstrap(self.after, factors=1)

    def reaching(self, score: float) -> int | None:
        """The first validation whose mean return after adaptation is as high as a score."""
        reached = np.flatnonzero(self.interval.value >= score)
        return int(reached[0]) if len(reached) else None

    @property
    def remarks(self) -> list[str]:
        """What keeps the curve from saying what it seems to, a sentence each."""
        said = []
        for run in self.runs:
            if run.diverged:
                said.append(f"{run.name}: {run.diverged} validations in which a task diverged are left out.")
            if run.minutes is None:
                said.append(f"{run.name}: timings.jsonl has lost lines, so {self.label} has no minutes.")
        ends = {run.name: int(run.iterations[-1]) for run in self.runs}
        if max(ends.values()) > (last := int(self.iterations[-1])):
            shorter = ", ".join(f"{name} {end:,}" for name, end in ends.items())
            said.append(f"{self.label} ends at iteration {last:,}, where all its seeds were validated: {shorter}.")
        return said

    def to_dict(self, reach: float | None) -> dict[str, Any]:
        """Plain data for JSON."""
        k = None if reach is None else self.reaching(reach)
        document: dict[str, Any] = {
            "label": self.label,
            "agent": self.agent,
            "config": dict(self.runs[0].config),
            "seeds": list(self.seeds),
            "runs": [run.name for run in self.runs],
            "validation": {"after": self.runs[0].measure, "tasks": self.validation_tasks},
            "iterations": self.iterations.astype(int).tolist(),
            "env_steps": self.env_steps.astype(int).tolist(),
            "minutes": None if self.minutes is None else self.minutes.tolist(),
            "before": None if self.before is None else self.before.tolist(),
            "after": self.after.tolist(),
            "mean": self.interval.value.tolist(),
            "ci_low": self.interval.low.tolist(),
            "ci_high": self.interval.high.tolist(),
            "reached": None if k is None else self.at(k),
            "remarks": self.remarks,
        }
        plain: dict[str, Any] = finite_or_none(document)
        return plain

    def at(self, k: int) -> dict[str, float | None]:
        """What had been consumed by the k-th validation, means over seeds."""
        return {
            "iteration": int(self.iterations[k]),
            "env_steps": float(self.env_steps[:, k].mean()),
            "minutes": None if self.minutes is None else float(self.minutes[:, k].mean()),
        }


def training_curves(folders: Sequence[str | Path], names: Sequence[str | None] | None = None) -> list[TrainingCurve]:
    """The trainings of run folders of one family; those that differ only in the seed are one curve.

    Args:
        folders: of the runs.
        names: what to call each run's agent; None for its learner and the options that tell it from namesakes.

    Raises:
        UserError: they are of different problems, a seed occurs twice, one has logged too little (`training_run`), or
            a name is that of two agents.
    """
    if not folders:
        raise UserError("nothing to compare: give at least one run folder")
    runs = [training_run(folder) for folder in folders]
    for other in runs[1:]:
        _check_same_problem(runs[0], other)
    groups: dict[str, list[TrainingRun]] = {}
    chosen: dict[str, str | None] = {}
    for run, name in zip(runs, names or [None] * len(runs), strict=True):
        key = json.dumps([name, run.learner, run.config], sort_keys=True)
        groups.setdefault(key, []).append(run)
        chosen[key] = name
    usual = distinct_labels([(some[0].learner, some[0].config) for some in groups.values()])
    labels = [chosen[key] or label for key, label in zip(groups, usual, strict=True)]
    for label, some in zip(labels, groups.values(), strict=True):
        if labels.count(label) > 1:
            raise UserError(f"{label} is the name of two agents, one of them {some[0].name}; give each its own")
    return [_merged(label, some) for label, some in zip(labels, groups.values(), strict=True)]


def _check_same_problem(one: TrainingRun, other: TrainingRun) -> None:
    mine, theirs = ({"family": run.source["name"], **run.source["options"]} for run in (one, other))
    for name in dict.fromkeys([*mine, *theirs]):
        if mine.get(name) != theirs.get(name):
            raise UserError(
                f"cannot compare {one.name} with {other.name}: {name} {mine.get(name)} is not {theirs.get(name)}"
            )


def _merged(label: str, runs: Sequence[TrainingRun]) -> TrainingCurve:
    runs = sorted(runs, key=lambda run: run.seed)
    if len({run.seed for run in runs}) < len(runs):
        names = ", ".join(run.name for run in runs)
        raise UserError(f"a training seed occurs twice in {[run.seed for run in runs]} ({names}); give each run once")
    if len({run.measure for run in runs}) > 1:
        raise UserError(f"the runs of {label} were validated in different ways: train them by one version")
    common = reduce(np.intersect1d, [run.iterations for run in runs])
    if not len(common):
        raise UserError(f"the seeds of {label} have no validation at the same iteration; train them further (--resume)")
    rows = [np.searchsorted(run.iterations, common) for run in runs]

    def each(field: str) -> Values | None:
        values = [getattr(run, field) for run in runs]
        if any(value is None for value in values):
            return None
        return np.stack([value[row] for value, row in zip(values, rows, strict=True)])

    env_steps, after = each("env_steps"), each("after")
    assert env_steps is not None
    assert after is not None
    return TrainingCurve(label, tuple(runs), common, env_steps, each("minutes"), each("before"), after)
