"""Test beside ood: what the same agents reach on several splits of one family or data set."""

from __future__ import annotations

import json
from collections.abc import Sequence

from metarl.evaluation.comparison import Comparison
from metarl.evaluation.statistics import Interval
from metarl.reporting.page.markup import Section
from metarl.reporting.table import Table
from metarl.reporting.wording import HEADINGS, NONE, formatter, setting, with_ends


def split_sections(comparisons: Sequence[Comparison]) -> list[Section]:
    """A table for each setting that was measured on more than one split: a row an agent, a column a split."""
    settings: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        first = comparison.curves[0]
        of = [first.family, first.preset, dict(first.options), first.score]
        settings.setdefault(json.dumps(of, sort_keys=True), []).append(comparison)
    return [_section(group) for group in settings.values() if len({one.curves[0].split for one in group}) > 1]


def _section(group: Sequence[Comparison]) -> Section:
    first = group[0].curves[0]
    number, names = formatter(first), dict.fromkeys(label for one in group for label in one.labels)
    reached = [{entry.label: with_ends(number, _last(entry.curve.interval)) for entry in one.entries} for one in group]
    head = [f"{one.curves[0].split} ({one.curves[0].tasks:,} tasks)" for one in group]
    rows = tuple((name, *(column.get(name, NONE) for column in reached)) for name in names)
    what = f"Last {HEADINGS[first.score]}, with 95 % intervals. The splits are other tasks: their scores have no pairs."
    table = Table(("agent", *head), rows, notes=(what,))
    splits = dict.fromkeys(one.curves[0].split for one in group)
    return Section(f"{setting(first)}: {' beside '.join(splits)}", table.html())


def _last(interval: Interval) -> Interval:
    return Interval(interval.value[-1], interval.low[-1], interval.high[-1])
