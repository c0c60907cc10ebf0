"""Which curves may stand beside one another, and which are one curve of several training seeds."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.learning.contract import Budget

IDENTITY = {  # what curves must share to be compared: field -> its name in a message
    "family": "family",
    "preset": "preset",
    "options": "family options",
    "split": "split",
    "task_hash": "tasks",
    "score": "kind of score",
}


def comparable(curves: Sequence[AdaptationCurve]) -> None:
    """Check that curves were measured on the same problem, tasks and data budget.

    Budgets must agree where they shape the scores: between agents that take gradient steps on the data they may
    collect. An agent that does not adapt, or adapts in its memory within a trial, is the same whatever was asked of
    it. How an agent spends the budget may differ: that is on the plot's axis. Spending more than it may not; a budget
    that one curve knows holds for those that do not. Less may be spent: episodes end early. Few-shot tasks carry
    their data, so there the budget is the labelled examples consumed in the end.

    Raises:
        UserError: they differ, or an agent overspent; the message names in what, and the values.
    """
    if not curves:
        raise UserError("nothing to compare: give at least one run or curve")
    first = curves[0]
    for other in curves[1:]:
        for field, meaning in IDENTITY.items():
            same(first, other, meaning, getattr(first, field), getattr(other, field))
        if None not in (first.task_of, other.task_of) and first.task_of != other.task_of:
            raise UserError(f"cannot compare {first.agent} with {other.agent}: they differ in which rows are one task")
    for one, other in itertools.combinations(curves, 2):
        same(one, other, "budget", *_budgets(one, other))
    horizon = next((curve.horizon for curve in curves if curve.horizon is not None), None)
    budget = next((budget for curve in curves if (budget := binding(curve)) is not None), None)
    for curve in curves:
        if horizon is None or budget is None or curve.env_steps is None:
            continue
        allowed = budget.steps * budget.episodes * horizon
        if curve.env_steps[-1] > allowed:
            raise UserError(
                f"cannot compare {curve.agent}: it consumed {curve.env_steps[-1]:,} environment steps a task, more "
                f"than the budget of {_shown(budget)} of {horizon} steps, {allowed:,}"
            )


def binding(curve: AdaptationCurve) -> Budget | None:
    """The budget that shaped a curve's scores, or None where another would have given the same."""
    return curve.budget if curve.adapts and curve.gradient_steps is not None else None


def same(one: AdaptationCurve, other: AdaptationCurve, what: str, mine: Any, theirs: Any) -> None:
    """Check that two curves agree in something.

    Raises:
        UserError: they do not; the message names it, and both values.
    """
    if mine != theirs:
        raise UserError(f"cannot compare {one.agent} with {other.agent}: {what} {_shown(mine)} is not {_shown(theirs)}")


def _budgets(one: AdaptationCurve, other: AdaptationCurve) -> tuple[Any, Any]:
    """What two curves had to adapt with, as far as both know and it mattered."""
    mine, theirs = binding(one), binding(other)
    if _counts_shots(one, other):
        return _shots(one, other), _shots(other, one)
    return (None, None) if mine is None or theirs is None else (mine, theirs)


def _counts_shots(*curves: AdaptationCurve) -> bool:
    return all(curve.shots is not None and curve.env_steps is None for curve in curves)


def _shots(curve: AdaptationCurve, other: AdaptationCurve) -> dict[str, int]:
    """The labelled examples a curve consumed in all, where both adapt and count them."""
    if not (curve.adapts and other.adapts and curve.shots and other.shots):
        return {}
    return {"shots": curve.shots[-1]}


def _shown(value: Any) -> str:
    if isinstance(value, Budget):
        return f"{value.steps} steps of {value.episodes} episodes"
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text


def mergeable(a: AdaptationCurve, b: AdaptationCurve) -> bool:
    """Whether two curves differ in nothing but their training seeds (and so in their scores)."""
    fields = [*IDENTITY, "agent", "trained", "config", "evaluation_seed"]
    fields += ["gradient_steps", "shots", "protocol"]
    alike = a.per_task.shape[1:] == b.per_task.shape[1:] and all(getattr(a, f) == getattr(b, f) for f in fields)
    return alike and binding(a) == binding(b)


