"""Films in the run folders."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from metarl.documents import read_regular
from metarl.errors import UserError, one_line
from metarl.files import write_atomically
from metarl.reporting.page.markup import Section, items
from metarl.reporting.table import escaped
from metarl.runs.run import Run

INLINED = 8 << 20  # bytes of a film that is still put into the page
ALL_INLINED = 64 << 20  # bytes of all films that are
LARGEST = 256 << 20  # bytes of a film that is copied beside the page
ALL = 1 << 30  # bytes of all films together
KINDS = {".gif": "image/gif", ".mp4": "video/mp4"}
MAGIC = {".gif": (0, (b"GIF87a", b"GIF89a")), ".mp4": (4, (b"ftyp",))}  # what stands where in such a film


def video_section(runs: Mapping[str, Run], out: Path) -> list[Section]:
    """Every film in the run folders: inlined where small, else copied beside the page; what is no film is named.

    A film is a regular file in the folder itself: what a link leads to may be anybody's.
    """
    shown, strange, room, left = [], [], ALL_INLINED, ALL
    for i, (name, run) in enumerate(runs.items()):
        for j, path in enumerate(_films(run.folder)):
            caption = f"{name}: {path.name}"
            try:
                size = _check(path)
                if size > left:
                    raise ValueError(f"all films together may have {ALL:,} bytes")
                left -= size
                if size < INLINED and size <= room:
                    source, room = _inlined(path), room - size
                else:
                    source = _beside(path, f"{i}-{j}{path.suffix}", out)
            except (OSError, ValueError) as error:
                strange.append(f"{caption} is left out: {getattr(error, 'strerror', None) or one_line(error)}")
                continue
            film = f'<video controls preload="metadata" src="{source}" aria-label="{escaped(caption)}"></video>'
            if path.suffix == ".gif":
                film = f'<img src="{source}" alt="{escaped(caption)}">'
            shown.append(f"<figure>{film}<figcaption>{escaped(caption)}</figcaption></figure>")
    films = f'<div class="videos">{"".join(shown)}</div>' if shown else ""
    return [Section("Videos", films + items(strange, "limits"))]


def _films(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix in KINDS)


def _check(path: Path) -> int:
    """The bytes of a film.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none, or too large.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no file of the run's own, but a link, a folder or a pipe")
    if status.st_size > LARGEST:
        raise ValueError(f"it has {status.st_size:,} bytes, and at most {LARGEST:,} are shown")
    place, words = MAGIC[path.suffix]
    with path.open("rb") as file:
        beginning = file.read(16)
    if not beginning.startswith(words, place):
        raise ValueError(f"it is no {path.suffix[1:]}")
    return status.st_size


def _inlined(path: Path) -> str:
    return f"data:{KINDS[path.suffix]};base64,{base64.b64encode(read_regular(path, INLINED)).decode()}"


def _beside(path: Path, name: str, out: Path) -> str:
    """Copy a film into a file beside the page, which is named after its place."""
    folder = out / "videos"
    try:
        folder.mkdir(exist_ok=True)
        if os.path.islink(folder):
            raise UserError(f"cannot copy {path} into {folder}: it is a link; remove it")
    except OSError as error:
        raise UserError(f"cannot copy {path} into {folder}: {error.strerror}") from None
    write_atomically(folder / name, read_regular(path, LARGEST))
    return f"videos/{name}"
