"""Scores measured, made a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.evaluation.curve import FEW_TASKS, NAMED, AdaptationCurve, task_means
from metarl.evaluation.merging import merge
from metarl.learning.contract import Budget, Scores, Source
from metarl.tasks import Tasks


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
    small = len(several) <= FEW_TASKS and sum(values[0].size for values in several.arrays.values()) <= NAMED
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
            horizon=getattr(source, "horizon", None),
            task_of=tuple(task_of.tolist()),
            task_arrays=several.arrays if small else None,
            trained=trained,
        )
        for run, seed in zip(runs, seeds, strict=True)
    ]
    return merge(curves)
