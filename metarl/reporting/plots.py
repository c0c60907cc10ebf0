"""Pictures of adaptation curves, drawn without touching matplotlib's global state."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from metarl.errors import UserError
from metarl.evaluation.comparison import FINAL, common_axis, profiles, with_common_references
from metarl.evaluation.curve import UNITS, AdaptationCurve
from metarl.evaluation.merging import comparable, labels
from metarl.evaluation.statistics import Values
from metarl.evaluation.storage import write_atomically
from metarl.reporting.tables import formatter, problem

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c564b", "#444444")  # Okabe & Ito
MARKERS = "os^Dv<>P"
DASHES: Any = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
REFERENCE_DASHES: Any = {"oracle": (0, (5, 2)), "random": (0, (1, 1.5))}
GREY = "#777777"  # readable on white and on black
PANEL = (2.6, 2.3)  # inches, of one task
ACROSS = 4  # panels at most side by side
INSIDE = 3  # entries of a legend that still fit into the plot
FIRST = ("return/", "score/", "loss/")  # metrics shown before the others
POINTS = 300  # drawn of a training curve
APART = 20  # agents whose budgets differ by more are drawn on a logarithmic axis
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
    "text.color": "#333333",
    "axes.labelcolor": "#333333",
}
DARK: Any = {
    "text.color": "#d5d8dc",
    "axes.labelcolor": "#d5d8dc",
    "axes.edgecolor": "#8a9099",
    "xtick.color": "#b4bac2",
    "ytick.color": "#b4bac2",
    "grid.color": "#3a3f46",
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    "savefig.facecolor": "none",
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
    """Draw one or several comparable curves into a PNG, SVG or PDF file; few distinct tasks get a panel each.

    Args:
        curves: what to draw; each keeps its colour by position.
        path: the picture; its suffix chooses the format.
        axis: a key of `UNITS`, `FINAL` for the last scores alone, or None for `comparison.common_axis`.

    Raises:
        UserError: the curves are not comparable, the suffix is unknown, or the file cannot be written.
    """
    path = check_picture(path)
    write_atomically(path, render(lambda: figure(curves, axis), path.suffix.lower()[1:]))


def plot_profiles(curves: Sequence[AdaptationCurve], path: str | Path) -> None:
    """Draw the performance profiles of comparable curves into a PNG, SVG or PDF file.

    Raises:
        UserError: the curves are not comparable, the suffix is unknown, or the file cannot be written.
    """
    path = check_picture(path)
    write_atomically(path, render(lambda: profile_figure(curves), path.suffix.lower()[1:]))


def render(draw: Callable[[], Figure], kind: str, *, dark: bool = False) -> bytes:
    """What `draw` draws as a "png", "svg" or "pdf" file, in the colours of a light or a dark page."""
    dates = {"svg": "Date", "pdf": "CreationDate"}
    metadata = {dates[kind]: None} if kind in dates else None
    picture = io.BytesIO()
    with mpl.rc_context(STYLE | (DARK if dark else {})):
        draw().savefig(picture, format=kind, dpi=200, metadata=metadata, transparent=dark)
    return picture.getvalue()


def figure(curves: AdaptationCurve | Sequence[AdaptationCurve], axis: str | None = None) -> Figure:
    """The figure that `plot_curves` writes.

    Raises:
        UserError: the curves are not comparable, or one that adapts does not count `axis`.
    """
    curves = [curves] if isinstance(curves, AdaptationCurve) else list(curves)
    comparable(curves)
    curves = with_common_references(curves)
    axis = axis or common_axis(curves)
    with mpl.rc_context(_house()):
        return _draw_last(curves) if axis == FINAL else _draw_against(curves, axis)


def profile_figure(curves: Sequence[AdaptationCurve]) -> Figure:
    """Share of tasks and seeds that end better than a score, against the score (Agarwal et al. 2021).

    Raises:
        UserError: the curves are not comparable.
    """
    comparable(curves)
    curves = with_common_references(curves)
    thresholds, shares = profiles(curves)
    normalised = curves[0].normalised is not None
    with mpl.rc_context(_house()):
        made, ax = _canvas(len(curves))
        for share, label, look in zip(shares, labels(curves), looks(len(curves)), strict=True):
            ax.fill_between(thresholds, share.low, share.high, color=look.colour, alpha=0.18, linewidth=0)
            ax.plot(thresholds, share.value, color=look.colour, linestyle=look.dashes, linewidth=1.6, label=label)
        ax.set_ylim(-0.02, 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.set_ylabel("tasks and seeds that do better")
        ax.set_xlabel("normalised score (0 random, 1 oracle)" if normalised else SCORE[curves[0].score])
        if not normalised and not curves[0].higher_is_better:
            ax.invert_xaxis()
        _finish(made, ax, curves, len(curves))
    return made


def training_figure(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """What runs of one learner logged as they trained: a panel a metric, a line a run.

    Args:
        logs: lines of metrics.jsonl by the run's name; not all need hold the same metrics. Of many lines the means
            of `POINTS` stretches are drawn.
    """
    found = dict.fromkeys(name for rows in logs.values() for row in rows for name in row if name != "iteration")
    metrics = sorted(found, key=lambda name: [not name.startswith(first) for first in FIRST])
    columns = min(3, max(1, len(metrics)))
    rows = -(-len(metrics) // columns) or 1
    named = len(logs) > 1
    with mpl.rc_context(_house()):
        made = Figure(figsize=(2.75 * columns, 1.75 * rows + 0.3 + 0.2 * named), layout="constrained")
        FigureCanvasAgg(made)
        panels = [made.add_subplot(rows, columns, i + 1) for i in range(len(metrics))]
        for ax, metric in zip(panels, metrics, strict=True):
            for look, (name, lines) in zip(looks(len(logs)), logs.items(), strict=True):
                points = np.array([(line["iteration"], line[metric]) for line in lines if metric in line])
                if len(points):
                    x, y = _stretches(points).T
                    single = "o" if len(x) == 1 else None
                    ax.plot(x, y, color=look.colour, linewidth=1.1, marker=single, markersize=3, label=name)
            ax.set_title(metric, loc="left", fontsize=8)
            ax.tick_params(labelsize=7)
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(4))
        made.supxlabel("iteration", fontsize=8)
        if named and panels:
            handles = {str(line.get_label()): line for ax in panels for line in ax.get_lines()}
            made.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=3, fontsize=8)
    return made


def _stretches(points: Values) -> Values:
    """Points `(n, 2)` in order, or the means of `POINTS` neighbouring groups where there are more."""
    if len(points) <= POINTS:
        return points
    return np.array([group.mean(0) for group in np.array_split(points, POINTS)])


class Look(NamedTuple):
    """How one of several curves is told from the others, without colour too."""

    colour: str
    marker: str
    dashes: Any


def looks(n: int) -> list[Look]:
    """A look for each of n curves."""
    return [Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)]) for i in range(n)]


def _house() -> Any:
    """The house style, in the text colours that `render` may have chosen."""
    chosen = {name: mpl.rcParams[name] for name in DARK} if mpl.rcParams["text.color"] == DARK["text.color"] else {}
    return STYLE | chosen


def _canvas(entries: int) -> tuple[Figure, Axes]:
    """An empty figure, wide enough for a legend of so many entries."""
    made = Figure(figsize=(5.2 if entries <= INSIDE else 6.6, 3.6), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.add_subplot()


def _finish(made: Figure, ax: Axes, curves: Sequence[AdaptationCurve], entries: int) -> None:
    ax.set_title(problem(curves), loc="left")
    if entries <= INSIDE:
        ax.legend(loc="best")
    else:
        made.legend(*ax.get_legend_handles_labels(), loc="outside right center")


def _draw_against(curves: Sequence[AdaptationCurve], axis: str) -> Figure:
    """Mean and interval of each curve against what it consumed; of few tasks, one by one too."""
    names, references = labels(curves), _references(curves)
    entries = len(curves) + len(references)
    if not curves[0].few_tasks:
        made, ax = _canvas(entries)
        _draw_panel(ax, curves, names, axis, references)
        _finish(made, ax, curves, entries)
        return made
    panels = [("mean of the tasks", curves, references)]
    panels += [(task, [curve.of_task(d) for curve in curves], {}) for d, task in enumerate(curves[0].task_names)]
    columns = min(ACROSS, len(panels))
    rows = -(-len(panels) // columns)
    made = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.9), layout="constrained")
    FigureCanvasAgg(made)
    shared: Axes | None = None
    for i, (title, drawn, levels) in enumerate(panels):
        ax = made.add_subplot(rows, columns, i + 1, sharey=shared)
        shared = shared or ax
        _draw_panel(ax, drawn, names, axis, levels)
        ax.set_title(title, loc="left", parse_math=False)
        ax.tick_params(axis="x", labelsize=7)
        if i % columns:
            ax.set_ylabel("")
    made.suptitle(problem(curves), x=0.01, ha="left", fontsize=9)
    handles, texts = made.axes[0].get_legend_handles_labels()
    made.legend(handles, texts, loc="outside lower left", ncols=min(4, entries))
    return made


def _draw_panel(
    ax: Axes, curves: Sequence[AdaptationCurve], names: Sequence[str], axis: str, references: Mapping[str, float]
) -> None:
    for curve, label, look in zip(curves, names, looks(len(curves)), strict=True):
        _draw(ax, curve, label, axis, look)
    for name, value in references.items():
        _level(ax, value, color=GREY, linewidth=1.2, linestyle=REFERENCE_DASHES[name], label=name, zorder=1.5)
    ax.set_xlabel(UNITS.get(axis, "k, bits of adaptation"))
    ax.set_ylabel(SCORE[curves[0].score])
    if curves[0].score == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    positions = sorted({x for curve in curves if curve.adapts or axis == "k" for x in curve.along(axis)})
    ends = [curve.along(axis)[-1] for curve in curves if curve.adapts]
    if axis == "env_steps" and ends and max(ends) > APART * min(ends):
        first = min(x for x in positions if x > 0)
        ax.set_xscale("symlog", linthresh=first, linscale=0.5)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_xlim(left=-0.1 * first)
        ax.set_xlabel(f"{UNITS[axis]} (logarithmic from {first:,})")
    elif len(positions) <= 8 and axis != "env_steps":
        ax.set_xticks(positions)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.xaxis.set_major_formatter("{x:,.0f}")


def _draw(ax: Axes, curve: AdaptationCurve, label: str, axis: str, look: Look) -> None:
    mean, low, high = curve.interval.value, curve.interval.low, curve.interval.high
    label = _with_share(label, curve)
    if not curve.adapts and axis != "k":
        name = f"{label} (does not adapt)" if curve.steps else label
        _level(ax, float(mean.mean()), color=look.colour, linewidth=1.4, linestyle="-.", label=name)
        return
    x = np.asarray(curve.along(axis))
    ax.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)
    ax.plot(x, mean, color=look.colour, marker=look.marker, markersize=4.5, linewidth=1.6, label=label)


def _with_share(label: str, curve: AdaptationCurve) -> str:
    """A label that says which share of the scores a mean leaves out, at the worst of its points."""
    worst = float(curve.diverged.max())
    return f"{label} (without {100 * worst:.3g} % diverged)" if worst else label


def _level(ax: Axes, value: float, **style: Any) -> None:
    """A level line that keeps the margin to the frame."""
    ax.axhline(value, **style)
    ax.update_datalim([(0.0, value)], updatex=False)
    ax.autoscale_view(scalex=False)


def _draw_last(curves: Sequence[AdaptationCurve]) -> Figure:
    """The last score of each curve with its interval, a row each, the best on top; few tasks in rows below."""
    number = formatter(curves[0])
    shown: list[tuple[str, AdaptationCurve, Look, bool]] = []
    sign = -1 if curves[0].higher_is_better else 1
    best_first = sorted(
        zip(curves, labels(curves), looks(len(curves)), strict=True),
        key=lambda agent: (float(agent[0].diverged[-1]), sign * float(agent[0].mean[-1])),
    )
    for curve, name, look in best_first:
        shown.append((_with_share(name, curve), curve, look, True))
        if curve.few_tasks:
            parts = [(f"{task}", curve.of_task(d)) for d, task in enumerate(curve.task_names)]
            shown += [(_with_share(task, part), part, look, False) for task, part in parts]
    last = np.array([[float(part[-1]) for part in dataclasses.astuple(curve.interval)] for _, curve, _, _ in shown])
    made = Figure(figsize=(5.8, 1.15 + 0.34 * len(shown)), layout="constrained")
    FigureCanvasAgg(made)
    ax = made.add_subplot()
    for row, (name, _, look, whole) in enumerate(shown):
        mean, low, high = last[row]
        ax.plot([low, high], [row, row], color=look.colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        ax.plot(
            [mean], [row], color=look.colour, marker="o" if whole else ".", markersize=6, linestyle="none", label=name
        )
        beside = number(mean) if low != low else f"{number(mean)} [{number(low)}, {number(high)}]"
        ax.annotate(beside, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    reach = last[np.isfinite(last)]
    span = max(float(np.ptp(reach)), 1e-12) if reach.size else 0.0
    for name, value in _references(curves).items():
        if not reach.min(initial=np.inf) - span <= value <= reach.max(initial=-np.inf) + span:
            continue  # chance far below would leave the agents one dot
        ax.axvline(value, color=GREY, linewidth=1.2, linestyle=REFERENCE_DASHES[name], zorder=1.5)
        ax.annotate(name, (value, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    ax.set_yticks(range(len(shown)), [name for name, _, _, _ in shown], parse_math=False)
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
    made.suptitle(problem(curves), x=0.01, ha="left", fontsize=9)
    return made


def _references(curves: Sequence[AdaptationCurve]) -> dict[str, float]:
    """Lines to draw: the common references, where no curve of that name is drawn."""
    drawn = {curve.agent for curve in curves}
    known = {"oracle": curves[0].oracle, "random": curves[0].random}
    return {name: value for name, value in known.items() if value is not None and name not in drawn}
