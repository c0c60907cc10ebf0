"""What runs logged as they trained: a panel a metric, and in it a band for all training seeds of an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarl.evaluation.statistics import Values
from metarl.reporting.figures.layout import blank, legend_below, readable
from metarl.reporting.figures.style import house, looks
from metarl.reporting.table import clean

POINTS = 300  # drawn of a training curve
LARGE, SMALL = (4.2, 2.5, 2), (2.75, 1.75, 3)  # inches of a panel, and how many stand side by side at most

Log = Sequence[Mapping[str, float]]  # the lines of a metrics.jsonl


class Band(NamedTuple):
    """A metric along n iterations, each `(n,)`: mean, least and greatest over the seeds that have it."""

    iterations: Values
    mean: Values
    low: Values
    high: Values


def band(seeds: Sequence[Log], metric: str) -> Band:
    """The band of a metric; of more than `POINTS` iterations, of the means of so many stretches of each seed."""
    values = [{line["iteration"]: line[metric] for line in log if metric in line} for log in seeds]
    iterations = sorted(set().union(*values))
    each = np.array([[of_seed.get(at, np.nan) for at in iterations] for of_seed in values], dtype=np.float64)
    known = np.ma.masked_invalid(each.reshape(len(seeds), len(iterations)))
    stretches = np.array_split(np.arange(len(iterations)), min(len(iterations), POINTS)) if iterations else []
    if not stretches:
        return Band(*(np.empty(0) for _ in Band._fields))
    means = np.ma.stack([known[:, stretch].mean(1) for stretch in stretches], axis=1)
    x = np.array([np.mean([iterations[i] for i in stretch]) for stretch in stretches])
    some = ~np.ma.getmaskarray(means).all(0)
    ends = (means.mean(0), means.min(0), means.max(0))
    return Band(x[some], *(np.asarray(np.ma.filled(value, np.nan))[some] for value in ends))


def training_figure(agents: Mapping[str, Sequence[Log]], metrics: Sequence[str], *, large: bool = False) -> Figure:
    """Metrics of agents, whose seeds are a band each.

    Args:
        agents: the logs of an agent's seeds, by its name; not all need hold the same metrics.
        metrics: those to draw, at least one.
        large: two panels side by side, not three.
    """
    width, height, across = LARGE if large else SMALL
    columns = min(across, len(metrics))
    size = 9 if large else 8
    with mpl.rc_context(house()):
        figure = blank(width * columns, height * -(-len(metrics) // columns) + 0.3)
        names = readable(list(agents))
        for i, metric in enumerate(metrics):
            ax = figure.add_subplot(-(-len(metrics) // columns), columns, i + 1)
            for look, name, logs in zip(looks(len(agents)), names, agents.values(), strict=True):
                x, mean, low, high = band(logs, metric)
                if len(x):
                    ax.fill_between(x, low, high, color=look.colour, alpha=0.2, linewidth=0)
                    single = "o" if len(x) == 1 else None
                    ax.plot(x, mean, color=look.colour, linewidth=1.3, marker=single, markersize=3, label=name)
            ax.set_title(clean(metric), loc="left", fontsize=size)
            ax.tick_params(labelsize=size - 1)
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(4))
        figure.supxlabel("iteration", fontsize=size)
        if len(agents) > 1:
            handles = {str(line.get_label()): line for ax in figure.axes for line in ax.get_lines()}
            legend_below(figure, list(handles.values()), list(handles))
    return figure
