"""Tables of trainings: where each agent ended, and what it had reached on the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarl.evaluation.statistics import FEW_SEEDS
from metarl.evaluation.training_curves import TrainingCurve
from metarl.reporting.table import Table
from metarl.reporting.wording import NONE, setting_of

SHOWN = 10  # validations of an agent in the table of its way
AFTER = {"last": "the last episode of a trial", "trial": "a whole trial", "0": "no adaptation"}
GRADIENT_STEPS = {"inner_step_size", "step_sizes"}  # options of agents whose bits of adaptation are gradient steps


def training_title(curves: Sequence[TrainingCurve]) -> str:
    """The problem, and what was measured, on two lines."""
    source = curves[0].runs[0].source
    counts = sorted({len(curve.seeds) for curve in curves})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    shown = "mean" if counts[-1] == 1 else "mean and 95 % interval over seeds"
    plural = "s" if counts[-1] > 1 else ""
    return f"{setting_of(source['name'], source['options'])}\nvalidation while training, {seeds} seed{plural}, {shown}"


def end_table(curves: Sequence[TrainingCurve], reach: float | None) -> Table:
    """A row an agent: its last validation, what training had consumed, and when it reached a return."""
    head = ["agent", "seeds", "before adaptation", "after", "measured", "iterations", "env steps", "minutes"]
    head += [] if reach is None else [f"{reach:g} after env steps", "minutes to that"]
    rows = []
    for curve in curves:
        tasks = "" if curve.validation_tasks is None else f", {curve.validation_tasks:,} tasks"
        before = NONE if curve.before is None else f"{curve.before[:, -1].mean():.2f}"
        row = [curve.label, str(len(curve.seeds)), before, _after(curve, -1), _measured(curve) + tasks]
        row += [f"{curve.iterations[-1]:,.0f}", *_consumed(curve, -1)]
        if reach is not None:
            k = curve.reaching(reach)
            row += ["never", NONE] if k is None else _consumed(curve, k)
        rows.append(tuple(row))
    return Table(tuple(head), tuple(rows), training_title(curves), tuple(_notes(curves, reach)))


def way_table(curves: Sequence[TrainingCurve]) -> Table:
    """A row an agent and validation, up to `SHOWN` of them, evenly spread."""
    rows = []
    for curve in curves:
        n = len(curve.iterations)
        for k in sorted({round(k) for k in np.linspace(0, n - 1, min(SHOWN, n))}):
            before = NONE if curve.before is None else f"{curve.before[:, k].mean():.2f}"
            rows.append((curve.label, f"{curve.iterations[k]:,.0f}", *_consumed(curve, k), before, _after(curve, k)))
    head = ("agent", "iterations", "env steps", "minutes", "before adaptation", "after")
    return Table(head, tuple(rows), "On the way", keys=2)


def _measured(curve: TrainingCurve) -> str:
    """After what adaptation the return was measured."""
    run = curve.runs[0]
    if run.measure in AFTER:
        return AFTER[run.measure]
    unit = "gradient step" if GRADIENT_STEPS & run.config.keys() else "bit"
    return f"{run.measure} {unit}{'s' * (run.measure != '1')}{' of adaptation' * (unit == 'bit')}"


def _after(curve: TrainingCurve, k: int) -> str:
    low, high = curve.interval.low[k], curve.interval.high[k]
    ends = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"  # of one seed there are none
    return f"{curve.interval.value[k]:.2f}{ends}"


def _consumed(curve: TrainingCurve, k: int) -> list[str]:
    minutes = NONE if curve.minutes is None else f"{curve.minutes[:, k].mean():.2f}"
    return [f"{curve.env_steps[:, k].mean():,.0f}", minutes]


def _notes(curves: Sequence[TrainingCurve], reach: float | None) -> list[str]:
    notes = [
        "Environment steps: all that a training learned from by then, those of adapting to training tasks included. "
        "Minutes: sampling and learning, wall-clock on whatever machine it was. Validation counts in neither."
    ]
    if reach is not None:
        notes.append(f"When the mean over seeds was first {reach:g} or more in a validation.")
    if len({curve.validation_tasks for curve in curves}) > 1:
        notes.append("The agents were validated on different numbers of tasks, the first of one frozen sequence.")
    if len({curve.runs[0].measure for curve in curves}) > 1:
        notes.append(
            "Agents adapt with different data: episodes of gradient steps, or those of a trial before its last."
        )
    if any(1 < len(curve.seeds) < FEW_SEEDS for curve in curves):
        notes.append(f"Fewer than {FEW_SEEDS} training seeds: intervals are too narrow.")
    return notes + [remark for curve in curves for remark in curve.remarks]
