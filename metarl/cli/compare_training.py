"""`metarl compare --training`: how runs were trained, beside each other, from what they logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.cli.options import File, Group, asks_for_help, first, parse
from metarl.cli.outputs import check_outputs
from metarl.cli.terminal import say

OUTPUTS = ("out", "json", "markdown")  # options that name a file to write
COMMAND = "metarl compare --training RUN..."


@dataclass(frozen=True)
class TrainingOptions:
    """Compare how runs of one family were trained: return after adaptation against steps and minutes of training.

    Attributes:
        out: the picture (.png, .svg or .pdf).
        json: write the curves here.
        markdown: write the tables here.
        reach: report after how many steps and minutes each agent reached this return.
    """

    out: Path
    json: File = None
    markdown: File = None
    reach: Annotated[float | None, tyro.conf.arg(metavar="RETURN")] = None


def compare_training(words: Sequence[str]) -> int:
    """Compare how several runs were trained; the words after `--training`."""
    if asks_for_help(words):
        say("RUN is a run folder of an agent that was trained with --validate-every N. Runs that differ only in the")
        say("seed are one curve. No agent is loaded: all is read from what the runs logged. NAME=RUN says what the")
        say("agent of a run is to be called.\n")
        parse(COMMAND, ["--help"], Group("command", TrainingOptions))
    first(words, "RUN", "compare --training")
    end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    (options,) = parse(COMMAND, words[end:], Group("command", TrainingOptions))
    from metarl.evaluation.storage import dump_json
    from metarl.evaluation.training_curves import training_curves
    from metarl.files import write_atomically
    from metarl.reporting.figures.style import check_picture
    from metarl.reporting.figures.training_curves import plot_training
    from metarl.reporting.training_tables import end_table, training_title, way_table

    check_picture(options.out)
    check_outputs({f"--{name}": getattr(options, name) for name in OUTPUTS})
    named = [_named(word) for word in words[:end]]
    curves = training_curves([folder for _, folder in named], [name for name, _ in named])
    tables = [end_table(curves, options.reach), way_table(curves)]
    try:
        plot_training(curves, training_title(curves), options.out)
        if options.json is not None:
            source = curves[0].runs[0].source
            agents = [curve.to_dict(options.reach) for curve in curves]
            document = {"version": 1, "training": {"source": source, "reach": options.reach, "agents": agents}}
            write_atomically(options.json, dump_json(document).encode())
        if options.markdown is not None:
            write_atomically(options.markdown, "\n".join(table.markdown() for table in tables).encode())
    finally:  # what cannot be written does not cost the words
        for table in tables:
            say(table.rich())
            say("")
    for path in (getattr(options, name) for name in OUTPUTS):
        if path is not None:
            say(f"wrote {path}")
    return 0


def _named(word: str) -> tuple[str | None, str]:
    """A name, if one is given, and the run folder."""
    name, equals, folder = word.partition("=")
    return (name, folder) if equals and name and not Path(word).exists() else (None, word)
