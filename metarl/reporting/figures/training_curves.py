"""The field's own figure: return after adaptation against what training consumed, environment steps and minutes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarl.evaluation.statistics import Values
from metarl.evaluation.training_curves import TrainingCurve
from metarl.files import write_atomically
from metarl.reporting.figures.curves import APART
from metarl.reporting.figures.layout import add_title, blank, legend_below, readable
from metarl.reporting.figures.style import Look, check_picture, house, looks, render

PANEL = (3.6, 2.9)  # inches
STEPS, MINUTES = "environment steps of training", "minutes of training"


def plot_training(curves: Sequence[TrainingCurve], title: str, path: str | Path) -> None:
    """Draw trainings into a PNG, SVG or PDF file.

    Raises:
        UserError: the suffix is unknown, or the file cannot be written.
    """
    path = check_picture(path)
    write_atomically(path, render(lambda: training_curves_figure(curves, title), path.suffix.lower()[1:]))


def training_curves_figure(curves: Sequence[TrainingCurve], title: str) -> Figure:
    """Mean and interval over the seeds of each agent, in two panels with one scale of returns."""
    with mpl.rc_context(house()):
        figure = blank(PANEL[0] * 2, PANEL[1])
        left = figure.add_subplot(1, 2, 1)
        right = figure.add_subplot(1, 2, 2, sharey=left)
        for curve, name, look in zip(curves, readable([c.label for c in curves]), looks(len(curves)), strict=True):
            _draw(left, curve.env_steps.mean(0), curve, name, look)
            if curve.minutes is not None:
                _draw(right, curve.minutes.mean(0), curve, name, look)
        left.set_ylabel("return after adaptation")
        _scale(left, STEPS, [float(curve.env_steps[:, -1].mean()) for curve in curves])
        _scale(right, MINUTES, [float(curve.minutes[:, -1].mean()) for curve in curves if curve.minutes is not None])
        lines = left.get_lines()
        legend_below(figure, lines, [str(line.get_label()) for line in lines])
        add_title(figure, title)
    return figure


def _draw(ax: Axes, consumed: Values, curve: TrainingCurve, name: str, look: Look) -> None:
    mean, low, high = curve.interval.value, curve.interval.low, curve.interval.high
    ax.fill_between(consumed, low, high, color=look.colour, alpha=0.18, linewidth=0)
    marker = look.marker if len(mean) <= 12 else None
    ax.plot(consumed, mean, color=look.colour, linestyle=look.dashes, marker=marker, markersize=3, label=name)


def _scale(ax: Axes, unit: str, ends: Sequence[float]) -> None:
    """From 0 on, or a logarithmic scale where agents consumed very different amounts."""
    ax.set_xlabel(unit)
    if ends and min(ends) > 0 and max(ends) > APART * min(ends):
        ax.set_xscale("log")
        ax.set_xlabel(f"{unit}, logarithmic")
        return
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    if unit == STEPS:
        ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}M" if value >= 1e5 else f"{value:,.0f}")
