"""Test beside ood: what the same agents reach on several splits of one family or data set."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from metarl.evaluation.comparison import Comparison
from metarl.reporting.figures.splits import splits_figure
from metarl.reporting.page.markup import Section, figure
from metarl.reporting.tables import split_table
from metarl.reporting.wording import setting


def split_sections(comparisons: Sequence[Comparison]) -> list[Section]:
    """A figure and a table for each setting that was measured on more than one split."""
    settings: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        first = comparison.curves[0]
        of = [first.family, first.preset, dict(first.options), first.score]
        settings.setdefault(json.dumps(of, sort_keys=True), []).append(comparison)
    return [_section(group) for group in settings.values() if len({one.curves[0].split for one in group}) > 1]


def _section(group: Sequence[Comparison]) -> Section:
    first, table = group[0].curves[0], split_table(group)
    splits = dict.fromkeys(one.curves[0].split for one in group)
    words = f"The same agents on {' and '.join(splits)} tasks; the numbers are in the table below."
    body = figure(lambda: splits_figure(group), words, "") + dataclasses.replace(table, title="").html()
    return Section(f"{setting(first)}: {' beside '.join(splits)}", body)
