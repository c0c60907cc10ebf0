"""How every figure looks, and how one becomes a file."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from metarl.errors import UserError

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c564b", "#444444")  # Okabe & Ito
ON_DARK = {"#0072b2": "#7b93ff", "#8c564b": "#c49c94", "#444444": "#c7c7c7"}  # too dark there
MARKERS = "os^Dv<>P"
DASHES: Any = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
REFERENCE_DASHES: Any = {"oracle": (0, (5, 2)), "random": (0, (1, 1.5))}
GREY = "#777777"  # readable on white and on black
NO_GLYPH = re.compile(r"Glyph (\d+) .*missing from")  # what matplotlib says of a letter that its font lacks
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
    "text.parse_math": False,  # names are the user's: a dollar is a dollar
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
    """What `draw` draws as a "png", "svg" or "pdf" file, in the colours of a light or a dark page.

    Letters that the font lacks become boxes, which one warning says; an SVG leaves letters to whoever shows it.
    """
    dates = {"svg": "Date", "pdf": "CreationDate"}
    metadata = {dates[kind]: None} if kind in dates else None
    picture = io.BytesIO()
    with warnings.catch_warnings(record=True) as raised, mpl.rc_context(STYLE | (DARK if dark else {})):
        warnings.simplefilter("always")
        draw().savefig(
            picture, format=kind, dpi=200, metadata=metadata, transparent=dark, bbox_inches="tight", pad_inches=0.08
        )
    unknown: dict[str, None] = {}  # letters, in the order in which they were met
    for each in raised:
        if lacking := NO_GLYPH.match(str(each.message)):
            unknown[chr(int(lacking[1]))] = None
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if unknown and kind != "svg":
        warnings.warn(
            f"the picture's font lacks {''.join(unknown)}: there are boxes instead; an .svg shows them", stacklevel=2
        )
    return picture.getvalue()


class Look(NamedTuple):
    """How one of several curves is told from the others, without colour too."""

    colour: str
    marker: str
    dashes: Any


def looks(n: int) -> list[Look]:
    """A look for each of n curves, on the page that `render` draws for."""
    colours = [ON_DARK.get(colour, colour) for colour in COLOURS] if _is_dark() else COLOURS
    return [Look(colours[i % len(colours)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)]) for i in range(n)]


def _is_dark() -> bool:
    return bool(mpl.rcParams["text.color"] == DARK["text.color"])


def house() -> Any:
    """The house style, in the text colours that `render` may have chosen."""
    chosen = {name: mpl.rcParams[name] for name in DARK} if _is_dark() else {}
    return STYLE | chosen