def with_known_tasks(curves: Sequence[AdaptationCurve]) -> list[AdaptationCurve]:
    """Curves on the same tasks, what one knows of them (which rows are one, their numbers) told to all."""
    known = next((curve for curve in curves if curve.task_of is not None), None)
    told = next((curve for curve in curves if curve.task_arrays is not None), None)
    if known is None and told is None:
        return list(curves)
    return [
        dataclasses.replace(
            curve,
            task_of=curve.task_of if curve.task_of is not None or known is None else known.task_of,
            task_arrays=curve.task_arrays if curve.task_arrays is not None or told is None else told.task_arrays,
        )
        for curve in curves
    ]


def merge(curves: Sequence[AdaptationCurve]) -> AdaptationCurve:
    """One curve of several that differ only in training seeds, in the order of the seeds.

    Environment steps consumed may differ (episodes end early); the merged axis is their rounded mean.

    Raises:
        UserError: they differ in more, or a seed occurs twice.
    """
    if not curves:
        raise UserError("nothing to merge: give at least one curve")
    for other in curves[1:]:
        if not mergeable(curves[0], other):
            raise UserError(f"these curves of {curves[0].agent} and {other.agent} differ in more than the seed")
    seeds = [seed for curve in curves for seed in curve.seeds]
    if len(set(seeds)) != len(seeds):
        raise UserError(f"a training seed occurs twice in {seeds}; give each run once")
    order = np.argsort(seeds)
    curves = with_known_tasks(curves)
    return dataclasses.replace(
        curves[0],
        seeds=tuple(seeds[i] for i in order),
        per_task=np.concatenate([curve.per_task for curve in curves])[order],
        env_steps=_mean_axis(curves),
        random=_mean_reference([curve.random for curve in curves]),
        oracle=_mean_reference([curve.oracle for curve in curves]),
        regret=_mean_regret(curves),
    )


def merge_seeds(curves: Sequence[AdaptationCurve]) -> list[AdaptationCurve]:
    """Curves with those that differ only in training seeds made one, in order of first appearance.

    >>> few = {"tasks": 2, "episodes": 2}
    >>> curve = measure(runs / "navigation", **few)
    >>> [both] = merge_seeds([curve, dataclasses.replace(curve, seeds=(1,))])
    >>> both.seeds
    (0, 1)
    """
    groups: list[list[AdaptationCurve]] = []
    for curve in curves:
        for group in groups:
            if mergeable(group[0], curve):
                group.append(curve)
                break
        else:
            groups.append([curve])
    return [merge(group) for group in groups]


def _mean_axis(curves: Sequence[AdaptationCurve]) -> tuple[int, ...] | None:
    axes = [curve.env_steps for curve in curves for _ in curve.seeds]
    known = [axis for axis in axes if axis is not None]
    if len(known) != len(axes):
        return None
    return tuple(int(step) for step in np.rint(np.mean(known, axis=0)))


def _mean_regret(curves: Sequence[AdaptationCurve]) -> tuple[float, ...] | None:
    known = [curve.regret for curve in curves for _ in curve.seeds if curve.regret is not None]
    return tuple(np.mean(known, axis=0).tolist()) if known else None


def _mean_reference(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def labels(curves: Sequence[AdaptationCurve]) -> list[str]:
    """A short distinct name for each curve: the agent, and the options in which namesakes differ."""
    return distinct_labels([(curve.agent, curve.config) for curve in curves])


def distinct_labels(agents: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """A short distinct name for each agent and its config: its own, and the options in which namesakes differ."""
    named = []
    for agent, config in agents:
        namesakes = [other for name, other in agents if name == agent]
        differing = [field for field in config if any(other.get(field) != config[field] for other in namesakes)]
        options = ", ".join(f"{field}={config[field]}" for field in differing)
        named.append(f"{agent} ({options})" if differing else agent)
    return [name if named.count(name) == 1 else f"{name} #{1 + named[:i].count(name)}" for i, name in enumerate(named)]
