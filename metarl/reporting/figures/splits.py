"""The same agents on several splits, beside each other: what test tasks say of others."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from metarl.evaluation.comparison import Comparison
from metarl.evaluation.curve import UNITS
from metarl.reporting.figures.curves import Panel, drawn_references, panels_against
from metarl.reporting.figures.last_scores import Row, rows_of_scores
from metarl.reporting.figures.layout import readable
from metarl.reporting.figures.style import house, looks
from metarl.reporting.table import clean
from metarl.reporting.wording import setting


def splits_figure(comparisons: Sequence[Comparison]) -> Figure:
    """A panel a split where the agents share an axis; else their last scores, a row a split."""
    first = comparisons[0]
    labels = list(dict.fromkeys(label for comparison in comparisons for label in comparison.labels))
    names = dict(zip(labels, readable(labels), strict=True))
    style = dict(zip(names.values(), looks(len(names)), strict=True))
    title = setting(first.curves[0])
    with mpl.rc_context(house()):
        if first.axis in UNITS and all(comparison.axis == first.axis for comparison in comparisons):
            panels = []
            for comparison in comparisons:
                curves = {names[entry.label]: entry.curve for entry in comparison.entries}
                tasks = f"{clean(comparison.curves[0].split)}, {comparison.curves[0].tasks:,} tasks"
                panels.append(Panel(tasks, curves, style, drawn_references(comparison.curves)))
            return panels_against(panels, first.axis, f"{title}\nmean and 95 % interval")
        rows = [
            Row(f"{name}\n{clean(entry.curve.split)}", entry.curve, style[name])
            for label, name in names.items()
            for comparison in comparisons
            for entry in comparison.entries
            if entry.label == label
        ]
        return rows_of_scores(rows, {}, f"{title}\nmean and 95 % interval")
