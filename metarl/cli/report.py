"""`metarl report`: one HTML page about runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.cli.options import Group, asks_for_help, fail, first, parse
from metarl.cli.outputs import check_outputs
from metarl.cli.targets import evaluated_splits, saved_curves
from metarl.cli.terminal import say


@dataclass(frozen=True)
class ReportOptions:
    """Write one self-contained HTML page about runs: comparison, training curves, configs, versions and videos.

    Attributes:
        out: the folder that gets index.html; it is made if need be.
    """

    out: Path


def report(words: Sequence[str]) -> int:
    """Write a page about several runs."""
    if asks_for_help(words):
        say("RUN is a run folder, evaluated or not, or the JSON of a curve or of a comparison.\n")
        parse("metarl report RUN...", ["--help"], Group("command", ReportOptions))
    first(words, "RUN", "report")
    end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    (options,) = parse("metarl report RUN...", words[end:], Group("command", ReportOptions))
    from metarl.reporting.page import PAGE, Subject, write_report
    from metarl.runs.folders import run_of
    from metarl.runs.run import Run

    if options.out.exists() and not options.out.is_dir():
        fail(f"cannot write a report into {options.out}: it is a file; give a folder")
    if options.out.is_dir():
        check_outputs({"--out": options.out / PAGE})
    elif (run := run_of(options.out)) is not None:
        fail(f"cannot write a report into {options.out}: that place is the run's, {run}; give another folder")
    subjects = []
    for word in dict.fromkeys(words[:end]):
        folder = Path(word) if Path(word).is_dir() else None
        splits = ["test"] if folder is None else evaluated_splits(folder)
        curves = tuple(curve for split in splits for curve in saved_curves(Path(word), split))
        subjects.append(Subject(word, None if folder is None else Run.open(folder), curves))
    command = shlex.join(["metarl", "report", *words])
    say(f"wrote {write_report(subjects, options.out, command=command)}")
    return 0
