"""Pieces of HTML; the text in them is escaped, whatever file or user it comes from."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from metarl.reporting.figures.style import render
from metarl.reporting.table import escaped

SCALE = 1.6  # pixels of the page a point of a figure


@dataclass(frozen=True)
class Section:
    """A part of the page; one without a body is left out."""

    title: str
    body: str


def names(names: Sequence[str]) -> str:
    """Names as code, with commas between them."""
    return ", ".join(f"<code>{escaped(name)}</code>" for name in names)


def paragraph(text: str, kind: str) -> str:
    """A paragraph of a class."""
    return f'<p class="{kind}">{escaped(text)}</p>'


def items(texts: Sequence[str], kind: str) -> str:
    """A list of a class; nothing where it is empty."""
    each = "".join(f"<li>{escaped(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{each}</ul>' if each else ""


def figure(draw: Callable[[], Figure], alternative: str, caption: str) -> str:
    """A figure as SVG in an `<img>`, drawn for light and for dark pages."""
    light, dark = (render(draw, "svg", dark=dark) for dark in (False, True))
    inlined = [f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}" for picture in (light, dark)]
    size = re.search(rb'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', light)
    width, height = (round(SCALE * float(points)) for points in size.groups()) if size else (0, 0)
    below = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{inlined[1]}">'
        f'<img src="{inlined[0]}" width="{width}" height="{height}" alt="{escaped(alternative)}"></picture>'
        f"{below}</figure>"
    )


def details(title: str, body: str) -> str:
    """What is folded behind its title."""
    return f"<details><summary>{escaped(title)}</summary>{body}</details>"


def definitions(facts: Mapping[str, str]) -> str:
    """Names with what they are, side by side."""
    pairs = (f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(pairs)}</dl>"
