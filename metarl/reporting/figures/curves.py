"""Scores against what adaptation consumed: one plot, or a panel a task or a split.

Scores are points, joined by thin steps: between two of them there is no policy that was measured, and an agent
keeps the last one it had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from metarl.evaluation.curve import UNITS, AdaptationCurve
from metarl.evaluation.merging import labels
from metarl.reporting.figures.layout import (
    FEW,
    add_title,
    blank,
    fit,
    grow,
    legend_below,
    legend_beside,
    readable,
)
from metarl.reporting.figures.style import GREY, REFERENCE_DASHES, Look, looks
from metarl.reporting.wording import SCORE, problem, with_share

PLOT = (5.2, 3.2)  # inches, of a figure of one plot
PANEL = (2.6, 2.1)  # inches, of one of several
TITLE = 0.6  # inches of a panel that its title, which begins at its axis, has not
LINE_HEIGHT = 0.125  # inches of a title of one line, which `PANEL` has room for
ACROSS = 4  # panels at most side by side
APART = 20  # agents whose budgets differ by more are drawn on a logarithmic axis


class Panel(NamedTuple):
    """One plot of several.

    Attributes:
        title: above it.
        curves: by their names, as `readable` made them.
        looks: by the same names.
        references: level lines.
    """

    title: str
    curves: Mapping[str, AdaptationCurve]
    looks: Mapping[str, Look]
    references: Mapping[str, float]


def curves_against(curves: Sequence[AdaptationCurve], axis: str) -> Figure:
    """Mean and interval of each curve against what it consumed; of few tasks, one by one too."""
    names = readable(labels(curves))
    by_name = dict(zip(names, curves, strict=True))
    look = dict(zip(names, looks(len(curves)), strict=True))
    whole = Panel("mean of the tasks", by_name, look, drawn_references(curves))
    if not curves[0].few_tasks:
        figure = blank(*PLOT)
        ax = figure.add_subplot()
        draw_panel(ax, whole, axis)
        add_legend(figure, ax)
        add_title(figure, problem(curves))
        return figure
    panels = [
        Panel(task, {name: curve.of_task(d) for name, curve in by_name.items()}, look, {})
        for d, task in enumerate(readable(curves[0].task_names))
    ]
    return panels_against([whole, *panels], axis, problem(curves))


def panels_against(panels: Sequence[Panel], axis: str, title: str) -> Figure:
    """A panel each, with one scale of scores and one legend."""
    columns = min(ACROSS, len(panels))
    rows = -(-len(panels) // columns)
    figure = blank(PANEL[0] * columns, PANEL[1] * rows)
    extra = 0.0
    shared: Axes | None = None
    handles: dict[str, Line2D] = {}
    for i, panel in enumerate(panels):
        ax = figure.add_subplot(rows, columns, i + 1, sharey=shared)
        shared = shared or ax
        handles = draw_panel(ax, panel, axis) | handles
        extra = max(extra, fit(figure, ax.set_title(panel.title, loc="left"), PANEL[0] - TITLE))
        ax.tick_params(axis="x", labelsize=7)
        if i % columns:
            ax.set_ylabel("")
    grow(figure, height=rows * (extra - LINE_HEIGHT))
    legend_below(figure, list(handles.values()), [str(line.get_label()) for line in handles.values()])
    add_title(figure, title)
    return figure


def add_legend(figure: Figure, ax: Axes) -> None:
    """The legend of a figure of one plot: below it where it is short, else beside it; never on the data."""
    handles = ax.get_lines()
    names = [str(line.get_label()) for line in handles]
    if len(names) <= FEW and not any("\n" in name for name in names):
        legend_below(figure, handles, names)
    else:
        legend_beside(figure, handles, names)


def draw_panel(ax: Axes, panel: Panel, axis: str) -> dict[str, Line2D]:
    """Draw the curves of one panel and the axes that fit them; the lines by their names."""
    curves = list(panel.curves.values())
    lines = {name: _draw(ax, curve, name, axis, panel.looks[name]) for name, curve in panel.curves.items()}
    for name, value in panel.references.items():
        style = {"color": GREY, "linewidth": 1.2, "linestyle": REFERENCE_DASHES[name], "zorder": 1.5}
        lines[name] = _level(ax, value, label=name, **style)
    ax.set_xlabel(UNITS.get(axis, "k, bits of adaptation"))
    ax.set_ylabel(SCORE[curves[0].score])
    if curves[0].score == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    positions = sorted({x for curve in curves if curve.adapts or axis == "k" for x in curve.along(axis)})
    ends = [curve.along(axis)[-1] for curve in curves if curve.adapts]
    if axis == "env_steps" and ends and max(ends) > APART * min(ends):
        _logarithmic(ax, [x for x in positions if x > 0], UNITS[axis])
    elif len(positions) <= 8 and axis != "env_steps":
        ax.set_xticks(positions)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.xaxis.set_major_formatter("{x:,.0f}")
    return lines


def _logarithmic(ax: Axes, positions: Sequence[int], unit: str) -> None:
    """0, and then a logarithmic scale from the first position on."""
    first, last = positions[0], positions[-1]
    ax.set_xscale("symlog", linthresh=first, linscale=0.5)
    ax.set_xticks([0, *(10**n for n in range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1))])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlim(-0.1 * first, 1.15 * last)
    ax.set_xlabel(f"{unit} (logarithmic from {first:,})")


def _draw(ax: Axes, curve: AdaptationCurve, name: str, axis: str, look: Look) -> Line2D:
    interval, name = curve.interval, with_share(name, curve)
    if not curve.adapts and axis != "k":
        label = f"{name} (does not adapt)" if curve.steps else name
        return _level(ax, float(interval.value.mean()), color=look.colour, linewidth=1.4, linestyle="-.", label=label)
    x = np.asarray(curve.along(axis))
    ax.vlines(x, interval.low, interval.high, color=look.colour, alpha=0.35, linewidth=3)
    (line,) = ax.plot(
        x,
        interval.value,
        color=look.colour,
        marker=look.marker,
        markersize=5,
        markeredgewidth=0,
        linewidth=0.8,
        drawstyle="steps-post",
        label=name,
    )
    return line


def _level(ax: Axes, value: float, **style: Any) -> Line2D:
    """A level line that keeps the margin to the frame."""
    line = ax.axhline(value, **style)
    ax.update_datalim([(0.0, value)], updatex=False)
    ax.autoscale_view(scalex=False)
    return line


def drawn_references(curves: Sequence[AdaptationCurve]) -> dict[str, float]:
    """Lines to draw: the common references, where no curve of that name is drawn."""
    drawn = {curve.agent for curve in curves}
    known = {"oracle": curves[0].oracle, "random": curves[0].random}
    return {name: value for name, value in known.items() if value is not None and name not in drawn}
