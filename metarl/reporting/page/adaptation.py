"""Adaptation: figures and tables of each problem among the curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from metarl.errors import UserError
from metarl.evaluation.comparison import Comparison, compare
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import comparable, merge_seeds
from metarl.evaluation.task_arrays import task_numbers, with_task_arrays
from metarl.learning.contract import Budget
from metarl.reporting import plots
from metarl.reporting.figures.profile import profile_figure
from metarl.reporting.figures.tasks import tasks_figure
from metarl.reporting.page.markup import Section, definitions, details, figure
from metarl.reporting.table import clean
from metarl.reporting.tables import protocol_table, score_table, summary_table, task_table
from metarl.reporting.wording import formatter, setting


def problems(curves: Sequence[AdaptationCurve]) -> list[Comparison]:
    """Comparisons of the curves that can be compared, a problem each; seeds of one agent are one curve."""
    groups: list[list[AdaptationCurve]] = []
    for curve in merge_seeds(curves) if curves else []:
        for group in groups:
            try:
                comparable([*group, curve])
            except UserError:
                continue
            group.append(curve)
            break
        else:
            groups.append([curve])
    return [compare(group) for group in groups]


def problem_section(comparison: Comparison) -> Section:
    """Figure and summary of one problem; scores step by step, profiles and protocol are folded."""
    curves, first = comparison.curves, comparison.curves[0]
    facts = {
        "problem": setting(first),
        "tasks": f"{first.tasks:,} of the split {first.split}" + ("" if first.unseen else ", reused and not unseen"),
        "SHA-256 of the tasks": first.task_hash,
        "budget a task": _budget(first.budget) if first.shots is None else f"{first.shots[-1]} shots",
        "training seeds": "; ".join(
            f"{label}: {', '.join(map(str, curve.seeds)) if curve.trained else 'not trained'}"
            for label, curve in zip(comparison.labels, curves, strict=True)
        ),
        "evaluation seed": ", ".join(map(str, sorted({curve.evaluation_seed for curve in curves}))),
    }
    number = formatter(first)
    ends = "; ".join(f"{entry.label} {number(float(entry.curve.mean[-1]))}" for entry in comparison.entries)
    scores, each = score_table(comparison), task_table(curves, comparison.labels)
    body = [
        figure(lambda: plots.figure(curves, comparison.axis), f"Adaptation curves. Last scores: {ends}.", ""),
        dataclasses.replace(summary_table(comparison), title="Last scores").html(),
        *([] if each is None else [each.html()]),
        details(scores.title, dataclasses.replace(scores, title="", notes=()).html()),
    ]
    if first.tasks > 1:
        words = "Share of tasks and seeds that end with a better score than each threshold. Shading: 95 % interval."
        profile = figure(lambda: profile_figure(curves), f"Performance profiles. {words}", words)
        body.append(details("Performance profiles", profile))
    placed = with_task_arrays(curves)
    if not first.few_tasks and (numbers := task_numbers(placed[0])) is not None:
        words = f"The score of each task, against {' and '.join(map(clean, numbers))}, before and after adaptation."
        body.append(details("Task by task", figure(lambda: tasks_figure(placed), words, words)))
    told = definitions({name: value for name, value in facts.items() if value})
    body.append(details("Tasks, seeds and protocol", told + protocol_table(comparison).html()))
    return Section(f"{setting(first)}: {first.split} tasks", "".join(body))


def _budget(budget: Budget | None) -> str:
    return "" if budget is None else f"{budget.steps} steps of {budget.episodes} episodes"
