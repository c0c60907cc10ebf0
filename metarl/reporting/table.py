"""A table: made once as text, shown on a terminal, in Markdown or in HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        head: the columns' names.
        rows: as many cells each; a first cell that repeats the one above is left blank when shown.
        title: lines above.
        notes: lines below.
        numbers: whether every column but the first is set flush right.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    numbers: bool = True

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"every row needs {len(self.head)} cells")

    def rich(self) -> RichTable:
        """For a terminal."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            box=box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
            show_edge=False,
            title=Text(self.title) if self.title else None,
            caption=Text("\n".join(self.notes)) if self.notes else None,
            title_style="",
            caption_style="dim",
            title_justify="left",
            caption_justify="left",
        )
        for i, column in enumerate(self.head):
            whole = i == 0 or (self.numbers and not any(" " in row[i] for row in self.rows))
            flush: Literal["left", "right"] = "right" if self.numbers and i else "left"
            table.add_column(Text(column), justify=flush, overflow="fold", no_wrap=whole)
        for row in self._without_repeats():
            table.add_row(*(Text(cell.replace(" [", "\n[")) for cell in row))
        return table

    def markdown(self) -> str:
        """For a README: title and notes as paragraphs, the table between them."""

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

        rule = ["---", *(["---:" if self.numbers else "---"] * (len(self.head) - 1))]
        parts = [[*self.title.splitlines()], [line(self.head), line(rule), *map(line, self._without_repeats())]]
        parts += [[note] for note in self.notes]
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    def html(self) -> str:
        """A `<table>` with a caption; the notes follow as paragraphs of class `note`."""
        flush = ' class="number"' if self.numbers else ""
        head = "".join(f'<th scope="col"{flush if i else ""}>{html.escape(c)}</th>' for i, c in enumerate(self.head))
        rows = []
        for row in self._without_repeats():
            cells = [f'<th scope="row">{html.escape(row[0])}</th>']
            cells += [f"<td{flush}>{html.escape(cell)}</td>" for cell in row[1:]]
            rows.append(f"<tr{'' if row[0] else ' class=more'}>{''.join(cells)}</tr>")
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in self.notes)
        return (
            f'<div class="scroll" tabindex="0"><table>{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>{notes}"
        )

    def _without_repeats(self) -> list[tuple[str, ...]]:
        above = [None, *(row[0] for row in self.rows)]
        return [("", *row[1:]) if row[0] == first else row for row, first in zip(self.rows, above, strict=False)]
