"""Tables of curves and comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from metarl.evaluation.axes import PULLS
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.curve import UNITS, AdaptationCurve
from metarl.reporting.notes import TENTHS, cautions, explanations, left_out, references, regret_note
from metarl.reporting.table import Table
from metarl.reporting.wording import (
    HEADINGS,
    NO_ENDS,
    NONE,
    ends,
    formatter,
    mean_with,
    p_value,
    percent,
    problem,
    ratio,
    setting,
    with_ends,
)


def evaluation_table(curve: AdaptationCurve) -> Table:
    """A row a bit of adaptation, of one curve."""
    table = _scores([curve], [curve.agent])
    return Table(
        head=table.head[1:],
        rows=tuple(row[1:] for row in table.rows),
        title=f"{curve.agent}\n{problem([curve])}",
        notes=(curve.protocol, *references([curve]), *regret_note(curve), *cautions([curve])),
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
    return Table(("task" if alone else "agent and task", *head[1:]), tuple(rows), "Each task alone", keys=table.keys)


def score_table(comparison: Comparison) -> Table:
    """A row an agent and bit of adaptation."""
    table = _scores(comparison.curves, comparison.labels)
    notes = (*references(comparison.curves), *left_out(comparison.curves))
    return Table(table.head, table.rows, "Score after each bit of adaptation", notes, keys=table.keys)


def protocol_table(comparison: Comparison) -> Table:
    """How each agent spent its budget and was judged: step sizes, episodes, batch-norm mode."""
    rows = tuple((entry.label, entry.curve.protocol) for entry in comparison.entries)
    return Table(("agent", "how it adapts and is judged"), rows, "Protocol", numbers=False)


def summary_table(comparison: Comparison) -> Table:
    """A row an agent: what it reached in the end, and how that differs from the agent compared to."""
    curves, against = comparison.curves, comparison.labels[comparison.against]
    number = formatter(curves[0])
    normalised = curves[0].normalised is not None
    shared = comparison.axis in UNITS  # else the areas are over different axes, and not comparable
    tail = curves[0].tasks >= TENTHS
    pulls = comparison.axis == PULLS
    failed = any(curve.diverged[-1] for curve in curves)
    head = ["agent", "seeds", HEADINGS[curves[0].score], *["diverged"] * failed, "IQM"]
    head += [*["worst tenth"] * tail, *["regret"] * pulls, *["area"] * shared, *["normalised"] * normalised]
    alone = len(curves) == 1
    tested = any(math.isfinite(entry.p) for entry in comparison.entries)
    if not alone:
        head += [f"better than {against} by", *["p"] * tested, "P(better)"]
    if comparison.reach is not None:
        head.append(f"reaches {number(comparison.reach)} after")
    rows = []
    for i, entry in enumerate(comparison.entries):
        curve, reference = entry.curve, i == comparison.against
        marked, anywhere = mean_with(number, curve.diverged[-1]), mean_with(number, curve.diverged.max())
        row = [entry.label, str(len(curve.seeds)) if curve.trained else NONE, marked(curve.mean[-1])]
        row += [percent(curve.diverged[-1])] * failed
        row += [with_ends(number, entry.middle), *[with_ends(number, entry.worst)] * tail]
        row += [f"{entry.pulls.regret.sum():.2f}"] if pulls and entry.pulls is not None else []
        row += [anywhere(float(entry.area.value))] * shared
        if normalised and curve.normalised is not None:
            row.append(mean_with(ratio, curve.diverged[-1])(curve.normalised[-1]))
        if reference:
            row += [NONE] * (2 + tested) * (not alone)
        else:
            row += [with_ends(number, entry.difference), *[p_value(entry.p)] * tested]
            row.append(f"{float(entry.improvement.value):.2f}")
        if comparison.reach is not None:
            row.append(_reached(comparison, entry.curve, entry.reached))
        rows.append(tuple(row))
    return Table(tuple(head), tuple(rows), problem(curves), tuple(explanations(comparison)))


def split_table(comparisons: Sequence[Comparison]) -> Table:
    """A row an agent: its last score on each split, beside each other, and normalised where that is known."""
    first = comparisons[0].curves[0]
    number = formatter(first)
    heads = [f"{each.curves[0].split} ({each.curves[0].tasks:,} tasks)" for each in comparisons]
    normalised = any(curve.normalised is not None for each in comparisons for curve in each.curves)
    rows = []
    for label in dict.fromkeys(label for each in comparisons for label in each.labels):
        curves = [dict(zip(each.labels, each.curves, strict=True)).get(label) for each in comparisons]
        scores = [NONE if curve is None else _last_score(number, curve) for curve in curves]
        scales = [NONE if curve is None else _last_scale(curve) for curve in curves]
        rows.append((label, *scores, *scales * normalised))
    head = ("agent", *heads, *[f"normalised, {each.curves[0].split}" for each in comparisons] * normalised)
    what = f"Last {HEADINGS[first.score]}, with 95 % intervals. The splits are other tasks: their scores have no pairs."
    notes = (what, *left_out([curve for each in comparisons for curve in each.curves]))
    return Table(head, tuple(rows), f"{setting(first)}\nSplits beside each other", notes)


def _last_score(number: Callable[[float], str], curve: AdaptationCurve) -> str:
    return f"{mean_with(number, curve.diverged[-1])(curve.mean[-1])} {ends(number, curve.interval, -1)}"


def _last_scale(curve: AdaptationCurve) -> str:
    scale = curve.normalised
    return NONE if scale is None else mean_with(ratio, curve.diverged[-1])(scale[-1])


def _scores(curves: Sequence[AdaptationCurve], names: Sequence[str]) -> Table:
    number = formatter(curves[0])
    counted = [name for name in UNITS if any(curve.adapts and getattr(curve, name) for curve in curves)]
    if all(curve.gradient_steps in (None, tuple(range(curve.steps + 1))) for curve in curves):
        counted = [name for name in counted if name != "gradient_steps"]  # the same as k
    normalised = any(curve.normalised is not None for curve in curves)
    failed = any(curve.diverged.any() for curve in curves)
    gains = any(curve.adapts for curve in curves)
    head = ["agent", *["k"] * gains, *(name.replace("_", " ") for name in counted), HEADINGS[curves[0].score]]
    head += [*["diverged"] * failed, "95 % interval", *["gain", "95 % interval"] * gains, *["normalised"] * normalised]
    rows = []
    for curve, name in zip(curves, names, strict=True):
        for k, share in enumerate(curve.diverged):
            if not curve.adapts and k < curve.steps:
                continue  # it stays what it is: K + 1 measurements of one number are no curve
            consumed = [f"{axis[k]:,}" if curve.adapts and (axis := getattr(curve, unit)) else "" for unit in counted]
            row = [name, *[str(k) if curve.adapts else ""] * gains, *consumed]
            row += [
                mean_with(number, share)(curve.mean[k]),
                *[percent(share)] * failed,
                ends(number, curve.interval, k),
            ]
            if k and curve.adapts:
                either = max(share, curve.diverged[0])
                row += [mean_with(number, either)(curve.gain.value[k]), ends(number, curve.gain, k)]
            else:
                row += ["", ""] * gains
            if normalised:
                marked = mean_with(ratio, share)
                row.append("" if curve.normalised is None else marked(curve.normalised[k]))
            rows.append(tuple(row))
    return Table(tuple(head), tuple(rows), keys=1 + gains)


def _reached(comparison: Comparison, curve: AdaptationCurve, k: int | None) -> str:
    if k is None:
        return "never"
    if not curve.adapts:
        return "at once"
    axis = comparison.axis if comparison.axis in UNITS else curve.axis
    what = axis.replace("_", " ")
    count = curve.along(axis)[k]
    return f"{count:,} {what.removesuffix('s') if count == 1 else what}"
