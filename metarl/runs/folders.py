"""Which files of a folder are a run's own, so that nothing else is written in their place."""

from __future__ import annotations

import re
from pathlib import Path

from metarl.documents import parse_json, read_regular

FILES = {"config.json", "metrics.jsonl", "timings.jsonl", "nonfinite.pt", ".lock"}
FOLDERS = {"checkpoints", "tensorboard"}
MEASURED = re.compile(r"(curve|tasks)([-.].*)?\.(json|png)")  # what `metarl evaluate RUN` writes
TELLING = {"learner", "config", "source", "seed"}  # of a config.json, that it is a run's


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, be it damaged."""
    if (folder / "checkpoints" / "latest.json").exists():
        return True
    try:
        record = parse_json(read_regular(folder / "config.json"))
    except (OSError, ValueError):
        return (folder / "config.json").is_file() and (folder / "metrics.jsonl").is_file()
    return isinstance(record, dict) and record.keys() >= TELLING


def run_of(path: Path) -> Path | None:
    """The run whose own file this is, or would be; None where there is none. A link's target does not count."""
    place = path.parent.resolve() / path.name
    name = place.name.casefold()  # some file systems do not tell capitals apart
    if (name in FILES | FOLDERS or MEASURED.fullmatch(name)) and is_run(place.parent):
        return place.parent
    inside = (folder for folder in place.parents if folder.name.casefold() in FOLDERS and is_run(folder.parent))
    return next((folder.parent for folder in inside), None)


def run_around(folder: Path) -> Path | None:
    """The run inside which a folder lies, or would; None where there is none."""
    return next((parent for parent in folder.resolve().parents if is_run(parent)), None)
