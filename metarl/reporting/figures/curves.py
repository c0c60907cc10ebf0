"""Scores against what adaptation consumed: one plot, or a panel a task where they are few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from metarl.evaluation.curve import UNITS, AdaptationCurve
from metarl.evaluation.merging import labels
from metarl.reporting.figures.style import GREY, INSIDE, REFERENCE_DASHES, Look, canvas, looks
from metarl.reporting.wording import SCORE, problem, with_share

PANEL = (2.6, 2.3)  # inches, of one task
ACROSS = 4  # panels at most side by side
APART = 20  # agents whose budgets differ by more are drawn on a logarithmic axis


def curves_against(curves: Sequence[AdaptationCurve], axis: str) -> Figure:
    """Mean and interval of each curve against what it consumed; of few tasks, one by one too."""
    names, references = labels(curves), drawn_references(curves)
    entries = len(curves) + len(references)
    if not curves[0].few_tasks:
        made, ax = canvas(entries)
        _draw_panel(ax, curves, names, axis, references)
        finish(made, ax, curves, entries)
        return made
    panels = [("mean of the tasks", curves, references)]
    panels += [(task, [curve.of_task(d) for curve in curves], {}) for d, task in enumerate(curves[0].task_names)]
    columns = min(ACROSS, len(panels))
    rows = -(-len(panels) // columns)
    made = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.9), layout="constrained")
    FigureCanvasAgg(made)
    shared: Axes | None = None
    for i, (title, drawn, levels) in enumerate(panels):
        ax = made.add_subplot(rows, columns, i + 1, sharey=shared)
        shared = shared or ax
        _draw_panel(ax, drawn, names, axis, levels)
        ax.set_title(title, loc="left", parse_math=False)
        ax.tick_params(axis="x", labelsize=7)
        if i % columns:
            ax.set_ylabel("")
    made.suptitle(problem(curves), x=0.01, ha="left", fontsize=9)
    handles, texts = made.axes[0].get_legend_handles_labels()
    made.legend(handles, texts, loc="outside lower left", ncols=min(4, entries))
    return made


def _draw_panel(
    ax: Axes, curves: Sequence[AdaptationCurve], names: Sequence[str], axis: str, references: Mapping[str, float]
) -> None:
    for curve, label, look in zip(curves, names, looks(len(curves)), strict=True):
        _draw(ax, curve, label, axis, look)
    for name, value in references.items():
        _level(ax, value, color=GREY, linewidth=1.2, linestyle=REFERENCE_DASHES[name], label=name, zorder=1.5)
    ax.set_xlabel(UNITS.get(axis, "k, bits of adaptation"))
    ax.set_ylabel(SCORE[curves[0].score])
    if curves[0].score == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    positions = sorted({x for curve in curves if curve.adapts or axis == "k" for x in curve.along(axis)})
    ends = [curve.along(axis)[-1] for curve in curves if curve.adapts]
    if axis == "env_steps" and ends and max(ends) > APART * min(ends):
        first = min(x for x in positions if x > 0)
        ax.set_xscale("symlog", linthresh=first, linscale=0.5)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_xlim(left=-0.1 * first)
        ax.set_xlabel(f"{UNITS[axis]} (logarithmic from {first:,})")
    elif len(positions) <= 8 and axis != "env_steps":
        ax.set_xticks(positions)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.xaxis.set_major_formatter("{x:,.0f}")


def _draw(ax: Axes, curve: AdaptationCurve, label: str, axis: str, look: Look) -> None:
    mean, low, high = curve.interval.value, curve.interval.low, curve.interval.high
    label = with_share(label, curve)
    if not curve.adapts and axis != "k":
        name = f"{label} (does not adapt)" if curve.steps else label
        _level(ax, float(mean.mean()), color=look.colour, linewidth=1.4, linestyle="-.", label=name)
        return
    x = np.asarray(curve.along(axis))
    ax.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)
    ax.plot(x, mean, color=look.colour, marker=look.marker, markersize=4.5, linewidth=1.6, label=label)


def _level(ax: Axes, value: float, **style: Any) -> None:
    """A level line that keeps the margin to the frame."""
    ax.axhline(value, **style)
    ax.update_datalim([(0.0, value)], updatex=False)
    ax.autoscale_view(scalex=False)


def finish(made: Figure, ax: Axes, curves: Sequence[AdaptationCurve], entries: int) -> None:
    """Title and legend of a figure of one plot."""
    ax.set_title(problem(curves), loc="left")
    if entries <= INSIDE:
        ax.legend(loc="best")
    else:
        made.legend(*ax.get_legend_handles_labels(), loc="outside right center")


def drawn_references(curves: Sequence[AdaptationCurve]) -> dict[str, float]:
    """Lines to draw: the common references, where no curve of that name is drawn."""
    drawn = {curve.agent for curve in curves}
    known = {"oracle": curves[0].oracle, "random": curves[0].random}
    return {name: value for name, value in known.items() if value is not None and name not in drawn}
