"""Zip and tar archives of somebody else's.

They are read where they lie and never unpacked, so nothing in one can be written anywhere. What is refused all the
same: names that would escape, links, encryption, members that overlap, that unpack to far more than they are, that have
one name, and anything larger than the limits.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from metarl.fewshot.datasets.folders import FolderStore
from metarl.fewshot.datasets.reading import MAX_MEMBER_BYTES, check_regular, file_sha256, reading

MAX_MEMBERS = 500_000  # they are listed before any is read
MAX_DIRECTORY_BYTES = 1 << 28  # of a zip archive that are read at once: its list of members, or a member
MAX_TOTAL_BYTES = 64 << 30
MAX_RATIO, FREE_BYTES = 200, 1 << 20  # a member unpacks to at most 200 times its size, and 1 MiB
MAX_TAR_MEMBERS = 10_000
MAX_HEADER_BYTES = 1 << 20  # that a tar archive says of a member
ZIP_HEADER = 30  # bytes before a member's name, at least


def check_name(name: str) -> str:
    """A member's name, if it stays inside its archive.

    Raises:
        ValueError: it is absolute, has a drive, a backslash or a NUL, or climbs out with "..".
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any(mark in name for mark in ("\\", "\0", ":")):
        raise ValueError(f"unsafe member name {name[:80]!r}")
    return name


class _Sparing(io.RawIOBase):
    """A binary file of which only so much is read at a time, however much an archive says that there is.

    Attributes:
        most: bytes of a read.
    """

    def __init__(self, file: Any, most: int) -> None:
        super().__init__()
        self.most = most
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; all there are where it is negative.

        Raises:
            ValueError: that is more than `most`.
        """
        if size > self.most:
            raise ValueError(f"it asks for {size} bytes at once; at most {self.most} are read")
        data: bytes = self._file.read(size if size >= 0 else self.most + 1)
        if len(data) > self.most:
            raise ValueError(f"more than {self.most} bytes at once")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """The place."""
        return int(self._file.tell())

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether places can be gone to."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@dataclass(frozen=True)
class ZipStore:
    """The files inside a zip archive, read one at a time.

    Attributes:
        path: the archive.
    """

    path: Path

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        check_regular(self.path)
        return zipfile.ZipFile(_Sparing(self.path.open("rb"), MAX_DIRECTORY_BYTES))

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
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{member.filename[:80]!r} is neither stored nor deflated, which alone are read")
                if member.file_size > MAX_MEMBER_BYTES:
                    raise ValueError(f"{member.filename[:80]!r} is larger than {MAX_MEMBER_BYTES} bytes")
                if member.file_size > MAX_RATIO * member.compress_size + FREE_BYTES:
                    raise ValueError(f"{member.filename[:80]!r} unpacks to more than {MAX_RATIO} times its size")
            if sum(member.file_size for member in files) > MAX_TOTAL_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_TOTAL_BYTES} bytes")
            names = sorted(member.filename for member in files)
            if len(set(names)) != len(names):
                raise ValueError("two members have one name")
            places = sorted((member.header_offset, member.compress_size) for member in members)
            for (offset, size), (after, _) in pairwise(places):
                if offset + ZIP_HEADER + size > after:
                    raise ValueError(f"the members at bytes {offset} and {after} overlap")
            return tuple(names)

    def where(self, name: str) -> str:
        """A file's place, for messages."""
        return f"{self.path}: {name}"

    def read(self, name: str) -> bytes:
        """The bytes of one file (its checksum is verified)."""
        with reading(self.where(name)):
            said = self._zip.getinfo(name).file_size
            with self._zip.open(name) as member:  # `ZipFile.read` unpacks all there is, whatever the archive says
                data = member.read(said)
                if len(data) != said or member.read(1):
                    raise ValueError(f"it has not the {said} bytes that its archive says")
            return data

    def fingerprint(self) -> str:
        """A SHA-256 of the archive's bytes."""
        return file_sha256(self.path)


Store = ZipStore | FolderStore


def open_store(path: Path) -> Store:
    """The files of a folder or of a zip archive."""
    return FolderStore(path) if path.is_dir() else ZipStore(path)


def _regular_gzip(path: Path) -> gzip.GzipFile:
    check_regular(path)
    return gzip.open(path)


def read_tar_gz(path: Path, wanted: tuple[str, ...], max_bytes: int) -> dict[str, bytes]:
    """Some files of a compressed tar archive, in one pass.

    Args:
        path: the archive.
        wanted: the members' names.
        max_bytes: refuse an archive that unpacks to more.

    Raises:
        UserError: it is damaged (its checksum is verified), holds links, escaping names, one name twice or too much,
            or lacks a wanted member.
    """
    contents: dict[str, bytes] = {}
    with reading(str(path)), _regular_gzip(path) as plain:
        sparing = _Sparing(plain, MAX_HEADER_BYTES)
        with tarfile.open(fileobj=sparing, mode="r:") as archive:
            total, seen = 0, set[str]()
            for member in archive:
                check_name(member.name)
                if not (member.isreg() or member.isdir()):
                    raise ValueError(f"{member.name[:80]!r} is a link or a device")
                if member.issparse():
                    raise ValueError(f"{member.name[:80]!r} is a sparse file")
                if member.name in seen:
                    raise ValueError(f"two members are called {member.name[:80]!r}")
                seen.add(member.name)
                if len(seen) > MAX_TAR_MEMBERS:
                    raise ValueError(f"more than {MAX_TAR_MEMBERS} members")
                total += member.size
                if total > max_bytes:
                    raise ValueError(f"it unpacks to more than {max_bytes} bytes")
                stream = archive.extractfile(member) if member.name in wanted else None
                if stream is not None:
                    sparing.most = max_bytes
                    contents[member.name] = stream.read()
                    sparing.most = MAX_HEADER_BYTES
        while plain.read(1 << 20):  # to the end, where the checksum is
            if plain.tell() > 2 * max_bytes + (1 << 20):  # headers and padding have room
                raise ValueError(f"it unpacks to more than {max_bytes} bytes")
        if missing := sorted(set(wanted) - set(contents)):
            raise ValueError(f"it lacks {', '.join(missing)}")
    return contents
