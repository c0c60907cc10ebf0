"""Pictures of adaptation curves: which figure fits, and the file it goes into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from metarl.evaluation.axes import FINAL, PULLS, common_axis
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import comparable
from metarl.evaluation.pulls import counted_pulls
from metarl.evaluation.references import with_common_references
from metarl.evaluation.task_arrays import with_task_arrays
from metarl.files import write_atomically
from metarl.reporting.figures.curves import curves_against
from metarl.reporting.figures.last_scores import last_scores
from metarl.reporting.figures.profile import profile_figure
from metarl.reporting.figures.regret import pulls_figure
from metarl.reporting.figures.splits import splits_figure
from metarl.reporting.figures.style import check_picture, house, render
from metarl.reporting.figures.tasks import tasks_figure


def plot_curves(curves: AdaptationCurve | Sequence[AdaptationCurve], path: str | Path, axis: str | None = None) -> None:
    """Draw one or several comparable curves into a PNG, SVG or PDF file; few distinct tasks get a panel each.

    >>> plot_curves(measure(make_agent("random", "metarl/Navigation2D-v0"), tasks=2, episodes=2), "curve.png")

    Args:
        curves: what to draw; each keeps its colour by position.
        path: the picture; its suffix chooses the format.
        axis: a key of `UNITS`, `FINAL` for the last scores alone, or None for `comparison.common_axis`.

    Raises:
        UserError: the curves are not comparable, the suffix is unknown, or the file cannot be written.
    """
    path = check_picture(path)
    write_atomically(path, render(lambda: figure(curves, axis), path.suffix.lower()[1:]))


def plot_splits(comparisons: Sequence[Comparison], path: str | Path) -> None:
    """Draw the curves of several splits beside each other into a PNG, SVG or PDF file.

    Raises:
        UserError: the suffix is unknown, or the file cannot be written.
    """
    path = check_picture(path)
    write_atomically(path, render(lambda: splits_figure(comparisons), path.suffix.lower()[1:]))


def plot_tasks(curves: Sequence[AdaptationCurve], path: str | Path) -> None:
    """Draw each task's score against what the task is into a PNG, SVG or PDF file; see `tasks_figure`.

    Raises:
        UserError: the curves are not comparable, their tasks cannot be placed, the suffix is unknown, or the file
            cannot be written.
    """
    path = check_picture(path)
    comparable(curves)
    placed = with_task_arrays(with_common_references(curves))
    write_atomically(path, render(lambda: tasks_figure(placed), path.suffix.lower()[1:]))


def plot_profiles(curves: Sequence[AdaptationCurve], path: str | Path) -> None:
    """Draw the performance profiles of comparable curves into a PNG, SVG or PDF file.

    Raises:
        UserError: the curves are not comparable, the suffix is unknown, or the file cannot be written.
    """
    path = check_picture(path)
    write_atomically(path, render(lambda: profile_figure(curves), path.suffix.lower()[1:]))


def figure(curves: AdaptationCurve | Sequence[AdaptationCurve], axis: str | None = None) -> Figure:
    """The figure that `plot_curves` writes.

    Raises:
        UserError: the curves are not comparable, or one that adapts does not count `axis`.
    """
    curves = [curves] if isinstance(curves, AdaptationCurve) else list(curves)
    comparable(curves)
    curves = with_common_references(curves)
    axis = axis or common_axis(curves)
    with mpl.rc_context(house()):
        if axis == PULLS:
            return pulls_figure(curves, counted_pulls(curves))
        return last_scores(curves) if axis == FINAL else curves_against(curves, axis)
