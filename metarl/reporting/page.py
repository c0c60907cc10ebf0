"""One HTML page about several runs that needs nothing else: no network, no scripts, pictures inlined.

It shows what `metarl compare` computes, for every problem among the curves, and then what the runs' folders
hold: training curves, videos, configurations and the versions that made them. What comes from a file is escaped.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from metarl import __version__
from metarl.errors import UserError
from metarl.evaluation.comparison import Comparison, compare
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import comparable, merge_seeds
from metarl.evaluation.storage import write_atomically
from metarl.learning.contract import Budget
from metarl.reporting import plots as plotting
from metarl.reporting.tables import (
    NONE,
    Table,
    formatter,
    problem,
    protocol_table,
    score_table,
    summary_table,
    task_table,
)
from metarl.runs.run import Run

PAGE = "index.html"
OPENED = 4  # curves whose long table is shown without a click
SCALE = 1.6  # pixels of the page a point of a figure
INLINED = 8 * 2**20  # bytes of a video that is still put into the page


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
    sections = [_problem_section(group) for group in problems([curve for s in subjects for curve in s.curves])]
    runs = {subject.name: subject.run for subject in subjects if subject.run is not None}
    sections += _training_sections(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write a report into {out}: {error.strerror}") from None
    sections += _video_section(runs, out)
    sections += _configuration_section(runs)
    sections += _versions_section(runs)
    absent = [s.name for s in subjects if not s.curves]
    page = _page([section for section in sections if section.body], [s.name for s in subjects], absent)
    write_atomically(out / PAGE, page.encode())
    return out / PAGE


def problems(curves: Sequence[AdaptationCurve]) -> list[Comparison]:
    """Comparisons of the curves that can be compared, a problem each; seeds of one agent are one curve."""
    groups: list[list[AdaptationCurve]] = []
    for curve in merge_seeds(curves) if curves else []:
        for group in groups:
            try:
                comparable([*group, curve])
            except UserError:
                continue
            group.append(curve)
            break
        else:
            groups.append([curve])
    return [compare(group) for group in groups]


@dataclass(frozen=True)
class _Section:
    title: str
    body: str


def _problem_section(found: Comparison) -> _Section:
    """Figure, tables and profile of one problem."""
    curves, first = found.curves, found.curves[0]
    facts = {
        "problem": problem(curves).partition("\n")[0],
        "tasks": f"{first.tasks:,} of the split {first.split}" + ("" if first.unseen else ", reused and not unseen"),
        "SHA-256 of the tasks": first.task_hash,
        "budget a task": _budget(first.budget) if first.shots is None else f"{first.shots[-1]} shots",
        "training seeds": "; ".join(
            f"{label}: {', '.join(map(str, curve.seeds)) if curve.trained else 'not trained'}"
            for label, curve in zip(found.labels, curves, strict=True)
        ),
        "evaluation seed": ", ".join(map(str, sorted({curve.evaluation_seed for curve in curves}))),
    }
    number = formatter(first)
    ends = "; ".join(f"{entry.label} {number(float(entry.curve.mean[-1]))}" for entry in found.entries)
    profile = ""
    if first.tasks > 1:
        words = "Share of tasks and seeds that end with a better score than each threshold. Shading: 95 % interval."
        profile = _figure(lambda: plotting.profile_figure(curves), f"Performance profiles. {words}", words)
    scores, each = score_table(found), task_table(curves, found.labels)
    body = [
        _figure(lambda: plotting.figure(curves, found.axis), f"Adaptation curves. Last scores: {ends}.", ""),
        dataclasses.replace(summary_table(found), title="Last scores").html(),
        *([] if each is None else [each.html()]),
        _details(scores.title, dataclasses.replace(scores, title="", notes=()).html(), opened=len(curves) <= OPENED),
        profile,
        _definitions({name: value for name, value in facts.items() if value}),
        protocol_table(found).html(),
    ]
    return _Section(f"Adaptation on {first.family.removeprefix('metarl/')}", "".join(body))


def _budget(budget: Budget | None) -> str:
    return "" if budget is None else f"{budget.steps} steps of {budget.episodes} episodes"


def _training_sections(runs: Mapping[str, Run]) -> list[_Section]:
    """Training curves, a section a learner."""
    learners: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name, run in runs.items():
        learners.setdefault(run.learner, {})[name] = run.metrics()
    sections = []
    for learner, logs in learners.items():
        logged = {name: rows for name, rows in logs.items() if rows}
        silent = [name for name in logs if name not in logged]
        notes = f'<p class="note">Nothing is logged yet in {_names(silent)}.</p>' if silent else ""
        if logged:
            last = "; ".join(
                f"{name} has {int(rows[-1]['iteration']) + 1:,} iterations" for name, rows in logged.items()
            )
            text = f"Metrics of {learner} during training. {last}."
            notes = _figure(partial(plotting.training_figure, logged), text, "") + notes
        sections.append(_Section(f"Training of {learner}", notes))
    return sections


def _video_section(runs: Mapping[str, Run], out: Path) -> list[_Section]:
    """Every video in the run folders: inlined where small, else copied beside the page."""
    shown = []
    for i, (name, run) in enumerate(runs.items()):
        for path in sorted(run.folder.glob("*.mp4")):
            try:
                if path.stat().st_size < INLINED:
                    source = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
                else:
                    source = f"videos/{i}-{path.name}"
                    (out / "videos").mkdir(exist_ok=True)
                    shutil.copyfile(path, out / source)
            except OSError as error:
                raise UserError(f"cannot copy {path} into {out}: {error.strerror}") from None
            caption = html.escape(f"{name}: {path.name}")
            shown.append(
                f'<figure><video controls preload="metadata" src="{html.escape(source)}" aria-label="{caption}">'
                f"</video><figcaption>{caption}</figcaption></figure>"
            )
    return [_Section("Videos", f'<div class="videos">{"".join(shown)}</div>' if shown else "")]


def _configuration_section(runs: Mapping[str, Run]) -> list[_Section]:
    """What differs between the runs, and what each was asked in full."""
    learners: dict[str, dict[str, Run]] = {}
    for name, run in runs.items():
        learners.setdefault(run.learner, {})[name] = run
    body = _difference(runs, ("learner", "source", "seed", "device"), "Problem, seed and device")
    for learner, alike in learners.items():
        body += _difference(alike, ("config",), f"Options of {learner}")
    for name, run in runs.items():
        text = html.escape(json.dumps(run.record, indent=2, ensure_ascii=False))
        body += _details(f"config.json of {name}", f'<pre tabindex="0">{text}</pre>')
    return [_Section("Configurations", body)]


def _difference(runs: Mapping[str, Run], parts: Sequence[str], what: str) -> str:
    """A table of the entries of config.json in which the runs differ, or a note that there are none."""
    if len(runs) < 2:
        return ""
    flat = {name: dict(_flatten({part: run.record[part] for part in parts})) for name, run in runs.items()}
    rows = []
    for field in dict.fromkeys(field for values in flat.values() for field in values):
        cells = [json.dumps(values[field]) if field in values else NONE for values in flat.values()]
        if len(set(cells)) > 1:
            rows.append((field.removeprefix("config."), *cells))
    if not rows:
        return f'<p class="note">{html.escape(what)}: the same in all runs.</p>'
    return Table(("", *runs), tuple(rows), f"{what}: what differs", numbers=False).html()


def _flatten(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(name, value)]
    return [leaf for key, entry in value.items() for leaf in _flatten(entry, f"{name}.{key}" if name else key)]


def _versions_section(runs: Mapping[str, Run]) -> list[_Section]:
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
        metarl = str(run.record.get("metarl", NONE))
        rows.append((name, run.learner, str(run.seed), done, _duration(seconds), run.device, metarl, *versions))
    head = ("run", "agent", "seed", "iterations logged", "training time", "device", "metarl", *known)
    return [_Section("Runs and versions", Table(head, tuple(rows), numbers=False).html())]


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds <= 0:
        return NONE
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"<code>{html.escape(name)}</code>" for name in names)


def _figure(draw: Callable[[], Figure], alternative: str, caption: str) -> str:
    """A figure as SVG in an `<img>`, drawn for light and for dark pages."""
    light, dark = (plotting.render(draw, "svg", dark=dark) for dark in (False, True))
    inlined = [f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}" for picture in (light, dark)]
    size = re.search(rb'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', light)
    width, height = (round(SCALE * float(points)) for points in size.groups()) if size else (0, 0)
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{inlined[1]}">'
        f'<img src="{inlined[0]}" width="{width}" height="{height}" alt="{html.escape(alternative)}"></picture>'
        f"{below}</figure>"
    )


def _details(title: str, body: str, *, opened: bool = False) -> str:
    return f"<details{' open' * opened}><summary>{html.escape(title)}</summary>{body}</details>"


def _definitions(facts: Mapping[str, str]) -> str:
    pairs = (f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(pairs)}</dl>"


def _page(sections: Sequence[_Section], subjects: Sequence[str], absent: Sequence[str]) -> str:
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
            f'<p class="warning">{_names(absent)} {verb} no adaptation curve yet: measure with '
            "<code>metarl evaluate RUN</code>. Training is shown below.</p>"
        )
    return TEMPLATE.format(
        style=STYLE,
        contents=contents,
        parts=parts,
        note=note,
        about=_names(subjects),
        title=html.escape(titles[0] if titles else "metarl"),
        version=html.escape(__version__),
    )


TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data: 'self' file:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title} – metarl report</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>metarl report</h1>
<p class="about">{about}; written by metarl {version}</p>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
</header>
<main>
{note}
{parts}
</main>
</body>
</html>
"""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1d2127; --soft: #5b6570; --rule: #dfe3e8; --accent: #0b63a5; --shade: #f5f7f9;
  --warn: #fff6e0; --warn-ink: #6b4e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e6e8eb; --soft: #a2abb5; --rule: #2f353d; --accent: #6db7f2; --shade: #1b1f25;
    --warn: #33290f; --warn-ink: #f0d58c;
  }
}
* { box-sizing: border-box; }
html { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
body { margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3rem) 5rem; max-width: 70rem;
  background: var(--paper); color: var(--ink); }
