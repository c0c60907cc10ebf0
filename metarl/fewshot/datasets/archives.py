"""Reading other people's files: folders, zip and tar archives, lists. Pictures are in `pictures`.

Archives are read where they lie and never unpacked, so nothing in one can be written anywhere. What
is refused all the same: names that would escape, links, encryption, and anything larger than the
limits. Every way in which a file can be damaged becomes one `UserError` that names the file.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import os
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from PIL import Image

from metarl.errors import UserError

MAX_MEMBERS = 2_000_000
MAX_MEMBER_BYTES = 1 << 28  # a file: 256 MiB
MAX_TOTAL_BYTES = 64 << 30
SHOWN = 8  # names that fit into a line

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
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{what} cannot be read ({reason}); {advice}") from error


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


def read_file(path: Path) -> bytes:
    """The bytes of a regular file of at most `MAX_MEMBER_BYTES`; nothing else is opened, so nothing hangs.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is a folder, a pipe or a device, or too large.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > MAX_MEMBER_BYTES:
        raise ValueError(f"{status.st_size} bytes, at most {MAX_MEMBER_BYTES} are read")
    with path.open("rb") as file:
        return file.read(MAX_MEMBER_BYTES)


def check_name(name: str) -> str:
    """A member's name, if it stays inside its archive.

    Raises:
        ValueError: it is absolute, has a drive, a backslash or a NUL, or climbs out with "..".
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any(mark in name for mark in ("\\", "\0", ":")):
        raise ValueError(f"unsafe member name {name[:80]!r}")
    return name


def file_sha256(path: Path) -> str:
    """A SHA-256 of a file's bytes."""
    with reading(str(path)), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class ZipStore:
    """The files inside a zip archive, read one at a time.

    Attributes:
        path: the archive.
    """

    path: Path

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all files, sorted.

        Raises:
            UserError: the archive is damaged, or holds what it must not.
        """
        with reading(str(self.path)):
            members = self._zip.infolist()
            if len(members) > MAX_MEMBERS:
                raise ValueError(f"{len(members)} members, at most {MAX_MEMBERS} are read")
            files = [member for member in members if not member.is_dir()]
            for member in files:
                check_name(member.filename)
                kind = stat.S_IFMT(member.external_attr >> 16)
                if kind not in (0, stat.S_IFREG):
                    raise ValueError(f"{member.filename[:80]!r} is a link or a device")
                if member.flag_bits & 1:
                    raise ValueError(f"{member.filename[:80]!r} is encrypted")
                if member.file_size > MAX_MEMBER_BYTES:
                    raise ValueError(f"{member.filename[:80]!r} is larger than {MAX_MEMBER_BYTES} bytes")
            if sum(member.file_size for member in files) > MAX_TOTAL_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_TOTAL_BYTES} bytes")
            names = sorted(member.filename for member in files)
            if len(set(names)) != len(names):
                raise ValueError("two members have one name")
            return tuple(names)

    def where(self, name: str) -> str:
        """A file's place, for messages."""
        return f"{self.path}: {name}"

    def read(self, name: str) -> bytes:
        """The bytes of one file (its checksum is verified)."""
        with reading(self.where(name)):
            return self._zip.read(name)

    def fingerprint(self) -> str:
        """A SHA-256 of the archive's bytes."""
        return file_sha256(self.path)


@dataclass(frozen=True)
class FolderStore:
    """The regular files below a folder, those in linked folders too; hidden ones are left out.

    Attributes:
        path: the folder.
    """

    path: Path

    @cached_property
    def _listing(self) -> _Listing:
        return _list(self.path)

    @property
    def names(self) -> tuple[str, ...]:
        """The relative names of all files, with forward slashes, sorted.

        Raises:
            UserError: a folder cannot be listed, or there are too many files.
        """
        return self._listing.files

    @property
    def folders(self) -> tuple[str, ...]:
        """The relative names of all folders below this one, sorted."""
        return self._listing.folders

    @property
    def passed_over(self) -> Remarks:
        """What is neither a file nor a folder to read."""
        return self._listing.passed_over

    def where(self, name: str) -> str:
        """A file's place, for messages."""
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        with reading(self.where(name)):
            return read_file(self.path / name)

    def fingerprint(self) -> str:
        """A SHA-256 of all names, sizes and times of change."""
        digest = hashlib.sha256()
        with reading(str(self.path)):
            for name in self.names:
                status = (self.path / name).stat()
                digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Listing:
    """What lies below a folder."""

    files: tuple[str, ...]
    folders: tuple[str, ...]
    passed_over: Remarks


def _list(root: Path) -> _Listing:
    """Walk through a folder, through links last: a folder that is reached twice is read where it really lies."""
    files: list[str] = []
    folders: list[str] = []
    dead: list[str] = []
    odd: list[str] = []
    twice: list[str] = []
    seen: set[tuple[int, int]] = set()
    real, linked = [root], list[Path]()
    around = {_identity(folder) for folder in root.resolve().parents}
    while real or linked:
        folder = real.pop() if real else linked.pop(0)
        base = folder.relative_to(root)
        with reading(str(folder), "allow it to be read, or remove it"):
            identity = _identity(folder)
            if identity in seen or identity in around:
                twice.append(base.as_posix())
                continue
            seen.add(identity)
            if folder != root:
                folders.append(base.as_posix())
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    (linked if entry.is_symlink() else real).append(folder / entry.name)
                elif entry.is_file():
                    files.append((base / entry.name).as_posix())
                else:
                    (dead if entry.is_symlink() else odd).append((base / entry.name).as_posix())
            if len(files) > MAX_MEMBERS:
                raise ValueError(f"{root} holds more than {MAX_MEMBERS} files")
    passed_over = {
        "links that lead nowhere": dead,
        "passed over as neither files nor folders": odd,
        "links passed over, to folders that are read already or lie around this one": sorted(twice),
    }
    return _Listing(tuple(sorted(files)), tuple(sorted(folders)), passed_over)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


Store = ZipStore | FolderStore


def open_store(path: Path) -> Store:
    """The files of a folder or of a zip archive."""
    return FolderStore(path) if path.is_dir() else ZipStore(path)


def read_tar_gz(path: Path, wanted: tuple[str, ...], max_bytes: int) -> dict[str, bytes]:
    """Some files of a compressed tar archive, in one pass.

    Args:
        path: the archive.
        wanted: the members' names.
        max_bytes: refuse an archive that unpacks to more.

    Raises:
        UserError: it is damaged (its checksum is verified), holds links, escaping names or too much, or
            lacks a wanted member.
    """
    contents: dict[str, bytes] = {}
    with reading(str(path)), gzip.open(path) as plain:
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            total = 0
            for member in archive:
                check_name(member.name)
                if not (member.isreg() or member.isdir()):
                    raise ValueError(f"{member.name[:80]!r} is a link or a device")
                total += member.size
                if total > max_bytes:
                    raise ValueError(f"it unpacks to more than {max_bytes} bytes")
                stream = archive.extractfile(member) if member.name in wanted else None
                if stream is not None:
                    contents[member.name] = stream.read()
        while plain.read(1 << 20):  # to the end, where the checksum is
            if plain.tell() > 2 * max_bytes + (1 << 20):  # headers and padding have room
                raise ValueError(f"it unpacks to more than {max_bytes} bytes")
        if missing := sorted(set(wanted) - set(contents)):
            raise ValueError(f"it lacks {', '.join(missing)}")
    return contents


def read_text(data: bytes, what: str) -> str:
    """UTF-8 text, with or without a byte order mark."""
    with reading(what):
        return data.decode("utf-8-sig")
