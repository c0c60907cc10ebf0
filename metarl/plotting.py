"""Pictures of adaptation curves, drawn without touching matplotlib's global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarl.evaluation import UNITS, AdaptationCurve, comparable, labels, write_atomically
from metarl.learner import UserError

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c564b", "#444444")  # Okabe & Ito
MARKERS = "os^Dv<>P"
SCORE = {"return": "return", "accuracy": "accuracy", "mse": "mean squared error"}
STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "legend.fontsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.framealpha": 0.9,
    "legend.edgecolor": "white",
    "pdf.fonttype": 42,  # editable text
    "svg.fonttype": "none",
    "svg.hashsalt": "metarl",  # the same curve gives the same file
}


def check_picture(path: str | Path) -> Path:
    """The path of a picture that can be drawn.

    Raises:
        UserError: its suffix is none of `FORMATS`.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"cannot draw {path}: the name must end in {', '.join(FORMATS)}")
    return path


def plot_curves(curves: AdaptationCurve | Sequence[AdaptationCurve], path: str | Path, axis: str | None = None) -> None:
    """Draw one or several comparable curves into a PNG, SVG or PDF file.

    Args:
        curves: what to draw; each keeps its colour by position.
        path: the picture; its suffix chooses the format.
        axis: a key of `UNITS`, or None for the one that all curves that adapt have in common.

    Raises:
        UserError: the curves are not comparable, the suffix is unknown, or the file cannot be written.
    """
    path = check_picture(path)
    kind = path.suffix.lower()[1:]
    dates = {"svg": "Date", "pdf": "CreationDate"}
    picture = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure(curves, axis).savefig(
            picture, format=kind, dpi=200, metadata={dates[kind]: None} if kind in dates else None
        )
    write_atomically(path, picture.getvalue())


def figure(curves: AdaptationCurve | Sequence[AdaptationCurve], axis: str | None = None) -> Figure:
    """The figure that `plot_curves` writes.

    Raises:
        UserError: the curves are not comparable, or one that adapts does not count `axis`.
    """
    curves = [curves] if isinstance(curves, AdaptationCurve) else list(curves)
    comparable(curves)
    axis = axis or common_axis(curves)
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(5.2, 3.6), layout="constrained")
        FigureCanvasAgg(made)
        ax = made.add_subplot()
        for i, (curve, label) in enumerate(zip(curves, labels(curves), strict=True)):
            _draw(ax, curve, label, axis, COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        _draw_references(ax, curves)
        ax.set_xlabel(UNITS.get(axis, "k, bits of adaptation"))
        ax.set_ylabel(SCORE[curves[0].score])
        ax.set_title(title(curves), loc="left", color="#333333")
        positions = sorted({x for curve in curves if curve.adapts or axis == "k" for x in curve.along(axis)})
        if len(positions) <= 8 and axis != "env_steps":
            ax.set_xticks(positions)
        else:
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.legend(loc="best")
    return made


def common_axis(curves: Sequence[AdaptationCurve]) -> str:
    """The first of gradient steps, environment steps and shots that every adapting curve counts, or "k"."""
    adapting = [curve for curve in curves if curve.adapts]
    for name in UNITS:
        if adapting and all(curve.axis == name or getattr(curve, name) is not None for curve in adapting):
            return name
    return "k"


def title(curves: Sequence[AdaptationCurve]) -> str:
    """The problem, and how many tasks and seeds were measured, on two lines."""
    first = curves[0]
    problem = first.family.removeprefix("metarl/")
    options = [f"{name}={value}" for name, value in first.options.items()]
    counts = {len(curve.seeds) for curve in curves if curve.adapts} or {1}
    seeds = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    tasks = f"{first.tasks} {first.split} task{'s' * (first.tasks != 1)}"
    reused = "" if first.unseen else " (tasks reused, not unseen)"
    return (
        ", ".join([problem, *([first.preset] if first.preset else []), *options])
        + f"\n{tasks}{reused}, {seeds} seed{'s' * (seeds != '1')}, mean and 95 % interval"
    )


def _draw(ax: Axes, curve: AdaptationCurve, label: str, axis: str, colour: str, marker: str) -> None:
    mean, low, high = curve.interval.mean, curve.interval.low, curve.interval.high
    if not curve.adapts and axis != "k":
        ax.axhline(float(mean.mean()), color=colour, linewidth=1.4, linestyle="-.", label=f"{label} (does not adapt)")
        return
    x = np.asarray(curve.along(axis))
    ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    ax.plot(x, mean, color=colour, marker=marker, markersize=4.5, linewidth=1.6, label=label)


def _draw_references(ax: Axes, curves: Sequence[AdaptationCurve]) -> None:
    drawn = {curve.agent for curve in curves}
    for name, style in {"oracle": (0, (5, 2)), "random": (0, (1, 1.5))}.items():
        known = [value for curve in curves if (value := getattr(curve, name)) is not None]
        if known and name not in drawn:
            ax.axhline(float(np.mean(known)), color="#666666", linewidth=1.2, linestyle=style, label=name, zorder=1.5)
