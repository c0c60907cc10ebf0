"""How one training went on validation tasks, from what its run logged: no agent is loaded, nothing is measured anew.

A learner that validates logs its mean return before adaptation and after, under one of the names

    return/validation_0, return/validation_1, ...                   after so many gradient steps
    return/validation_first, return/validation_last                 of the first and the last episode of a trial
    return/validation_trial                                         of a trial that is a single episode

and in every iteration `episodes/steps`, all environment steps that it learned from, those of adaptation included. Both
logs of a resumed run are those of one that was never interrupted, so sums over their lines are what was consumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import UserError
from metarl.evaluation.statistics import Values
from metarl.registry import agent_name, agents, learner
from metarl.runs.record import as_of_today
from metarl.runs.run import Run

VALIDATION, STEPS = "return/validation_", "episodes/steps"
Log = Sequence[Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """The validations of one run, n of them.

    Attributes:
        name: the folder, as it was named.
        learner: what the agent is called (`registry.agent_name`).
        seed: of the training.
        source: `{"name": ..., "options": {...}}`, the family.
        config: the learner's, as plain data.
        measure: the last part of the name of what was logged: "1" after a gradient step, "last" of a trial.
        iterations: `(n,)`, how many were done before each.
        env_steps: `(n,)`, environment steps learned from by then.
        minutes: `(n,)`, of sampling and learning by then, validation not counted; None where the log has lost lines.
        before: `(n,)`, mean return before adaptation; None where nothing is logged of it.
        after: `(n,)`, mean return after adaptation.
        diverged: validations in which a task diverged, which have no mean and are left out.
    """

    name: str
    learner: str
    seed: int
    source: Mapping[str, Any]
    config: Mapping[str, Any]
    measure: str
    iterations: Values
    env_steps: Values
    minutes: Values | None
    before: Values | None
    after: Values
    diverged: int


def training_run(folder: str | Path) -> TrainingRun:
    """What a run logged of its validations.

    Raises:
        UserError: there is no run, or it did not validate, or says not how many steps it took; what to do is said.
    """
    run, name = Run.open(folder), str(folder)
    metrics = run.metrics()
    first, last = measures(metrics)
    if last is None:
        raise UserError(f"{name} has no validation returns: {_remedy(run)}")
    iterations = [int(line["iteration"]) for line in metrics]
    if any(STEPS not in line for line in metrics) or iterations != list(range(len(iterations))):
        raise UserError(
            f"{name} does not log {STEPS!r} in every iteration, so how many environment steps it had taken is not "
            f"known: train it again (runs of earlier versions of {run.learner} lack it), or leave it out"
        )
    steps = list(accumulate(line[STEPS] for line in metrics))
    rows = [i for i, line in enumerate(metrics) if VALIDATION + last in line]
    validated = sum(any(key.startswith(VALIDATION) or key == "validation/diverged" for key in line) for line in metrics)
    known = [line for line in (metrics[i] for i in rows) if first is not None and VALIDATION + first in line]

    def at(values: Sequence[float]) -> Values:
        return np.array([values[i] for i in rows], dtype=np.float64)

    minutes = _minutes(run.timings())
    return TrainingRun(
        name=name,
        learner=agent_name(run),
        seed=run.seed,
        source={"name": run.source.get("name", ""), "options": run.source.get("options", {})},
        config=_config(run),
        measure=last,
        iterations=at(iterations) + 1,
        env_steps=at(steps),
        minutes=at(minutes) if len(minutes) > max(rows) else None,
        before=np.array([line[VALIDATION + str(first)] for line in known]) if len(known) == len(rows) else None,
        after=at([line.get(VALIDATION + last, np.nan) for line in metrics]),
        diverged=validated - len(rows),
    )


def _config(run: Run) -> dict[str, Any]:
    """A run's config, with the options that this version added: seeds of an earlier one are of the same agent.

    That of a learner of somebody else is as it was recorded: reading a log is no reason to import code.
    """
    recorded: dict[str, Any] = run.record["config"]
    return as_of_today(learner(run.learner).Config, recorded) if run.learner in agents() else recorded


def measures(metrics: Log) -> tuple[str | None, str | None]:
    """What is logged of the score before adaptation and after it, the last parts of the names; None for neither."""
    names = {name.removeprefix(VALIDATION) for line in metrics for name in line if name.startswith(VALIDATION)}
    if counts := sorted(int(name) for name in names if name.isdigit()):
        return (str(counts[0]) if len(counts) > 1 else None), str(counts[-1])
    if "last" in names:
        return ("first" if "first" in names else None), "last"
    return None, "trial" if "trial" in names else None


def _minutes(timings: Log) -> list[float]:
    """Minutes spent by the end of each iteration, as far as no line is missing."""
    each = [sum(value for name, value in line.items() if name != "iteration") / 60 for line in timings]
    whole = next((i for i, line in enumerate(timings) if line["iteration"] != i), len(timings))
    return list(accumulate(each[:whole]))


def _remedy(run: Run) -> str:
    """What to do about a run that has no validations."""
    every = run.record["config"].get("validate_every")
    if every is None:
        return f"{run.learner} does not validate as it trains; leave it out"
    if every:
        return f"it has not come to its first, after {every} iterations; train it further (--resume)"
    return "train it with --validate-every N (and --validation-tasks N)"
