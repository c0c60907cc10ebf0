"""Reading other people's files: every way in which one can be damaged becomes one `UserError` that names it.

Folders are in `folders`, zip and tar archives in `archives`, pictures in `pictures`.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from metarl.errors import UserError

MAX_MEMBER_BYTES = 1 << 28  # a file: 256 MiB
SHOWN = 8  # names that fit into a line
LONGEST = 400  # characters of a path in a line

# What the standard library and Pillow raise on bytes that are not what they should be.
DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    csv.Error,
    Image.DecompressionBombError,
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
)


@contextlib.contextmanager
def reading(what: str, advice: str = "replace it with an intact copy") -> Iterator[None]:
    """Turn any sign of damage into one `UserError` that names the file and says what to do."""
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__
        short = what if len(what) <= LONGEST else f"{what[: LONGEST // 2]}...{what[-LONGEST // 2 :]}"
        raise UserError(f"{short} cannot be read ({reason}); {advice}") from error


class DataWarning(UserWarning):
    """Something in a user's files that was passed over or stands out; the command line prints it as one line."""


Remarks = Mapping[str, Sequence[str]]  # what about which files, such as {"passed over as no pictures": ["notes.txt"]}


def some(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def warn(where: str, remarks: Remarks) -> None:
    """Say what stands out in a place, in one `DataWarning`; nothing where there is nothing to say."""
    parts = [
        f"{len(names)} {what} ({'the first ' if len(names) > 1 else ''}{names[0]})"
        for what, names in remarks.items()
        if names
    ]
    if parts:
        warnings.warn(f"{where}: {'; '.join(parts)}", DataWarning, stacklevel=2)


def check_regular(path: Path) -> int:
    """The size of a regular file, bytes.

    Raises:
        OSError: it is missing.
        ValueError: it is a folder, a pipe or a device, which must not even be opened: that may wait for ever.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    return status.st_size


def read_file(path: Path) -> bytes:
    """The bytes of a regular file of at most `MAX_MEMBER_BYTES`; nothing else is opened, so nothing hangs.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is a folder, a pipe or a device, or too large.
    """
    size = check_regular(path)
    if size > MAX_MEMBER_BYTES:
        raise ValueError(f"{size} bytes, at most {MAX_MEMBER_BYTES} are read")
    with path.open("rb") as file:
        return file.read(size)  # no more: Python makes room for as much as is asked for


def file_sha256(path: Path) -> str:
    """A SHA-256 of a file's bytes."""
    with reading(str(path)):
        check_regular(path)
    with reading(str(path)), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(data: bytes, what: str) -> str:
    """UTF-8 text, with or without a byte order mark."""
    with reading(what):
        return data.decode("utf-8-sig")
