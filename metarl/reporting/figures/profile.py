"""Performance profiles: which share of tasks and seeds ends better than each score."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from metarl.evaluation.comparison import profiles
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import comparable, labels
from metarl.evaluation.references import with_common_references
from metarl.reporting.figures.curves import PLOT, add_legend
from metarl.reporting.figures.layout import add_title, blank, readable
from metarl.reporting.figures.style import house, looks
from metarl.reporting.wording import SCORE, problem


def profile_figure(curves: Sequence[AdaptationCurve]) -> Figure:
    """Share of tasks and seeds that end better than a score, against the score (Agarwal et al. 2021).

    Raises:
        UserError: the curves are not comparable.
    """
    comparable(curves)
    curves = with_common_references(curves)
    thresholds, shares = profiles(curves)
    normalised = curves[0].normalised is not None
    with mpl.rc_context(house()):
        figure = blank(*PLOT)
        ax = figure.add_subplot()
        for share, label, look in zip(shares, readable(labels(curves)), looks(len(curves)), strict=True):
            ax.fill_between(thresholds, share.low, share.high, color=look.colour, alpha=0.18, linewidth=0)
            ax.plot(thresholds, share.value, color=look.colour, linestyle=look.dashes, linewidth=1.6, label=label)
        ax.set_ylim(-0.02, 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.set_ylabel("tasks and seeds that do better")
        ax.set_xlabel("normalised score (0 random, 1 oracle)" if normalised else SCORE[curves[0].score])
        if not normalised and not curves[0].higher_is_better:
            ax.invert_xaxis()
        add_legend(figure, ax)
        add_title(figure, problem(curves))
    return figure
