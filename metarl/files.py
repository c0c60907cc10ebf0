"""Files that are written whole or not at all: everything that this package writes goes through here.

Not so: what is only added to (the logs of a run, a download that is gone on with, TensorBoard's files), locks, and the
scratch of a process. A link in a file's place is replaced, not followed: what it names stays.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metarl.errors import UserError, one_line

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

TEMPORARY = ".tmp"  # how the name of a file that is being written ends
LONGEST = 200  # bytes of a name to which something can still be added


def write_atomically(path: str | Path, data: bytes) -> None:
    """Replace a file so that, killed at any moment, it holds either its old bytes or the new ones, on disk.

    Raises:
        UserError: it cannot be written there; what was there stays.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or one_line(error)}") from None


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Another name to write a file under, which takes the file's place, on disk, when it is whole.

    Its permissions are those of the file that was there. What processes that were killed have left is cleared away.

    Raises:
        OSError: it cannot be written there; what was there stays, as after any other error.
    """
    path = Path(path)
    if path.exists() and not path.is_symlink() and not os.access(path, os.W_OK):
        raise PermissionError(0, "it is read-only", str(path))
    name = f"{_beginning(path)}.{os.getpid()}-{threading.get_ident():x}{TEMPORARY}"  # in which no two writers meet
    temporary = path.with_name(name)
    with temporary.open("wb") as file:
        _lock(file.fileno())
        try:
            yield temporary
            sync(temporary)
            if path.is_file() and not path.is_symlink():
                temporary.chmod(path.stat().st_mode & 0o7777)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    sync(path.parent)
    for leftover in unfinished(path):
        with contextlib.suppress(OSError), leftover.open("rb") as file:
            if _lock(file.fileno()):
                leftover.unlink()


def unfinished(path: Path) -> list[Path]:
    """What processes that were killed while writing this file left beside it, or are writing."""
    return sorted(path.parent.glob(f"{glob.escape(_beginning(path))}*{TEMPORARY}"))


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder (where the system allows it), to disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beginning(path: Path) -> str:
    """How the names of a file's temporaries begin: as its own, unless that is too long."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= LONGEST else hashlib.sha256(name).hexdigest()[:32]


def _lock(file: int) -> bool:
    """Whether nobody else was writing this file; where that cannot be told, somebody was."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):  # in use, or no locks on this file system or system
        return False
    return True
