"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path

from metarl.errors import UserError, one_line

TEMPORARY = ".tmp"  # how the name of a file that is being written ends


def write_atomically(path: str | Path, data: bytes) -> None:
    """Replace a file so that, killed at any moment, it holds either its old bytes or the new ones, on disk.

    Raises:
        UserError: it cannot be written there; what was there stays.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")  # two processes do not meet in it
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or one_line(error)}") from None


def unfinished(path: Path) -> list[Path]:
    """What processes that were killed while writing this file left beside it."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}*{TEMPORARY}"))


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder (where the system allows it), to disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
