"""Training: what the runs logged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from metarl.reporting.figures.training import training_figure
from metarl.reporting.page.markup import Section, figure, names
from metarl.runs.run import Run


def training_sections(runs: Mapping[str, Run]) -> list[Section]:
    """Training curves, a section a learner."""
    learners: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name, run in runs.items():
        learners.setdefault(run.learner, {})[name] = run.metrics()
    sections = []
    for learner, logs in learners.items():
        logged = {name: rows for name, rows in logs.items() if rows}
        silent = [name for name in logs if name not in logged]
        notes = f'<p class="note">Nothing is logged yet in {names(silent)}.</p>' if silent else ""
        if logged:
            last = "; ".join(
                f"{name} has {int(rows[-1]['iteration']) + 1:,} iterations" for name, rows in logged.items()
            )
            text = f"Metrics of {learner} during training. {last}."
            notes = figure(partial(training_figure, logged), text, "") + notes
        sections.append(Section(f"Training of {learner}", notes))
    return sections
