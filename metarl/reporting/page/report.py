"""One HTML page about several runs that needs nothing else: no network, no scripts, pictures inlined.

It shows what `metarl compare` computes, for every problem among the curves, and then what the runs' folders
hold: training curves, videos, configurations and the versions that made them. It opens with a verdict on each
problem. What comes from a file is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from metarl.errors import UserError
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.curve import AdaptationCurve
from metarl.files import write_atomically
from metarl.reporting.page.adaptation import problem_section, problems
from metarl.reporting.page.markup import Section, items, names, paragraph
from metarl.reporting.page.provenance import configuration_section, versions_section
from metarl.reporting.page.splits import split_sections
from metarl.reporting.page.template import STYLE, TEMPLATE
from metarl.reporting.page.training import training_sections
from metarl.reporting.page.videos import video_section
from metarl.reporting.table import escaped
from metarl.reporting.verdict import verdict
from metarl.runs.run import Run
from metarl.version import __version__, commit

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


def write_report(
    subjects: Sequence[Subject], out: str | Path, *, command: str = "", written: date | None = None
) -> Path:
    """Write `index.html` into a folder, which is made if need be; videos too large to inline are copied beside it.

    Args:
        subjects: what it is about, at least one.
        out: the folder.
        command: what was typed to make the page, which it repeats.
        written: the date that it bears; today by default.

    Returns:
        The page.

    Raises:
        UserError: a run is damaged, a seed occurs twice, or the folder cannot be written.
    """
    out = Path(out)
    comparisons = problems([curve for s in subjects for curve in s.curves])
    sections = [problem_section(comparison) for comparison in comparisons] + split_sections(comparisons)
    runs = {subject.name: subject.run for subject in subjects if subject.run is not None}
    sections += training_sections(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write a report into {out}: {error.strerror}") from None
    sections += video_section(runs, out)
    sections += configuration_section(runs)
    sections += versions_section(runs)
    about, absent = [s.name for s in subjects], [s.name for s in subjects if not s.curves]
    made = paragraph(f"Written {written or date.today()} by metarl {__version__}{_code(runs)}.", "about")
    made += f'<pre tabindex="0">{escaped(command)}</pre>' if command else f"<p>About {names(about)}.</p>"
    page = _page([section for section in sections if section.body], _verdicts(comparisons) + _without(absent), made)
    write_atomically(out / PAGE, page.encode())
    return out / PAGE


def _code(runs: Mapping[str, Run]) -> str:
    """The commits that the runs were made with, where they are known, else that of this code."""
    of_runs = {str(run.record.get("environment", {}).get("commit", "")) for run in runs.values()}
    if known := sorted(of_runs - {""}):
        return f"; the runs are of commit {', '.join(known)}" + ", and of one not known" * ("" in of_runs)
    of_code = commit()
    return "" if of_code is None else f", commit {of_code}" + "; what commit made the runs is not known" * bool(runs)


def _verdicts(comparisons: Sequence[Comparison]) -> str:
    """A paragraph a problem, and below it what cannot be concluded."""
    if not comparisons:
        return paragraph("Nothing here was evaluated yet, so nothing can be said of how it adapts.", "lead")
    parts = []
    for comparison in comparisons:
        said = verdict(comparison)
        parts.append(paragraph(said.sentence, "lead") + items(said.limits, "limits"))
    return "".join(parts)


def _without(absent: Sequence[str]) -> str:
    """What is said of runs without a curve."""
    if not absent:
        return ""
    verb = "have" if len(absent) > 1 else "has"
    evaluate = "measure with <code>metarl evaluate RUN</code>. Training is shown below."
    return f'<p class="warning">{names(absent)} {verb} no adaptation curve yet: {evaluate}</p>'


def _page(sections: Sequence[Section], opening: str, made: str) -> str:
    titles = [section.title for section in sections]
    contents = "".join(f'<li><a href="#part-{i}">{escaped(title)}</a></li>' for i, title in enumerate(titles))
    parts = "".join(
        f'<section id="part-{i}"><h2>{escaped(section.title)}</h2>{section.body}</section>'
        for i, section in enumerate(sections)
    )
    return TEMPLATE.format(
        style=STYLE,
        title=escaped(titles[0] if titles else "metarl"),
        opening=opening,
        made=made,
        contents=contents,
        parts=parts,
    )
