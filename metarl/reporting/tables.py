"""Tables of curves and comparisons: made once as text, shown on a terminal, in Markdown or in HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from metarl.evaluation.comparison import FINAL, Comparison
from metarl.evaluation.curve import UNITS, AdaptationCurve
from metarl.evaluation.statistics import FEW_SEEDS, Interval, least_p

if TYPE_CHECKING:
    from rich.table import Table as RichTable

HEADINGS = {"return": "return", "accuracy": "accuracy, %", "mse": "mean squared error"}
NONE = "–"  # nothing to say here
NO_ENDS = "none"  # of an interval that nothing could be resampled for
DIVERGED = "diverged"  # in place of a number that is none
SIGNIFICANT = 0.05  # what a reader looks for in a p-value
LEFT_OUT = "*"  # marks a mean of the finite scores alone


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


def problem(curves: Sequence[AdaptationCurve]) -> str:
    """The problem, and how many tasks and seeds were measured, on two lines."""
    first = curves[0]
    options = [f"{name}={value}" for name, value in first.options.items()]
    counts = {len(curve.seeds) for curve in curves if curve.trained}
    seeds = str(min(counts, default=1)) if len(counts) < 2 else f"{min(counts)} to {max(counts)}"
    trained = f", {seeds} seed{'s' * (seeds != '1')}" if counts else ""
    tasks = f"{first.tasks:,} {first.split} task{'s' * (first.tasks != 1)}"
    if (rows := first.per_task.shape[1]) > first.tasks:
        tasks += f" in {rows:,} rows"
    reused = "" if first.unseen else " (tasks reused, not unseen)"
    over = " over tasks" if max(counts, default=1) == 1 else ""
    return (
        ", ".join([first.family.removeprefix("metarl/"), *([first.preset] if first.preset else []), *options])
        + f"\n{tasks}{reused}{trained}, mean and 95 % interval{over}"
    )


def evaluation_table(curve: AdaptationCurve) -> Table:
    """A row a bit of adaptation, of one curve."""
    table = _scores([curve], [curve.agent])
    return Table(
        head=table.head[1:],
        rows=tuple(row[1:] for row in table.rows),
        title=f"{curve.agent}\n{problem([curve])}",
        notes=(curve.protocol, *_references([curve]), *_regret(curve), *_cautions([curve])),
    )


def task_table(curves: Sequence[AdaptationCurve], names: Sequence[str]) -> Table | None:
    """A row an agent, task and bit of adaptation, where the tasks are few and known to be distinct; else None."""
    if not curves[0].few_tasks:
        return None
    alone = len(curves) == 1
    parts = [
        (curve.of_task(d), task if alone else f"{name}, {task}")
        for curve, name in zip(curves, names, strict=True)
        for d, task in enumerate(curve.task_names)
    ]
    table = _scores([part for part, _ in parts], [name for _, name in parts])
    told = [i for i in range(len(table.head)) if any(row[i] not in ("", NO_ENDS) for row in table.rows)]
    head, *rows = [tuple(row[i] for i in told) for row in (table.head, *table.rows)]
    return Table(("task" if alone else "agent and task", *head[1:]), tuple(rows), "Each task alone")


def score_table(comparison: Comparison) -> Table:
    """A row an agent and bit of adaptation."""
    table = _scores(comparison.curves, comparison.labels)
    notes = (*_references(comparison.curves), *_left_out(comparison.curves))
    return Table(table.head, table.rows, "Score after each bit of adaptation", notes)


def protocol_table(comparison: Comparison) -> Table:
    """How each agent spent its budget and was judged: step sizes, episodes, batch-norm mode."""
    rows = tuple((entry.label, entry.curve.protocol) for entry in comparison.entries)
    return Table(("agent", "how it adapts and is judged"), rows, "Protocol", numbers=False)


def summary_table(comparison: Comparison) -> Table:
    """A row an agent: what it reached in the end, and how that differs from the agent compared to."""
    curves, against = comparison.curves, comparison.labels[comparison.against]
    number = formatter(curves[0])
    normalised = curves[0].normalised is not None
    shared = comparison.axis != FINAL  # else the areas are over different axes, and not comparable
    failed = any(curve.diverged[-1] for curve in curves)
    head = ["agent", "seeds", HEADINGS[curves[0].score], *["diverged"] * failed, "IQM"]
    head += [*["area"] * shared, *["normalised"] * normalised]
    alone = len(curves) == 1
    tested = any(math.isfinite(entry.p) for entry in comparison.entries)
    if not alone:
        head += [f"better than {against} by", *["p"] * tested, "P(better)"]
    if comparison.reach is not None:
        head.append(f"reaches {number(comparison.reach)} after")
    rows = []
    for i, entry in enumerate(comparison.entries):
        curve, reference = entry.curve, i == comparison.against
        marked, anywhere = _marked(number, curve.diverged[-1]), _marked(number, curve.diverged.max())
        row = [entry.label, str(len(curve.seeds)) if curve.trained else NONE, marked(curve.mean[-1])]
        row += [_share(curve.diverged[-1])] * failed
        row += [_with_ends(number, entry.middle), *[anywhere(float(entry.area.value))] * shared]
        if normalised and curve.normalised is not None:
            row.append(_marked("{:.3f}".format, curve.diverged[-1])(curve.normalised[-1]))
        if reference:
            row += [NONE] * (2 + tested) * (not alone)
        else:
            row += [_with_ends(number, entry.difference), *[_p(entry.p)] * tested]
            row.append(f"{float(entry.improvement.value):.2f}")
        if comparison.reach is not None:
            row.append(_reached(comparison, entry.curve, entry.reached))
        rows.append(tuple(row))
    return Table(tuple(head), tuple(rows), problem(curves), tuple(_explanations(comparison)))


def formatter(curve: AdaptationCurve) -> Callable[[float], str]:
    """How scores of this kind are written: accuracies in per cent; a number that is none as "diverged"."""
    factor, digits = {"return": (1, 2), "accuracy": (100, 2), "mse": (1, 4)}[curve.score]

    def number(value: float) -> str:
        if not math.isfinite(value):
            return DIVERGED
        text = f"{factor * value:.{digits}f}"
        return text.removeprefix("-") if float(text) == 0 else text

    return number


def _scores(curves: Sequence[AdaptationCurve], names: Sequence[str]) -> Table:
    number = formatter(curves[0])
    counted = [name for name in UNITS if any(getattr(curve, name) for curve in curves)]
    if all(curve.gradient_steps in (None, tuple(range(curve.steps + 1))) for curve in curves):
        counted = [name for name in counted if name != "gradient_steps"]  # the same as k
    normalised = any(curve.normalised is not None for curve in curves)
    failed = any(curve.diverged.any() for curve in curves)
    gains = any(curve.adapts for curve in curves)
    head = ["agent", "k", *(name.replace("_", " ") for name in counted), HEADINGS[curves[0].score]]
    head += [*["diverged"] * failed, "95 % interval", *["gain", "95 % interval"] * gains, *["normalised"] * normalised]
    rows = []
    for curve, name in zip(curves, names, strict=True):
        for k, share in enumerate(curve.diverged):
            row = [name, str(k), *(f"{axis[k]:,}" if (axis := getattr(curve, unit)) else "" for unit in counted)]
            row += [_marked(number, share)(curve.mean[k]), *[_share(share)] * failed, _ends(number, curve.interval, k)]
            if k and curve.adapts:
                either = max(share, curve.diverged[0])
                row += [_marked(number, either)(curve.gain.value[k]), _ends(number, curve.gain, k)]
            else:
                row += ["", ""] * gains
            if normalised:
                marked = _marked("{:.3f}".format, share)
                row.append("" if curve.normalised is None else marked(curve.normalised[k]))
            rows.append(tuple(row))
    return Table(tuple(head), tuple(rows))


def _marked(number: Callable[[float], str], share: float) -> Callable[[float], str]:
    """How a mean is written that leaves out a share of the scores."""
    mark = LEFT_OUT if share else ""
    return lambda value: number(value) + mark if math.isfinite(value) else DIVERGED


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"


def _left_out(curves: Sequence[AdaptationCurve]) -> list[str]:
    if not any(curve.diverged.any() for curve in curves):
        return []
    return [
        f"{LEFT_OUT} without the scores that diverged (are not finite), whose share is beside it; by rank "
        "(IQM, profile, P(better)) they are the worst."
    ]


def _cautions(curves: Sequence[AdaptationCurve]) -> list[str]:
    """What keeps the numbers from saying what they seem to."""
    notes = _left_out(curves)
    counts = {curve.agent: len(curve.seeds) for curve in curves if curve.trained and len(curve.seeds) < FEW_SEEDS}
    if one := [agent for agent, seeds in counts.items() if seeds == 1]:
        notes.append(f"One training seed of {', '.join(one)}: its intervals say nothing of another training.")
    if few := [f"{agent} {seeds}" for agent, seeds in counts.items() if seeds > 1]:
        notes.append(
            f"Fewer than {FEW_SEEDS} training seeds ({', '.join(few)}): intervals are too narrow. With 3 they hold the "
            "truth in 80 %, not 95 %, where the luck of a seed is as large as the differences between tasks."
        )
    if any(curve.repeats_unknown for curve in curves):
        notes.append("Measured before repeats of one task were told apart: rows count as tasks. Evaluate again.")
    return notes


def _references(curves: Sequence[AdaptationCurve]) -> list[str]:
    known: Mapping[str, float | None] = {"random": curves[0].random, "oracle": curves[0].oracle}
    number = formatter(curves[0])
    shown = [f"{name} {number(value)}" for name, value in known.items() if value is not None]
    return ["; ".join(shown)] if shown else []


def _regret(curve: AdaptationCurve) -> list[str]:
    """What a bandit's first and last pull and all together cost."""
    if curve.regret is None:
        return []
    first, last, total = curve.regret[0], curve.regret[-1], sum(curve.regret)
    return [f"regret a pull: {first:.3f} at the first, {last:.3f} at the last, {total:.2f} in all"]