h1 { margin: .1rem 0 0; font-size: clamp(1.7rem, 4vw, 2.3rem); line-height: 1.2; letter-spacing: -.015em; }
h2 { margin: 0 0 1.2rem; font-size: 1.35rem; letter-spacing: -.01em; }
.about { margin: .4rem 0 1.2rem; color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: 0; padding: .8rem 0; list-style: none;
  border-block: 1px solid var(--rule); }
a { color: var(--accent); text-underline-offset: .2em; text-decoration-thickness: 1px; }
a:focus-visible, summary:focus-visible, pre:focus-visible, .scroll:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 3px; border-radius: 2px; }
section { margin-top: 3.2rem; }
figure { margin: 0 0 1.6rem; }
img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: .4rem; color: var(--soft); font-size: .87rem; }
.scroll { overflow-x: auto; margin: 1.4rem 0 .6rem; }
table { border-collapse: collapse; font-size: .89rem; font-variant-numeric: tabular-nums lining-nums; }
caption { padding-bottom: .5rem; text-align: left; white-space: pre; font-weight: 600; }
th, td { padding: .32rem .9rem .32rem 0; text-align: left; vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-bottom: 1.5px solid var(--ink); color: var(--soft); font-weight: 500;
  vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 600; }
tbody tr { border-bottom: 1px solid var(--rule); }
tbody tr:has(+ tr.more) { border-bottom-color: transparent; }
.number { text-align: right; white-space: nowrap; }
tbody th { white-space: nowrap; }
.note { max-width: 46rem; margin: .3rem 0; color: var(--soft); font-size: .87rem; }
.warning { margin: 1.6rem 0 0; padding: .7rem 1rem; border-radius: .4rem; background: var(--warn);
  color: var(--warn-ink); }
details { margin: 1.2rem 0; }
summary { cursor: pointer; font-weight: 600; font-size: .95rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .9rem 2rem; margin: 1.8rem 0;
  padding: 1rem 1.2rem; border-radius: .5rem; background: var(--shade); font-size: .89rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: 1rem 1.2rem; border-radius: .5rem; background: var(--shade);
  font-size: .82rem; line-height: 1.5; }
.videos { display: flex; flex-wrap: wrap; gap: 1.5rem; }
.videos figure { flex: 0 1 31rem; }
video { width: 100%; border-radius: .4rem; background: #000; }
@media print {
  html { font-size: 11px; }
  body { max-width: none; padding: 0; }
  nav, video { display: none; }
  section { break-before: auto; margin-top: 1.8rem; }
  figure, tr, dl { break-inside: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
  pre { white-space: pre-wrap; }
}
"""
