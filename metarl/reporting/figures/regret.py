"""Bandits: what each pull is expected to pay and to cost, and what all pulls so far have cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import labels
from metarl.evaluation.pulls import Pulls
from metarl.evaluation.statistics import Values
from metarl.reporting.figures.layout import add_title, blank, legend_below, readable
from metarl.reporting.figures.style import GREY, REFERENCE_DASHES, Look, looks
from metarl.reporting.wording import problem

PANEL = (3.1, 2.6)  # inches
DECADE = 10  # a regret that falls by more is drawn on a logarithmic scale
FEW_PULLS = 12  # so many are drawn as points


def pulls_figure(curves: Sequence[AdaptationCurve], pulls: Sequence[Pulls]) -> Figure:
    """A panel each: reward of a pull (where the best arm's is known), regret of a pull, regret so far.

    An agent that does not adapt is a level line in the first two.
    """
    names, style = readable(labels(curves)), looks(len(curves))
    rewards = [each.reward for each in pulls if each.reward is not None]
    panels: list[tuple[str, list[Values]]] = [
        *([("expected reward of a pull", rewards)] if rewards else []),
        ("expected regret of a pull", [each.regret for each in pulls]),
        ("expected regret so far", [each.regret.cumsum() for each in pulls]),
    ]
    figure = blank(PANEL[0] * len(panels), PANEL[1])
    handles: list[Line2D] = []
    for i, (what, values) in enumerate(panels):
        ax = figure.add_subplot(1, len(panels), i + 1)
        handles = [_line(ax, y, look) for y, look in zip(values, style, strict=True)]
        ax.set_xlabel("pull")
        ax.set_ylabel(what)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if what == "expected regret of a pull":
            _scale(ax, [y for y, curve in zip(values, curves, strict=True) if curve.regret is not None])
        elif what == "expected regret so far":
            ax.set_ylim(bottom=min(0.0, *(float(y.min()) for y in values)))
        elif pulls[0].reward is not None:
            best = float((pulls[0].reward + pulls[0].regret).mean())
            names = [*names, "best arm"]
            level = ax.axhline(best, color=GREY, linewidth=1.2, linestyle=REFERENCE_DASHES["oracle"], zorder=1.5)
            handles.append(level)
    known = figure.axes[0].get_lines()
    legend_below(figure, known, names[: len(known)])
    add_title(figure, problem(curves, interval=False))
    return figure


def _line(ax: Axes, y: Values, look: Look) -> Line2D:
    x = np.arange(1, len(y) + 1)
    few = len(y) <= FEW_PULLS
    points = {"marker": look.marker, "markersize": 4, "markeredgewidth": 0, "linewidth": 0.8, "drawstyle": "steps-post"}
    style: Any = points if few else {"linewidth": 1.3, "linestyle": look.dashes}
    (line,) = ax.plot(x, y, color=look.colour, **style)
    return line


def _scale(ax: Axes, learning: Sequence[Values]) -> None:
    """A logarithmic scale that shows all that the agents which adapt do, where one of them falls far."""
    lowest = min(float(y.min()) for y in learning)
    if lowest <= 0 or max(float(y.max()) for y in learning) <= DECADE * lowest:
        return
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.8 * lowest)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
