"""What each agent reached in the end, a row each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import labels
from metarl.reporting.figures.curves import drawn_references
from metarl.reporting.figures.layout import add_title, blank, grow, inches, readable
from metarl.reporting.figures.style import GREY, REFERENCE_DASHES, Look, looks
from metarl.reporting.wording import SCORE, formatter, problem, with_share


def last_scores(curves: Sequence[AdaptationCurve]) -> Figure:
    """The last score of each curve with its interval, a row each, the best on top; few tasks in rows below."""
    number = formatter(curves[0])
    shown: list[tuple[str, AdaptationCurve, Look, bool]] = []
    sign = -1 if curves[0].higher_is_better else 1
    best_first = sorted(
        zip(curves, readable(labels(curves)), looks(len(curves)), strict=True),
        key=lambda agent: (float(agent[0].diverged[-1]), sign * float(agent[0].mean[-1])),
    )
    for curve, name, look in best_first:
        shown.append((with_share(name, curve), curve, look, True))
        if curve.few_tasks:
            parts = [(task, curve.of_task(d)) for d, task in enumerate(readable(curve.task_names))]
            shown += [(with_share(task, part), part, look, False) for task, part in parts]
    last = np.array([[float(part[-1]) for part in dataclasses.astuple(curve.interval)] for _, curve, _, _ in shown])
    lines = max(name.count("\n") for name, _, _, _ in shown)
    figure = blank(3.4, 0.65 + (0.34 + 0.14 * lines) * len(shown))
    ax = figure.add_subplot()
    texts = []
    for row, (name, _, look, whole) in enumerate(shown):
        mean, low, high = last[row]
        ax.plot([low, high], [row, row], color=look.colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        ax.plot(
            [mean], [row], color=look.colour, marker="o" if whole else ".", markersize=6, linestyle="none", label=name
        )
        beside = number(mean) if low != low else f"{number(mean)} [{number(low)}, {number(high)}]"
        place: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8}
        texts.append(ax.annotate(beside, (1.02, row), **place))
    reach = last[np.isfinite(last)]
    span = max(float(np.ptp(reach)), 1e-12) if reach.size else 0.0
    for name, value in drawn_references(curves).items():
        if not reach.min(initial=np.inf) - span <= value <= reach.max(initial=-np.inf) + span:
            continue  # chance far below would leave the agents one dot
        ax.axvline(value, color=GREY, linewidth=1.2, linestyle=REFERENCE_DASHES[name], zorder=1.5)
        ax.annotate(name, (value, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    ax.set_yticks(range(len(shown)), [name for name, _, _, _ in shown])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    if curves[0].score == "accuracy":
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
        ax.set_xlim(right=min(ax.get_xlim()[1], 1.0005))
    ax.set_xlabel(f"{SCORE[curves[0].score]} at the end of adaptation")
    beyond = [max(inches(figure, text)[0] for text in column) for column in (ax.get_yticklabels(), texts)]
    grow(figure, sum(beyond))
    add_title(figure, problem(curves))
    return figure
