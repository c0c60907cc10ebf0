"""The files below a folder of somebody else's."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metarl.fewshot.datasets.reading import Remarks, read_file, reading

MAX_FILES = 2_000_000


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
    unspeakable: list[str] = []
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
                if not entry.name.isprintable():  # not UTF-8, or with a newline or an escape code
                    unspeakable.append(ascii((base / entry.name).as_posix()))
                elif leads_to(entry) == stat.S_IFDIR:
                    (linked if entry.is_symlink() else real).append(folder / entry.name)
                elif leads_to(entry) == stat.S_IFREG:
                    files.append((base / entry.name).as_posix())
                else:
                    (dead if entry.is_symlink() else odd).append((base / entry.name).as_posix())
            if len(files) > MAX_FILES:
                raise ValueError(f"{root} holds more than {MAX_FILES} files")
    passed_over = {
        "links that lead nowhere": dead,
        "passed over as neither files nor folders": odd,
        "passed over for names that are not UTF-8 or cannot be printed": unspeakable,
        "links passed over, to folders that are read already or lie around this one": sorted(twice),
    }
    return _Listing(tuple(sorted(files)), tuple(sorted(folders)), passed_over)


def leads_to(entry: os.DirEntry[str]) -> int:
    """The type of what an entry of a folder is, or is a link to: one of `stat.S_IF...`; 0 where it leads nowhere."""
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:  # a link to nothing, to itself, or into a folder that is closed
        return 0


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
