"""What a command is asked to write: refused before any work where it would destroy something, or cannot be written.

A file of a run, an input and another output of the same command are never written over; files of the kind that the
command writes are. A link in an output's place is replaced, not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from metarl.cli.options import fail
from metarl.runs.folders import run_of


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = (), within: Iterable[Path] = ()) -> None:
    """Check the files that options name.

    Args:
        outputs: by the option's flag.
        inputs: files that the command reads.
        within: folders of files that it reads.

    Raises:
        UserError: one cannot be written, or would destroy what is there.
    """
    read, folders = list(inputs), list(within)
    places: dict[Path, str] = {}
    for flag, path in outputs.items():
        if path is None:
            continue
        check_output(path)
        place = path.parent.resolve() / path.name
        if (run := run_of(path)) is not None:
            fail(f"{flag} {path} would overwrite a file of the run {run}; give another name")
        if (other := next((one for at, one in places.items() if _same(place, at)), None)) is not None:
            fail(f"{other} and {flag} both name {path}; give each a file of its own")
        if any(_same(place, one.parent.resolve() / one.name) or _same(place, one.resolve()) for one in read):
            fail(f"{flag} {path} would overwrite what this command reads; give another name")
        if place.exists() and any(folder.resolve() in place.parents for folder in folders):
            fail(f"{flag} {path} would overwrite a file among those that this command reads; give another name")
        places[place] = flag


def check_output(path: Path) -> None:
    """Check that a file can be written, as far as one can tell before.

    Raises:
        UserError: it cannot.
    """
    if not path.parent.is_dir():
        fail(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        fail(f"cannot write {path}: it is a folder, or writing there is not allowed")


def _same(one: Path, other: Path) -> bool:
    """Whether two places are one; a link is not what it points to."""
    if one == other:
        return True
    linked = one.is_symlink() or other.is_symlink()
    return not linked and one.exists() and other.exists() and one.parent.samefile(other.parent) and one.samefile(other)
