"""`metarl inspect`: what a folder of pictures holds, before anything is learned from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.cli.options import File, Group, asks_for_help, fail, first, parse
from metarl.cli.outputs import check_outputs
from metarl.cli.terminal import say

SHOWN = 8  # sizes and classes that are listed


@dataclass(frozen=True)
class InspectOptions:
    """Say what a folder of pictures holds: classes, sizes, splits, damage, and the tasks that can be made of it.

    Attributes:
        queries: query images a class of the tasks whose --ways and --shots are told.
        json: write it here too.
    """

    queries: int = 15
    json: File = None


def inspect(words: Sequence[str]) -> int:
    """Say what a folder of pictures holds; 2 where pictures are damaged."""
    if asks_for_help(words):
        say("DIR is a folder of pictures: DIR/CLASS/*.png, or DIR/train, DIR/validation and DIR/test with such.\n")
        parse("metarl inspect DIR", ["--help"], Group("command", InspectOptions))
    target, rest = first(words, "DIR", "inspect")
    (options,) = parse("metarl inspect DIR", rest, Group("command", InspectOptions))
    if options.queries < 1:
        fail(f"--queries is at least 1, not {options.queries}")
    check_outputs({"--json": options.json}, within=[Path(target)])
    from metarl.fewshot.datasets.inspection import inspect_folder

    told = inspect_folder(Path(target), options.queries)
    counts = sorted(told.classes.values())
    say(f"{target}: {sum(counts)} pictures of {len(counts)} classes, {counts[0]} to {counts[-1]} a class")
    for what, of in (("sizes", told.sizes), ("modes", told.modes)):
        say(f"{what}: {_common(of)}")
    for what, names in told.passed_over.items():
        say(f"{what} ({len(names)}):")
        for name in names:
            say(f"  {name}")
    say(f"split {told.split_by}: " + ", ".join(f"{split} {len(names)}" for split, names in told.splits.items()))
    for split, tasks in told.tasks.items():
        if tasks.ways < 2:
            say(f"  {split}: no task, for want of classes")
        elif not tasks.shots:
            say(f"  {split}: --ways up to {tasks.ways}, but a class is too small for --queries {options.queries}")
        else:
            say(f"  {split}: --ways up to {tasks.ways}, --shots up to {tasks.shots} beside --queries {options.queries}")
    if told.damaged:
        say(f"damaged ({len(told.damaged)} of {sum(counts)} pictures): replace or remove them")
        for line in told.damaged:
            say(f"  {line}")
    if options.json is not None:
        from dataclasses import asdict

        from metarl.evaluation.storage import dump_json
        from metarl.files import write_atomically

        write_atomically(options.json, dump_json({"version": 1, "folder": target, **asdict(told)}).encode())
        say(f"wrote {options.json}")
    return 2 if told.damaged else 0


def _common(counts: dict[str, int]) -> str:
    """The most frequent of them, and how many others there are."""
    most = Counter(counts).most_common(SHOWN)
    more = len(counts) - len(most)
    return ", ".join(f"{name} ({count})" for name, count in most) + (f", and {more} more" if more else "")
