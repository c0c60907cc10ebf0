"""One HTML page about several runs that needs nothing else: no network, no scripts, pictures inlined.

It shows what `metarl compare` computes, for every problem among the curves, and then what the runs' folders
hold: training curves, videos, configurations and the versions that made them. What comes from a file is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.files import write_atomically
from metarl.reporting.page.adaptation import problem_section, problems
from metarl.reporting.page.markup import Section, names
from metarl.reporting.page.provenance import configuration_section, versions_section
from metarl.reporting.page.template import STYLE, TEMPLATE
from metarl.reporting.page.training import training_sections
from metarl.reporting.page.videos import video_section
from metarl.runs.run import Run
from metarl.version import __version__

PAGE = "index.html"


@dataclass(frozen=True, eq=False)
class Subject:
    """Something a report is about.

    Attributes:
        name: as the user typed it.
        run: its folder, or None where only a curve was given.
        curves: its adaptation curves; none where it was not evaluated yet.
    """

    name: str
    run: Run | None
    curves: tuple[AdaptationCurve, ...]


def write_report(subjects: Sequence[Subject], out: str | Path) -> Path:
    """Write `index.html` into a folder, which is made if need be; videos too large to inline are copied beside it.

    Args:
        subjects: what it is about, at least one.
        out: the folder.

    Returns:
        The page.

    Raises:
        UserError: a run is damaged, a seed occurs twice, or the folder cannot be written.
    """
    out = Path(out)
    sections = [problem_section(group) for group in problems([curve for s in subjects for curve in s.curves])]
    runs = {subject.name: subject.run for subject in subjects if subject.run is not None}
    sections += training_sections(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write a report into {out}: {error.strerror}") from None
    sections += video_section(runs, out)
    sections += configuration_section(runs)
    sections += versions_section(runs)
    absent = [s.name for s in subjects if not s.curves]
    page = _page([section for section in sections if section.body], [s.name for s in subjects], absent)
    write_atomically(out / PAGE, page.encode())
    return out / PAGE


def _page(sections: Sequence[Section], subjects: Sequence[str], absent: Sequence[str]) -> str:
    titles = [section.title for section in sections]
    contents = "".join(f'<li><a href="#part-{i}">{html.escape(title)}</a></li>' for i, title in enumerate(titles))
    parts = "".join(
        f'<section id="part-{i}"><h2>{html.escape(section.title)}</h2>{section.body}</section>'
        for i, section in enumerate(sections)
    )
    note = ""
    if absent:
        verb = "have" if len(absent) > 1 else "has"
        note = (
            f'<p class="warning">{names(absent)} {verb} no adaptation curve yet: measure with '
            "<code>metarl evaluate RUN</code>. Training is shown below.</p>"
        )
    return TEMPLATE.format(
        style=STYLE,
        contents=contents,
        parts=parts,
        note=note,
        about=names(subjects),
        title=html.escape(titles[0] if titles else "metarl"),
        version=html.escape(__version__),
    )
