"""`metarl compare`: evaluated runs of one problem beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from metarl.cli.compare_training import compare_training
from metarl.cli.options import File, Group, asks_for_help, fail, first, parse
from metarl.cli.outputs import check_outputs
from metarl.cli.targets import saved_curves
from metarl.cli.terminal import say
from metarl.errors import unknown

if TYPE_CHECKING:
    from metarl.evaluation.comparison import Comparison
    from metarl.evaluation.curve import AdaptationCurve
    from metarl.reporting.table import Table

TRAINING = "--training"  # compares by `metarl.cli.compare_training`
OUTPUTS = ("out", "profile", "per_task", "json", "markdown")  # options that name a file to write


@dataclass(frozen=True)
class CompareOptions:
    """Compare evaluated runs of the same problem; those that differ only in the seed are one curve.

    Attributes:
        out: the picture (.png, .svg or .pdf).
        json: write the curves and every number of the comparison here.
        markdown: write the tables here.
        profile: draw the performance profiles here (.png, .svg or .pdf).
        against: the agent, or the RUN, that the others are compared to; by default the first. The p-value, corrected
            for the number of comparisons, needs 5 seeds of each trained agent.
        reach: report how much adaptation each agent needs to reach this score (accuracies are between 0 and 1).
        per_task: draw each task's score against its speed, direction or goal here (.png, .svg or .pdf).
        splits: which curves of run folders to show; those of several splits beside each other, compared within each.
        axis: what to draw them against (pulls: a bandit's regret and reward; final: the last scores alone); by default
            what all of them count.
        training: compare how the runs were trained instead; see metarl compare --training --help.
    """

    out: Path
    json: File = None
    markdown: File = None
    profile: File = None
    per_task: File = None
    splits: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SPLIT...")] = ("test",)
    against: Annotated[str | None, tyro.conf.arg(metavar="RUN|AGENT")] = None
    reach: Annotated[float | None, tyro.conf.arg(metavar="SCORE")] = None
    axis: Literal["gradient_steps", "env_steps", "shots", "pulls", "final"] | None = None
    training: bool = False


def compare(words: Sequence[str]) -> int:
    """Compare several evaluated runs, or how runs were trained."""
    if TRAINING in words:
        return compare_training([word for word in words if word != TRAINING])
    if asks_for_help(words):
        say("RUN is a run folder, or the JSON of a curve or of a comparison.\n")
        parse("metarl compare RUN...", ["--help"], Group("command", CompareOptions))
    first(words, "RUN", "compare")
    end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    (options,) = parse("metarl compare RUN...", words[end:], Group("command", CompareOptions))
    from metarl.evaluation.merging import merge_seeds
    from metarl.evaluation.splits import compare_splits
    from metarl.reporting.figures.style import check_picture

    for picture in (options.out, options.profile, options.per_task):
        if picture is not None:
            check_picture(picture)
    check_outputs(
        {f"--{name.replace('_', '-')}": getattr(options, name) for name in OUTPUTS},
        inputs=[path for word in words[:end] if (path := Path(word)).is_file()],
    )
    saved = {word: _saved(Path(word), options.splits) for word in words[:end]}
    curves = merge_seeds([curve for several in saved.values() for curve in several])
    against = 0 if options.against is None else _named(options.against, curves, saved)
    compared = compare_splits(curves, against=against, reach=options.reach, axis=options.axis)
    if len(compared) > 1 and (options.profile is not None or options.per_task is not None):
        fail("--profile and --per-task draw one split; give curves of one")
    tables = _tables(compared)
    try:
        _write(compared, tables, options)
    finally:  # what cannot be written does not cost the words, nor the other way round
        for table in tables:
            say(table.rich())
            say("")
    for path in (getattr(options, name) for name in OUTPUTS):
        if path is not None:
            say(f"wrote {path}")
    return 0


def _write(compared: Sequence[Comparison], tables: Sequence[Table], options: CompareOptions) -> None:
    """Every file that the options name."""
    from metarl.evaluation.storage import dump_json
    from metarl.files import write_atomically

    _draw(compared, options)
    if options.json is not None:
        several = {"comparisons": [each.to_dict() for each in compared]} if len(compared) > 1 else {}
        document = {
            "version": 1,
            "comparison": compared[0].to_dict(),
            **several,
            "curves": [curve.to_dict() for each in compared for curve in each.curves],
        }
        write_atomically(options.json, dump_json(document).encode())
    if options.markdown is not None:
        write_atomically(options.markdown, "\n".join(table.markdown() for table in tables).encode())


def _saved(path: Path, splits: Sequence[str]) -> list[AdaptationCurve]:
    """The curves of a run folder on these splits; those of a file as they are."""
    return [curve for split in (splits if path.is_dir() else splits[:1]) for curve in saved_curves(path, split)]


def _tables(compared: Sequence[Comparison]) -> list[Table]:
    """Everything that is printed: the splits beside each other where there are several, then each."""
    from metarl.reporting.tables import protocol_table, score_table, split_table, summary_table, task_table

    tables = [split_table(compared)] if len(compared) > 1 else []
    for comparison in compared:
        tables += [summary_table(comparison), score_table(comparison)]
        each = task_table(comparison.curves, comparison.labels)
        tables += [*([] if each is None else [each]), protocol_table(comparison)]
    return tables


def _draw(compared: Sequence[Comparison], options: CompareOptions) -> None:
    from metarl.reporting.plots import plot_curves, plot_profiles, plot_splits, plot_tasks

    curves = compared[0].curves
    if options.per_task is not None:
        plot_tasks(curves, options.per_task)
    if len(compared) > 1:
        plot_splits(compared, options.out)
    else:
        plot_curves(curves, options.out, compared[0].axis)
    if options.profile is not None:
        plot_profiles(curves, options.profile)


def _named(name: str, curves: Sequence[AdaptationCurve], saved: Mapping[str, Sequence[AdaptationCurve]]) -> int:
    """The index of the curve with a label, of an agent, or of a RUN as typed."""
    from metarl.evaluation.merging import labels, mergeable

    known = labels(curves)
    if name in known:
        return known.index(name)
    if name in saved:
        return next(i for i, curve in enumerate(curves) if mergeable(curve, saved[name][0]))
    raise unknown("agent or RUN to compare with", name, [*known, *saved])