def _explanations(comparison: Comparison) -> list[str]:
    first = comparison.curves[0]
    notes = [
        "Last scores; intervals are of a bootstrap over seeds and tasks. IQM: interquartile mean.",
    ]
    if comparison.axis in UNITS:
        notes[0] += f" Area: mean score over the {UNITS[comparison.axis]}, the last score held to the end."
    if len(comparison.entries) > 1:
        tested = sum(math.isfinite(entry.p) for entry in comparison.entries)
        p = ""
        if tested:
            p = "p: of no difference, for new training seeds and new tasks (t over both, and sign flips of tasks)"
            p += f", corrected for {tested} comparisons (Holm). " if tested > 1 else ". "
            if (least := least_p(first.tasks)) > SIGNIFICANT:
                p += f"With {first.tasks} tasks no p can be below {least:.3g}. "
        notes.append(
            f"Differences are paired by task. {p}"
            f"P(better): how often a run {'scores higher' if first.higher_is_better else 'errs less'} on a task."
        )
        reasons = dict.fromkeys(entry.without_p for entry in comparison.entries if entry.without_p is not None)
        notes += [f"No p: {reason}." for reason in reasons]
    return notes + _cautions(comparison.curves) + _references(comparison.curves)


def _reached(comparison: Comparison, curve: AdaptationCurve, k: int | None) -> str:
    if k is None:
        return "never"
    if not curve.adapts:
        return "at once"
    axis = comparison.axis if comparison.axis in UNITS else curve.axis
    what = axis.replace("_", " ")
    count = curve.along(axis)[k]
    return f"{count:,} {what.removesuffix('s') if count == 1 else what}"


def _ends(number: Callable[[float], str], interval: Interval, k: Any = ()) -> str:
    low, high = float(interval.low[k]), float(interval.high[k])
    return NO_ENDS if math.isnan(low) else f"[{number(low)}, {number(high)}]"


def _with_ends(number: Callable[[float], str], interval: Interval) -> str:
    if math.isnan(float(interval.value)):
        return DIVERGED
    return f"{number(float(interval.value))} {_ends(number, interval)}"


def _p(value: float) -> str:
    if value != value:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
