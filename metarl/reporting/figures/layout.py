"""Room for every word: names made readable, and figures that grow with their legends and titles.

Nothing a user names may be cut off or break a picture: names are drawn as they are, on as many lines as they need.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from metarl.reporting.table import clean

LINE = 30  # letters of a name on one line
SHORTEST = 6  # letters of a line that is not broken further
LONGEST = 90  # letters of a name that are drawn; of longer ones the middle is left out
LONGEST_LINE = 600  # letters of a title that are drawn, in the same way
FEW = 3  # entries of a legend that stand below a plot, where more stand beside it
MARGIN = 0.12  # inches


def readable(names: Sequence[str], line: int = LINE) -> list[str]:
    """Names as they are drawn: on lines of at most `line` letters, and as distinct as they were."""
    short = [_shortened(clean(name)) for name in names]
    ranks = [f" #{1 + short[:i].count(name)}" if short.count(name) > 1 else "" for i, name in enumerate(short)]
    return [_wrapped(name + rank, line) for name, rank in zip(short, ranks, strict=True)]


def _shortened(name: str, most: int = LONGEST) -> str:
    if len(name) <= most:
        return name or "–"
    return f"{name[: most * 2 // 3]}…{name[-most // 3 + 1 :]}"


def _wrapped(text: str, line: int) -> str:
    return "\n".join(textwrap.wrap(text, line, break_on_hyphens=False))


def fit(figure: Figure, text: Text, bound: float) -> float:
    """Break a text into lines of at most so many inches; the height of them all."""
    parts = [_shortened(clean(part), LONGEST_LINE) for part in text.get_text().splitlines()]
    text.set_text("\n".join(parts))
    width, height = _length_and_height(figure, text)
    line = max(map(len, parts), default=0)
    while width > bound and line > SHORTEST:
        line = max(SHORTEST, min(line - 1, int(line * bound / width)))
        text.set_text("\n".join(_wrapped(part, line) for part in parts))
        width, height = _length_and_height(figure, text)
    return height


def _length_and_height(figure: Figure, text: Text) -> tuple[float, float]:
    """The inches of a text along its lines, and across them."""
    width, height = inches(figure, text)
    return (height, width) if text.get_rotation() == 90 else (width, height)


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches, legend and title not counted."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def inches(figure: Figure, artist: Artist) -> tuple[float, float]:
    """Width and height of what an artist draws."""
    canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
    extent = artist.get_window_extent(canvas.get_renderer())  # type: ignore[no-untyped-call]  # matplotlib's
    return extent.width / figure.dpi, extent.height / figure.dpi


def grow(figure: Figure, width: float = 0.0, height: float = 0.0) -> None:
    """Make a figure larger by so many inches."""
    before = figure.get_size_inches()
    figure.set_size_inches(before[0] + width, before[1] + height)


def legend_beside(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend right of the plots."""
    legend = figure.legend(handles, list(names), loc="outside right center")
    width, height = inches(figure, legend)
    grow(figure, width + MARGIN, max(0.0, height + 3 * MARGIN - figure.get_size_inches()[1]))


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend below the plots, in as many columns as fit."""
    for columns in range(min(len(names), 6), 0, -1):
        legend = figure.legend(handles, list(names), loc="outside lower left", ncols=columns)
        width, height = inches(figure, legend)
        if width <= figure.get_size_inches()[0] or columns == 1:
            break
        legend.remove()
    grow(figure, max(0.0, width + MARGIN - figure.get_size_inches()[0]), height + MARGIN)


def add_title(figure: Figure, text: str) -> None:
    """A title flush left, on as many lines as it needs; the last thing to add, for the figure's width is its bound."""
    title = figure.suptitle(text, x=MARGIN / figure.get_size_inches()[0], ha="left", fontsize=9)
    height = fit(figure, title, figure.get_size_inches()[0] - 2 * MARGIN)
    grow(figure, height=height + MARGIN)
