"""Reading other people's files: folders, zip and tar archives, pictures, lists.

Archives are read where they lie and never unpacked, so nothing in one can be written anywhere. What
is refused all the same: names that would escape, links, encryption, and anything larger than the
limits. Every way in which a file can be damaged becomes one `UserError` that names the file.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metarl.learner import UserError

MAX_MEMBERS = 2_000_000
MAX_MEMBER_BYTES = 1 << 30
MAX_TOTAL_BYTES = 64 << 30
MAX_PIXELS = 1 << 26  # 67 million a picture
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # decoders that only decode (EPS would run Ghostscript)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")

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
    """The files below a folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The relative names of all files, with forward slashes, sorted; hidden ones are left out."""
        with reading(str(self.path)):
            found: list[str] = []
            for folder, subfolders, files in os.walk(self.path):
                subfolders[:] = [name for name in subfolders if not name.startswith(".")]
                base = Path(folder).relative_to(self.path)
                found += [(base / name).as_posix() for name in files if not name.startswith(".")]
                if len(found) > MAX_MEMBERS:
                    raise ValueError(f"it holds more than {MAX_MEMBERS} files")
            return tuple(sorted(found))

    def where(self, name: str) -> str:
        """A file's place, for messages."""
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        with reading(self.where(name)):
            if (self.path / name).stat().st_size > MAX_MEMBER_BYTES:
                raise ValueError(f"larger than {MAX_MEMBER_BYTES} bytes")
            return (self.path / name).read_bytes()

    def fingerprint(self) -> str:
        """A SHA-256 of all names, sizes and times of change."""
        digest = hashlib.sha256()
        with reading(str(self.path)):
            for name in self.names:
                status = (self.path / name).stat()
                digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


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
    found: dict[str, bytes] = {}
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
                    found[member.name] = stream.read()
        while plain.read(1 << 20):  # to the end, where the checksum is
            if plain.tell() > 2 * max_bytes + (1 << 20):  # headers and padding have room
                raise ValueError(f"it unpacks to more than {max_bytes} bytes")
        if missing := sorted(set(wanted) - set(found)):
            raise ValueError(f"it lacks {', '.join(missing)}")
    return found


def decode(data: bytes, what: str, mode: str) -> NDArray[np.uint8]:
    """A picture's pixels.

    Args:
        data: the file's bytes.
        what: its name, for the error.
        mode: Pillow's mode to convert to, "L" or "RGB".

    Returns:
        `(channels, height, width)` uint8.

    Raises:
        UserError: it is not a readable picture.
    """
    with opened(data, what) as picture:
        return pixels_of(picture, mode)


@contextlib.contextmanager
def opened(data: bytes, what: str) -> Iterator[Image.Image]:
    """A picture file's bytes as a PIL image; see `decode`."""
    with reading(what, "replace or remove this picture"), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width}x{picture.height} is more than {MAX_PIXELS} pixels")
        yield picture


def pixels_of(picture: Image.Image, mode: str) -> NDArray[np.uint8]:
    """A picture's pixels `(channels, height, width)` in Pillow's mode "L" or "RGB"."""
    pixels = np.asarray(picture.convert(mode), dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def shrink(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels `(channels, height, width)` resized to `size` (height, width) with Pillow's LANCZOS filter."""
    if pixels.shape[1:] == size:
        return pixels
    resized = [np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.LANCZOS)) for plane in pixels]
    return np.stack(resized)


@dataclass(frozen=True)
class Preparation:
    """How a data set turns a picture into one of its images; a classifier does the same to a user's pictures.

    Attributes:
        mode: Pillow's mode, "L" or "RGB".
        size: (height, width) of the images.
        inverted: pictures show dark ink on light paper, images have ink 255 on paper 0.
    """

    mode: str
    size: tuple[int, int]
    inverted: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("L", "RGB") or min(self.size) < 1:
            raise UserError(f"a preparation has mode L or RGB and a positive size, got {self.mode!r} and {self.size}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return (1 if self.mode == "L" else 3, *self.size)

    def read(self, data: bytes, what: str) -> NDArray[np.uint8]:
        """The image `(channels, height, width)` of a picture file's bytes; see `decode`."""
        return self.finish(decode(data, what, self.mode))

    def of(self, picture: Image.Image) -> NDArray[np.uint8]:
        """The image `(channels, height, width)` of an open picture."""
        return self.finish(pixels_of(picture, self.mode))

    def finish(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pixels `(planes, height, width)` in the right mode to images: shrunk, then inverted."""
        small = shrink(pixels, self.size)
        return 255 - small if self.inverted else small


def read_text(data: bytes, what: str) -> str:
    """UTF-8 text, with or without a byte order mark."""
    with reading(what):
        return data.decode("utf-8-sig")
