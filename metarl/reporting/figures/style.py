"""How every figure looks, and how one becomes a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metarl.errors import UserError

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c564b", "#444444")  # Okabe & Ito
MARKERS = "os^Dv<>P"
DASHES: Any = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
REFERENCE_DASHES: Any = {"oracle": (0, (5, 2)), "random": (0, (1, 1.5))}
GREY = "#777777"  # readable on white and on black
INSIDE = 3  # entries of a legend that still fit into the plot
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


def render(draw: Callable[[], Figure], kind: str, *, dark: bool = False) -> bytes:
    """What `draw` draws as a "png", "svg" or "pdf" file, in the colours of a light or a dark page."""
    dates = {"svg": "Date", "pdf": "CreationDate"}
    metadata = {dates[kind]: None} if kind in dates else None
    picture = io.BytesIO()
    with mpl.rc_context(STYLE | (DARK if dark else {})):
        draw().savefig(picture, format=kind, dpi=200, metadata=metadata, transparent=dark)
    return picture.getvalue()


class Look(NamedTuple):
    """How one of several curves is told from the others, without colour too."""

    colour: str
    marker: str
    dashes: Any


def looks(n: int) -> list[Look]:
    """A look for each of n curves."""
    return [Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)]) for i in range(n)]


def house() -> Any:
    """The house style, in the text colours that `render` may have chosen."""
    chosen = {name: mpl.rcParams[name] for name in DARK} if mpl.rcParams["text.color"] == DARK["text.color"] else {}
    return STYLE | chosen


def canvas(entries: int) -> tuple[Figure, Axes]:
    """An empty figure, wide enough for a legend of so many entries."""
    made = Figure(figsize=(5.2 if entries <= INSIDE else 6.6, 3.6), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.add_subplot()
