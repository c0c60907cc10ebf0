from __future__ import annotations

import html
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from metarl.reporting.table import LABEL, Table, clean

ODD = ["<b>x</b>", "[red]x[/]", "a|b\\|c", "$\\frac{", "two\nlines", "x" * 200, "名前" * 30, "\x1b[31m", ""]
NAMES = st.one_of(st.text(max_size=200), st.sampled_from(ODD))
NUMBER = st.sampled_from(["", "–", "-3.55", "12,345", "-2.97 [-3.07, -2.87]", "< 0.001", "diverged"])


@st.composite
def tables(draw: st.DrawFn) -> Table:
    head = draw(st.lists(NAMES, min_size=1, max_size=9))
    rows = draw(st.lists(st.tuples(NAMES, *[NUMBER] * (len(head) - 1)), max_size=4))
    return Table(tuple(head), tuple(rows), draw(NAMES), (draw(NAMES),), keys=draw(st.integers(1, min(2, len(head)))))


def screen(table: Table, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(table.rich())
    return out.getvalue().splitlines()


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(80, 200))
def test_no_line_is_wider_than_the_terminal_and_no_number_is_broken(table: Table, width: int) -> None:
    lines = screen(table, width)
    assert max(map(cell_len, lines), default=0) <= width
    text = "\n".join(lines)
    for row in table.rows:
        for cell in row[1:]:
            assert all(part in text for part in cell.replace(" [", "\n[").split("\n")), cell


@settings(max_examples=60, deadline=None)
@given(tables())
def test_nothing_in_a_cell_ends_a_row_or_is_markup(table: Table) -> None:
    lines = table.markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) >= 2 + len(table.rows)
    for row in rows[-2 - len(table.rows) :] if not table.title.startswith("|") and not table.notes[0] else []:
        inner = re.sub(r"\\[\\|]", "", row)  # what is escaped
        assert inner.count("|") == len(table.head) + 1
    page = table.html()
    tags = {tag.split(" ")[0] for tag in re.findall(r"</?([^>]*)>", page)}
    assert tags <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    for cell in table.head:
        assert html.escape(cell) in page


@given(st.text(max_size=200))
def test_a_cell_is_one_printable_line(name: str) -> None:
    cell = Table((name,), ()).head[0]
    assert cell == clean(cell)
    assert cell.isprintable()
    assert "".join(cell.split()) == "".join(letter for letter in name if letter.isprintable() and not letter.isspace())


def test_what_does_not_fit_goes_on_below_with_its_keys() -> None:
    rows = (("maml", "0", *["1.00 [0.00, 2.00]"] * 6), ("maml", "1", *["9.0"] * 6))
    table = Table(("agent", "k", *"abcdef"), rows, keys=2)
    lines = screen(table, 44)
    heads = [line.split() for line in lines if line.startswith("agent")]
    assert heads == [["agent", "k", "a", "b"], ["agent", "k", "c", "d"], ["agent", "k", "e", "f"]]
    assert len(screen(table, 200)) == 5
    assert sum(line.startswith("maml") for line in lines) == 3  # a repeated name is left blank


def test_text_is_wrapped_at_words_and_gets_what_is_left() -> None:
    words = "policy-gradient steps of 0.1, then 0.05; 40 fresh episodes a step"
    table = Table(("agent", "kind", "protocol"), (("maml", "a b", words),), numbers=False)
    assert [line.split() for line in screen(table, 200)][2] == ["maml", "a", "b", *words.split()]
    lines = screen(table, 40)
    assert " ".join(" ".join(line[len("maml  a b   ") :] for line in lines[2:]).split()) == words


def test_a_long_name_is_folded_and_not_cut() -> None:
    name = "x" * 70
    lines = screen(Table(("agent", "n"), ((name, "1.00"),)), 80)
    assert "".join(line[:LABEL].strip() for line in lines[2:]) == name


def test_rows_must_fit_the_head() -> None:
    with pytest.raises(ValueError, match="every row needs 2 cells"):
        Table(("a", "b"), (("1",),))
