"""What runs logged as they trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarl.evaluation.statistics import Values
from metarl.reporting.figures.layout import blank, legend_below, readable
from metarl.reporting.figures.style import house, looks
from metarl.reporting.table import clean

FIRST = ("return/", "score/", "loss/")  # metrics shown before the others
POINTS = 300  # drawn of a training curve


def training_figure(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """What runs of one learner logged as they trained: a panel a metric, a line a run.

    Args:
        logs: lines of metrics.jsonl by the run's name; not all need hold the same metrics. Of many lines the means
            of `POINTS` stretches are drawn.
    """
    names = dict.fromkeys(name for rows in logs.values() for row in rows for name in row if name != "iteration")
    metrics = sorted(names, key=lambda name: [not name.startswith(first) for first in FIRST])
    columns = min(3, max(1, len(metrics)))
    rows = -(-len(metrics) // columns) or 1
    named = len(logs) > 1
    with mpl.rc_context(house()):
        figure = blank(2.75 * columns, 1.75 * rows + 0.3)
        panels = [figure.add_subplot(rows, columns, i + 1) for i in range(len(metrics))]
        for ax, metric in zip(panels, metrics, strict=True):
            for look, name, lines in zip(looks(len(logs)), readable(list(logs)), logs.values(), strict=True):
                points = np.array([(line["iteration"], line[metric]) for line in lines if metric in line])
                if len(points):
                    x, y = _stretches(points).T
                    single = "o" if len(x) == 1 else None
                    ax.plot(x, y, color=look.colour, linewidth=1.1, marker=single, markersize=3, label=name)
            ax.set_title(clean(metric), loc="left", fontsize=8)
            ax.tick_params(labelsize=7)
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(4))
        figure.supxlabel("iteration", fontsize=8)
        if named and panels:
            handles = {str(line.get_label()): line for ax in panels for line in ax.get_lines()}
            legend_below(figure, list(handles.values()), list(handles))
    return figure


def _stretches(points: Values) -> Values:
    """Points `(n, 2)` in order, or the means of `POINTS` neighbouring groups where there are more."""
    if len(points) <= POINTS:
        return points
    return np.array([group.mean(0) for group in np.array_split(points, POINTS)])
