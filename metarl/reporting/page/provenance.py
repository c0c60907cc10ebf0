"""What was run: options, versions, times."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.reporting.page.markup import Section, details
from metarl.reporting.table import Table, escaped
from metarl.reporting.wording import NONE
from metarl.runs.run import Run


def configuration_section(runs: Mapping[str, Run]) -> list[Section]:
    """What differs between the runs, and what each was asked in full."""
    learners: dict[str, dict[str, Run]] = {}
    for name, run in runs.items():
        learners.setdefault(run.learner, {})[name] = run
    body = _difference(runs, ("learner", "source", "seed", "device"), "Problem, seed and device")
    for learner, alike in learners.items():
        body += _difference(alike, ("config",), f"Options of {learner}")
    for name, run in runs.items():
        text = escaped(json.dumps(run.record, indent=2, ensure_ascii=False))
        body += details(f"config.json of {name}", f'<pre tabindex="0">{text}</pre>')
    return [Section("Configurations", body)]


def _difference(runs: Mapping[str, Run], parts: Sequence[str], what: str) -> str:
    """A table of the entries of config.json in which the runs differ, or a note that there are none."""
    if len(runs) < 2:
        return ""
    flat = {name: dict(flatten({part: run.record[part] for part in parts})) for name, run in runs.items()}
    rows = []
    for field in dict.fromkeys(field for values in flat.values() for field in values):
        cells = [json.dumps(values[field]) if field in values else NONE for values in flat.values()]
        if len(set(cells)) > 1:
            rows.append((field.removeprefix("config."), *cells))
    if not rows:
        return f'<p class="note">{escaped(what)}: the same in all runs.</p>'
    return Table(("", *runs), tuple(rows), f"{what}: what differs", numbers=False).html()


def flatten(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested dicts, by their dotted names."""
    if not isinstance(value, dict) or not value:
        return [(name, value)]
    return [leaf for key, entry in value.items() for leaf in flatten(entry, f"{name}.{key}" if name else key)]


def versions_section(runs: Mapping[str, Run]) -> list[Section]:
    """What made each run, and how long it trained."""
    if not runs:
        return []
    environments = {name: run.record.get("environment", {}) for name, run in runs.items()}
    known = list(dict.fromkeys(what for environment in environments.values() for what in environment))
    rows = []
    for name, run in runs.items():
        seconds = sum(value for row in run.timings() for what, value in row.items() if what != "iteration")
        lines = run.metrics()
        done = f"{int(lines[-1]['iteration']) + 1:,}" if lines else "0"
        versions = (str(environments[name].get(what, NONE)) for what in known)
        metarl, device = str(run.record.get("metarl", NONE)), str(run.record["device"])  # where it was trained
        rows.append((name, run.learner, str(run.seed), done, _duration(seconds), device, metarl, *versions))
    head = ("run", "agent", "seed", "iterations logged", "training time", "device", "metarl", *known)
    return [Section("Runs and versions", Table(head, tuple(rows), numbers=False).html())]


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds <= 0:
        return NONE
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
