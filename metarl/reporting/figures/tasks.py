"""Each task by itself: its score before and after adaptation, against what the task is.

Tasks that differ in one number (a speed, a direction) are dots above a line; those of two (a goal) are dots on a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import labels
from metarl.evaluation.statistics import Values, mean
from metarl.evaluation.task_arrays import task_numbers
from metarl.reporting.figures.layout import add_title, blank, fit, grow, legend_below, readable
from metarl.reporting.figures.style import GREY, Look, house, looks
from metarl.reporting.wording import SCORE, problem

PANEL = (2.5, 2.3)  # inches
ACROSS = 4  # agents at most side by side
TITLE = 1.9  # inches of a title or the name of an axis
WORDS = 0.26  # inches of one line of both, which `PANEL` has room for
CLOUD = 200  # from so many tasks on, dots are small, and pixels in a picture of lines
COLOURS = "viridis"


def tasks_figure(curves: Sequence[AdaptationCurve]) -> Figure:
    """A panel an agent; of maps two, the one before adaptation above that after it.

    Raises:
        UserError: the tasks are not told by one or two numbers.
    """
    first = curves[0]
    numbers = task_numbers(first)
    if numbers is None:
        raise UserError(
            f"tasks of {first.family} cannot be placed: a picture of each needs one or two numbers that tell them apart"
        )
    numbers = dict(zip(readable(list(numbers)), numbers.values(), strict=True))
    names = readable(labels(curves))
    draw = _lines if len(numbers) == 1 else _maps
    with mpl.rc_context(house()):
        figure = draw(curves, names, numbers)
        add_title(figure, problem(curves, interval=False))
    return figure


def _of_tasks(curve: AdaptationCurve, k: int) -> Values:
    """The mean score of each task over the seeds that did not diverge on it, `(D,)`; NaN where none did not."""
    scores = curve.scores[..., k]
    return np.asarray(mean(np.ones((1, len(scores))), scores)[0])


def _lines(curves: Sequence[AdaptationCurve], names: Sequence[str], numbers: Mapping[str, Values]) -> Figure:
    ((what, x),) = numbers.items()
    columns = min(ACROSS, len(curves))
    rows = -(-len(curves) // columns)
    figure = blank(PANEL[0] * columns + 0.3, PANEL[1] * rows)
    shared: Axes | None = None
    extra = 0.0
    for i, (curve, name, look) in enumerate(zip(curves, names, looks(len(curves)), strict=True)):
        ax = figure.add_subplot(rows, columns, i + 1, sharex=shared, sharey=shared)
        shared = shared or ax
        _dots(ax, curve, x, look)
        title = ax.set_title(name if curve.adapts else f"{name}\n(does not adapt)", loc="left")
        extra = max(extra, fit(figure, title, TITLE) + fit(figure, ax.set_xlabel(what), TITLE))
        if i % columns == 0:
            ax.set_ylabel(SCORE[curve.score])
        if curve.score == "accuracy":
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.xaxis.set_major_locator(MaxNLocator(5))
    grow(figure, height=rows * (extra - WORDS))
    dot: Any = {"linestyle": "none", "marker": "o", "markersize": 4.5, "color": GREY}
    handles = [Line2D([], [], markerfacecolor="none", **dot), Line2D([], [], **dot)]
    legend_below(figure, handles, ["before adaptation", "after adaptation"])
    return figure


def _dots(ax: Axes, curve: AdaptationCurve, x: Values, look: Look) -> None:
    """The score of each task as a dot, and that before adaptation as a ring."""
    cloud = len(x) >= CLOUD
    style: Any = {"s": 5 if cloud else 22, "alpha": 0.5 if cloud else 0.9, "rasterized": cloud}
    if curve.adapts:
        ax.scatter(x, _of_tasks(curve, 0), facecolors="none", edgecolors=GREY, linewidths=0.7, **style)
    ax.scatter(x, _of_tasks(curve, -1), color=look.colour, linewidths=0, **style)


def _maps(curves: Sequence[AdaptationCurve], names: Sequence[str], numbers: Mapping[str, Values]) -> Figure:
    (across, x), (up, y) = numbers.items()
    named = list(zip(curves, names, strict=True))
    panels = [(f"{name}\n{when}", c, k) for c, name in named if c.adapts for when, k in (("before", 0), ("after", -1))]
    panels += [(f"{name}\ndoes not adapt", curve, -1) for curve, name in named if not curve.adapts]
    columns = min(ACROSS, len(panels))
    rows = -(-len(panels) // columns)
    figure = blank(PANEL[0] * columns + 0.9, (PANEL[1] + 0.3) * rows)
    colours = _scale([_of_tasks(curve, k) for _, curve, k in panels], curves[0].higher_is_better)
    cloud, extra = len(x) >= CLOUD, 0.0
    dot: Any = {"norm": colours, "cmap": COLOURS, "s": 6 if cloud else 24, "rasterized": cloud, "plotnonfinite": True}
    for i, (title, curve, k) in enumerate(panels):
        ax = figure.add_subplot(rows, columns, i + 1)
        ax.scatter(x, y, c=_of_tasks(curve, k), **dot)
        across_label, up_label = ax.set_xlabel(across), ax.set_ylabel(up if i % columns == 0 else "")
        extra = max(extra, fit(figure, ax.set_title(title, loc="left"), TITLE) + fit(figure, across_label, TITLE))
        fit(figure, up_label, TITLE)
        if "[" in across:  # a place: two numbers of one kind
            ax.set_aspect("equal", adjustable="box")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    grow(figure, height=rows * (extra - WORDS))
    clipped = "min" if curves[0].higher_is_better else "max"
    what, shown = SCORE[curves[0].score], ScalarMappable(colours, COLOURS)
    bar = figure.colorbar(shown, ax=figure.axes, label=what, aspect=15 * rows, extend=clipped)
    if curves[0].score == "accuracy":
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _scale(scores: Sequence[Values], higher_is_better: bool) -> Normalize:
    """Colours for all but the worst hundredth, which would leave the others one colour."""
    pooled = np.concatenate(scores)
    finite = pooled[np.isfinite(pooled)]
    ends = (0.01, 1.0) if higher_is_better else (0.0, 0.99)
    return Normalize(*(np.quantile(finite, ends) if finite.size else (0.0, 1.0)))
