"""Training: what the runs logged, returns and scores large, the rest folded; an agent's seeds are one band."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

from metarl.reporting.figures.training import Log, training_figure
from metarl.reporting.page.markup import Section, details, figure, names
from metarl.reporting.page.provenance import flatten
from metarl.runs.run import Run

RESULTS = (("return/", "score/"), ("loss/",))  # metrics shown large: the first kind of which there are any


def training_sections(runs: Mapping[str, Run]) -> list[Section]:
    """Training curves, a section a learner."""
    learners: dict[str, dict[str, Run]] = {}
    for name, run in runs.items():
        learners.setdefault(run.learner, {})[name] = run
    return [Section(f"Training of {learner}", _curves(learner, alike)) for learner, alike in learners.items()]


def _curves(learner: str, runs: Mapping[str, Run]) -> str:
    logs: dict[str, Log] = {name: run.metrics() for name, run in runs.items()}
    metrics = dict.fromkeys(name for rows in logs.values() for row in rows for name in row if name != "iteration")
    silent = [name for name, rows in logs.items() if not any(len(row) > 1 for row in rows)]
    notes = f'<p class="note">Nothing is logged in {names(silent)}.</p>' if silent else ""
    if not metrics:
        return notes
    heard = {name: run for name, run in runs.items() if name not in silent}
    agents = {label: [logs[name] for name in of_agent] for label, of_agent in agents_of(heard).items()}
    kinds = [[metric for metric in metrics if metric.startswith(kind)] for kind in RESULTS]
    results = next((kind for kind in kinds if kind), [])
    diagnostics = [metric for metric in metrics if metric not in results]
    last = "; ".join(f"{name} has {int(logs[name][-1]['iteration']) + 1:,} iterations" for name in heard)
    caption = ""
    if any(len(seeds) > 1 for seeds in agents.values()):
        caption = "Lines: means over the seeds of an agent. Bands: from the lowest seed to the highest."
        if len(agents) == 1:
            caption = f"{next(iter(agents))}. Line: mean over the seeds. Band: from the lowest to the highest."
    body = ""
    if results:
        text = f"{', '.join(results)} of {learner} during training. {last}. {caption}".strip()
        body = figure(partial(training_figure, agents, results, large=True), text, caption)
    if diagnostics:
        text = f"{', '.join(diagnostics)} of {learner} during training."
        drawn = figure(partial(training_figure, agents, diagnostics), text, "")
        body += details(f"Diagnostics of the training: {len(diagnostics)} metrics", drawn)
    return body + notes


def agents_of(runs: Mapping[str, Run]) -> dict[str, list[str]]:
    """The names of runs that differ in their seeds alone, by a name for each group.

    A run without company keeps its name; the others are called after their learner, what tells them from other
    groups, and their seeds.
    """
    groups: dict[str, list[str]] = {}
    for name, run in runs.items():
        asked = {part: run.record[part] for part in ("learner", "source", "config")}
        groups.setdefault(json.dumps(asked, sort_keys=True), []).append(name)
    flat = [dict(flatten(json.loads(asked))) for asked in groups]
    differing = [field for field in flat[0] if len({json.dumps(one.get(field)) for one in flat}) > 1] if flat else []
    named = {}
    for fields, members in zip(flat, groups.values(), strict=True):
        if len(members) == 1:
            named[members[0]] = members
            continue
        options = [f"{field.rpartition('.')[2]}={fields.get(field)}" for field in differing]
        label = ", ".join([runs[members[0]].learner, *options, _seeds([runs[name].seed for name in members])])
        named[label if label not in named else f"{label} ({', '.join(members)})"] = members
    return named


def _seeds(seeds: Sequence[int]) -> str:
    return f"seeds {', '.join(map(str, sorted(seeds)))}" if len(seeds) <= 5 else f"{len(seeds)} seeds"
