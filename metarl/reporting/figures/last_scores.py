"""What each agent reached in the end, a row each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import labels
from metarl.reporting.figures.curves import drawn_references
from metarl.reporting.figures.layout import add_title, blank, grow, inches, readable
from metarl.reporting.figures.style import GREY, REFERENCE_DASHES, Look, looks
from metarl.reporting.wording import SCORE, formatter, problem, with_share


class Row(NamedTuple):
    """A score that is shown.

    Attributes:
        name: as `readable` made it.
        curve: whose last score it is.
        look: its colour.
        whole: whether it is of an agent, else of a part below it.
    """

    name: str
    curve: AdaptationCurve
    look: Look
    whole: bool = True


def last_scores(curves: Sequence[AdaptationCurve]) -> Figure:
    """The last score of each curve with its interval, a row each, the best on top; few tasks in rows below."""
    rows: list[Row] = []
    sign = -1 if curves[0].higher_is_better else 1
    best_first = sorted(
        zip(curves, readable(labels(curves)), looks(len(curves)), strict=True),
        key=lambda agent: (float(agent[0].diverged[-1]), sign * float(agent[0].mean[-1])),
    )
    for curve, name, look in best_first:
        rows.append(Row(name, curve, look))
        if curve.few_tasks:
            tasks = readable(curve.task_names)
            rows += [Row(task, curve.of_task(d), look, whole=False) for d, task in enumerate(tasks)]
    return rows_of_scores(rows, drawn_references(curves), problem(curves))


def rows_of_scores(rows: Sequence[Row], references: Mapping[str, float], title: str) -> Figure:
    """Last scores with their intervals, a row each, and the references that are near."""
    kind, number = rows[0].curve.score, formatter(rows[0].curve)
    names = [with_share(row.name, row.curve) for row in rows]
    last = np.array([[float(part[-1]) for part in dataclasses.astuple(row.curve.interval)] for row in rows])
    figure = blank(3.4, 0.65 + (0.34 + 0.14 * max(name.count("\n") for name in names)) * len(rows))
    ax = figure.add_subplot()
    texts = []
    for y, (row, name, (mean, low, high)) in enumerate(zip(rows, names, last, strict=True)):
        colour, marker = row.look.colour, "o" if row.whole else "."
        ax.plot([low, high], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        ax.plot([mean], [y], color=colour, marker=marker, markersize=6, linestyle="none", label=name)
        beside = number(mean) if low != low else f"{number(mean)} [{number(low)}, {number(high)}]"
        place: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8}
        texts.append(ax.annotate(beside, (1.02, y), **place))
    reach = last[np.isfinite(last)]
    span = max(float(np.ptp(reach)), 1e-12) if reach.size else 0.0
    for name, value in references.items():
        if not reach.min(initial=np.inf) - span <= value <= reach.max(initial=-np.inf) + span:
            continue  # chance far below would leave the agents one dot
        ax.axvline(value, color=GREY, linewidth=1.2, linestyle=REFERENCE_DASHES[name], zorder=1.5)
        ax.annotate(name, (value, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    ax.set_yticks(range(len(rows)), names)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    if kind == "accuracy":
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
        ax.set_xlim(right=min(ax.get_xlim()[1], 1.0005))
    ax.set_xlabel(f"{SCORE[kind]} at the end of adaptation")
    beyond = [max(inches(figure, text)[0] for text in column) for column in (ax.get_yticklabels(), texts)]
    grow(figure, sum(beyond))
    add_title(figure, title)
    return figure
