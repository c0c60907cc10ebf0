"""An agent measured on tasks, beside its references: an adaptation curve.

measure(agent, source=family, tasks=family.fixed("test", 40), name="mine")
measure_run("runs/navigation-0", split="ood")
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from metarl import registry
from metarl.errors import UserError, unknown
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.distinct import task_means
from metarl.evaluation.merging import merge
from metarl.evaluation.task_arrays import told
from metarl.learning.contract import Adaptable, Budget, Scores, Source
from metarl.tasks import TaskFamily, Tasks

FAMILY_TASKS, DATASET_TASKS = 40, 600  # of an evaluation, unless told otherwise
MOST_TASKS = 100_000
ORACLE = "ppo-oracle"  # the agent whose curves may be reference lines
Reference = Literal["random", "oracle"]
_REFERENCES: dict[tuple[str, ...], float | None] = {}  # the last that this process measured
REMEMBERED = 64  # of them: who measures on other tasks each time would else gather them for ever


class ReferenceWarning(UserWarning):
    """A reference was left out."""


def default_count(source: Source) -> int:
    """How many tasks an evaluation has unless told otherwise."""
    return FAMILY_TASKS if isinstance(source, TaskFamily) else DATASET_TASKS


def frozen_tasks(source: Source, split: str = "test", count: int | None = None) -> Tasks:
    """The first frozen tasks of a split; by default 40 of a family and 600 of a data set.

    Raises:
        UserError: there is no such split, or `count` is below 1 or above 100,000.
    """
    if split not in source.splits:
        raise unknown(f"split of {source.name}", split, source.splits)
    count = default_count(source) if count is None else count
    if count < 1:
        raise UserError(f"--tasks is {count}; it must be at least 1")
    if count > MOST_TASKS:
        raise UserError(f"--tasks is {count}; it must be at most {MOST_TASKS}")
    return source.fixed(split, count)


def measure_run(
    folder: str | Path,
    *,
    split: str = "test",
    tasks: int | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    oracle: float | None = None,
) -> AdaptationCurve:
    """The curve of a trained run on frozen tasks of what it was trained on.

    Args:
        folder: of the run.
        split: which tasks.
        tasks: how many; a finite family may have fewer.
        budget: what the agent may use on each; 3 bits of adaptation by default.
        seed: names the streams of the evaluation.
        oracle: mean score of the best there is; by default that of the closed-form optimum, where it is known.

    Raises:
        UserError: there is no such run or split, or the run has no checkpoint.
    """
    opened = registry.open_run(folder)
    run = opened.run
    return measure(
        opened.load(),
        source=opened.source,
        tasks=frozen_tasks(opened.source, split, tasks),
        budget=budget,
        seed=seed,
        name=opened.name,
        training_seed=run.seed,
        config=dataclasses.asdict(run.config),
        oracle=oracle,
    )


def measure(
    agent: Adaptable,
    *,
    source: Source,
    tasks: Tasks,
    name: str,
    budget: Budget | None = None,
    seed: int = 0,
    training_seed: int = 0,
    config: Mapping[str, Any] | None = None,
    trained: bool = True,
    oracle: float | None = None,
) -> AdaptationCurve:
    """The curve of an agent on tasks, with the scores of acting at random and of the optimum on the same ones.

    Args:
        agent: what is measured.
        source: where the tasks come from.
        tasks: on which it is measured.
        name: of the agent, in tables and pictures.
        budget: what the agent may use on each task; 3 bits of adaptation by default.
        seed: names the streams of the evaluation.
        training_seed: the seed that the agent was trained with.
        config: of the agent; curves of agents whose configs differ are kept apart.
        trained: whether the agent was.
        oracle: mean score of the best there is; by default that of the closed-form optimum, where it is known.
    """
    budget = budget or Budget()
    scores = agent.curve(tasks, budget, seed)
    return curve_of(
        scores,
        agent=name,
        source=source,
        split=tasks.split,
        tasks=tasks,
        seeds=(training_seed,),
        random=reference("random", source, tasks, budget, seed),
        oracle=reference("oracle", source, tasks, budget, seed) if oracle is None else oracle,
        evaluation_seed=seed,
        budget=budget,
        config=config,
        trained=trained,
    )


def reference(name: Reference, source: Source, tasks: Tasks, budget: Budget, seed: int = 0) -> float | None:
    """Mean score of a baseline on tasks; None where there is none. Measured once a process.

    Of a classifier it follows from its nature: one that guesses, and one that knows.
    """
    if not isinstance(source, TaskFamily):
        ways = getattr(source, "ways", None)
        return None if ways is None else {"random": 1 / ways, "oracle": 1.0}[name]
    kind = type(source)
    identity = (f"{kind.__module__}.{kind.__qualname__}", json.dumps(source.options(), sort_keys=True, default=repr))
    key = (name, *identity, tasks.sha256(), str(budget.episodes), str(seed))
    if key not in _REFERENCES:
        value = _measured_reference(name, source, tasks, budget, seed)
        while len(_REFERENCES) >= REMEMBERED:
            del _REFERENCES[next(iter(_REFERENCES))]
        _REFERENCES[key] = value
    return _REFERENCES[key]


def _measured_reference(name: str, source: Source, tasks: Tasks, budget: Budget, seed: int) -> float | None:
    try:
        agent = registry.make_untrained(name, source)
        scores = agent.curve(tasks, dataclasses.replace(budget, steps=0), seed)
    except UserError:
        return None
    curve = curve_of(scores, agent=name, source=source, split=tasks.split, tasks=tasks)
    if curve.diverged.any():
        warnings.warn(
            f"the reference {name!r} got scores that are not finite on these tasks, and is left out",
            ReferenceWarning,
            stacklevel=3,
        )
        return None
    return float(curve.mean[0])


def oracle_score(curve: AdaptationCurve, source: Source, tasks: Tasks, where: str | Path = "it") -> float:
    """Mean score of an evaluated oracle.

    Args:
        curve: of the oracle.
        source: where the tasks come from.
        tasks: on which the oracle must have been measured.
        where: what the curve is called in an error.

    Raises:
        UserError: it is no oracle's, was measured on other tasks, or is not finite.
    """
    if curve.agent != ORACLE:
        raise UserError(f"--oracle {where} is a curve of {curve.agent}; give an evaluated run of {ORACLE}")
    options = source.options()
    needed = {
        "family": source.name,
        "preset": options.pop("preset", None),
        "family options": options,
        "split": tasks.split,
        "tasks": tasks.sha256(),
    }
    measured = {
        "family": curve.family,
        "preset": curve.preset,
        "family options": dict(curve.options),
        "split": curve.split,
        "tasks": curve.task_hash,
    }
    for what, value in needed.items():
        if measured[what] != value:
            again = f"metarl evaluate RUN --split {tasks.split} --tasks {len(tasks)}"
            raise UserError(
                f"the oracle {where} was measured on another problem ({what}: {measured[what]}, not {value}); "
                f"measure it on the same {tasks.split} tasks: {again}"
            )
    if curve.diverged.any():
        raise UserError(f"the oracle {where} has scores that diverged; a reference must be finite")
    return float(curve.mean.mean())


def curve_of(
    scores: Scores | Sequence[Scores],
    *,
    agent: str,
    source: Source,
    split: str,
    tasks: Tasks,
    seeds: Sequence[int] = (0,),
    random: float | None = None,
    oracle: float | None = None,
    evaluation_seed: int = 0,
    budget: Budget | None = None,
    config: Mapping[str, Any] | None = None,
    trained: bool = True,
) -> AdaptationCurve:
    """The curve of one training seed's scores, or of several seeds' on the same tasks."""
    runs = [scores] if isinstance(scores, Scores) else list(scores)
    if len(runs) != len(seeds):
        raise ValueError(f"need scores and seeds in equal number, got {len(runs)} and {len(seeds)}")
    if any(len(run.values) != len(tasks) for run in runs):
        raise ValueError(f"need scores of each of the {len(tasks)} tasks, got {[len(run.values) for run in runs]}")
    options = source.options()
    preset = options.pop("preset", None)
    task_of = tasks.distinct()
    several = tasks[np.unique(task_of)]
    arms = several.arrays.get("mean")  # of a bandit
    curves = [
        AdaptationCurve(
            agent=agent,
            family=source.name,
            preset=preset,
            split=split,
            task_hash=tasks.sha256(),
            seeds=(seed,),
            protocol=run.protocol,
            score=run.kind,
            gradient_steps=run.gradient_steps,
            env_steps=run.env_steps,
            shots=run.shots,
            per_task=run.values[None],
            random=random,
            oracle=oracle,
            options=options,
            unseen=source.unseen,
            evaluation_seed=evaluation_seed,
            budget=budget,
            config=dict(config or {}),
            regret=None if run.regret is None else tuple(task_means(run.regret, task_of).mean(0).tolist()),
            best_arm=None if run.regret is None or arms is None else float(arms.max(1).mean()),
            horizon=getattr(source, "horizon", None),
            task_of=tuple(task_of.tolist()),
            task_arrays=told(several, run.kind),
            trained=trained,
        )
        for run, seed in zip(runs, seeds, strict=True)
    ]
    return merge(curves)
