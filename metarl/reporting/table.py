"""A table: made once as text, shown on a terminal, in Markdown or in HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from metarl.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table as RichTable

LABEL = 30  # columns of the terminal that a name may take before it is folded
WORD = 20  # columns of the terminal that a word of a heading may take before it is folded
GAP = 2  # columns of the terminal between two of a table


def clean(text: str) -> str:
    """Text on one line, without letters that cannot be printed."""
    return " ".join(printable(text).split())


def escaped(text: str) -> str:
    """Text as HTML shows it: nothing in it is a tag, ends an attribute, or cannot be printed."""
    return html.escape(printable(text))


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        head: the columns' names.
        rows: as many cells each; a first cell that repeats the one above is left blank when shown.
        title: lines above.
        notes: lines below.
        numbers: whether every column but the first is set flush right.
        keys: leading columns that say what a row is of: they are shown again where a table is too wide for one.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    numbers: bool = True
    keys: int = 1

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"every row needs {len(self.head)} cells")
        object.__setattr__(self, "title", "\n".join(map(clean, self.title.splitlines())))
        object.__setattr__(self, "head", tuple(map(clean, self.head)))
        object.__setattr__(self, "rows", tuple(tuple(map(clean, row)) for row in self.rows))
        object.__setattr__(self, "notes", tuple(map(clean, self.notes)))

    def rich(self) -> Fitted:
        """For a terminal, however wide it is."""
        return Fitted(self)

    def markdown(self) -> str:
        """For a README: title and notes as paragraphs, the table between them."""

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(map(_escaped, cells))} |"

        rule = ["---", *(["---:" if self.numbers else "---"] * (len(self.head) - 1))]
        parts = [[*self.title.splitlines()], [line(self.head), line(rule), *map(line, self.without_repeats())]]
        parts += [[note] for note in self.notes]
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    def html(self) -> str:
        """A `<table>` with a caption; the notes follow as paragraphs of class `note`."""
        flush = ' class="number"' if self.numbers else ""
        head = "".join(f'<th scope="col"{flush if i else ""}>{escaped(c)}</th>' for i, c in enumerate(self.head))
        rows = []
        for row in self.without_repeats():
            cells = [f'<th scope="row">{escaped(row[0])}</th>']
            cells += [f"<td{flush}>{escaped(cell)}</td>" for cell in row[1:]]
            rows.append(f"<tr{'' if row[0] else ' class=more'}>{''.join(cells)}</tr>")
        caption = f"<caption>{escaped(self.title)}</caption>" if self.title else ""
        notes = "".join(f'<p class="note">{escaped(note)}</p>' for note in self.notes)
        return (
            f'<div class="scroll" tabindex="0"><table>{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>{notes}"
        )

    def without_repeats(self) -> list[tuple[str, ...]]:
        """The rows, a first cell that repeats the one above left blank."""
        above = [None, *(row[0] for row in self.rows)]
        return [("", *row[1:]) if row[0] == first else row for row, first in zip(self.rows, above, strict=False)]


def _escaped(cell: str) -> str:
    """A cell of Markdown: no bar in it ends it, and nothing in it is HTML."""
    barred = re.sub(r"(\\*)\|", lambda bar: f"{bar[1] * 2}\\|", cell)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", barred)


@dataclass(frozen=True)
class Fitted:
    """A table on a terminal; what is too wide goes on below, with the columns that say what its rows are of."""

    table: Table

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        """What rich shows within the width that it has."""
        from rich.text import Text

        if self.table.title:
            yield Text(self.table.title)
        for i, columns in enumerate(self._blocks(options.max_width)):
            if i:
                yield Text("")
            yield self._block(columns, options.max_width)
        if self.table.notes:
            yield Text("\n".join(self.table.notes), style="dim")

    def _blocks(self, width: int) -> list[list[int]]:
        """The columns shown at once, as many as fit beside the keys."""
        keys = list(range(self.table.keys))
        beside = width - sum(self._width(i) + GAP for i in keys)
        blocks, free = [list(keys)], beside
        for i in range(self.table.keys, len(self.table.head)):
            if self._width(i) > free and len(blocks[-1]) > len(keys):
                blocks.append(list(keys))
                free = beside
            blocks[-1].append(i)
            free -= self._width(i) + GAP
        return blocks

    def _width(self, i: int) -> int:
        """What a column needs: names and text the longest word, numbers the longest line; the head its longest word."""
        from rich.cells import cell_len

        cells = [line for row in self.table.rows for line in _lines(row[i])]
        words = [word for cell in cells for word in cell.split(" ")]
        if i == 0:
            return min(LABEL, max(map(cell_len, [self.table.head[0], *cells])))
        head = min(WORD, max(map(cell_len, self.table.head[i].split(" "))))
        shown = map(cell_len, cells if self.table.numbers else words)
        return max(1, head, *(length for length in shown if self.table.numbers or length <= LABEL))

    def _widths(self, columns: Sequence[int], width: int) -> list[int]:
        """What each of the columns gets: its need, and columns of text what is left, the shortest first."""
        from rich.cells import cell_len

        widths = [min(self._width(i), width) for i in columns]
        free = max(0, width - sum(widths) - GAP * (len(columns) - 1))
        texts = [] if self.table.numbers else list(range(self.table.keys, len(columns)))
        wish = {j: max(cell_len(row[columns[j]]) for row in (self.table.head, *self.table.rows)) for j in texts}
        for rank, j in enumerate(sorted(texts, key=lambda j: wish[j])):
            more = min(max(0, wish[j] - widths[j]), free // (len(texts) - rank))
            widths[j] += more
            free -= more
        return widths

    def _block(self, columns: Sequence[int], width: int) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False)
        for i, wide in zip(columns, self._widths(columns, width), strict=True):
            flush: Literal["left", "right"] = "right" if self.table.numbers and i else "left"
            table.add_column(Text(self.table.head[i]), justify=flush, overflow="fold", width=wide)
        for row in self.table.without_repeats():
            table.add_row(*(Text("\n".join(_lines(row[i]))) for i in columns))
        return table


def _lines(cell: str) -> list[str]:
    """An interval stands below its number."""
    return cell.replace(" [", "\n[").splitlines() or [""]
