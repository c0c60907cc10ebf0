"""Where data sets lie, and fetching the files that are missing.

A download goes to `NAME.part` beside its target, resumes where it stopped, is checked, and only then
takes its name, in one step: a file that is there is whole.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from metarl.errors import UserError, shown

CHUNK = 1 << 16
TIMEOUT = 20.0  # seconds without an answer

Report = Callable[[int, int | None], None]  # bytes so far, bytes in all if known


def cache_folder() -> Path:
    """The user's folder for what can be made again: METARL_CACHE, else the system's usual place."""
    if named := os.environ.get("METARL_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "metarl"


def data_folder(data_root: Path | None) -> Path:
    """Where data sets lie: the folder given, else METARL_DATA, else the user's cache folder.

    Raises:
        UserError: no folder can have that name, or it may not be looked into.
    """
    named = data_root or os.environ.get("METARL_DATA")
    folder = Path(named) if named else cache_folder() / "data"
    try:
        os.stat(folder / "any")
    except (FileNotFoundError, NotADirectoryError):
        pass  # who wants a file of it says so
    except OSError as error:
        raise UserError(f"the data folder {shown(str(folder))} cannot be used: {error.strerror}") from None
    return folder


@dataclass(frozen=True)
class Remote:
    """A file that can be fetched.

    Attributes:
        path: where it belongs, relative to the data folder.
        urls: mirrors, tried in order; all serve the same bytes.
        checksum: "md5:..." or "sha256:...", as its publisher states it; checks for accidents and
            wrong files (the content is checked again when it is read).
        max_bytes: a file larger than this is refused.
    """

    path: str
    urls: tuple[str, ...]
    checksum: str
    max_bytes: int


def offline() -> bool:
    """Whether METARL_OFFLINE forbids downloads."""
    return os.environ.get("METARL_OFFLINE", "").lower() not in ("", "0", "false", "no")


def obtain(root: Path, remote: Remote, layout: str) -> Path:
    """A file of a data set, fetched if it is missing.

    Args:
        root: the data folder.
        remote: the file.
        layout: what the data set's folder should look like, for the error.

    Raises:
        UserError: it is missing, and could not or may not be fetched.
    """
    target = root / remote.path
    if target.is_file():
        return target
    if offline():
        raise UserError(f"{target} is missing and METARL_OFFLINE forbids fetching it; expected: {layout}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _progress(target.name) as report:
            fetch(remote, target, report)
    except OSError as error:
        raise UserError(f"{target} is missing and cannot be written ({error}); expected: {layout}") from error
    except UserError as error:
        raise UserError(f"{target} is missing: {error}; expected: {layout}") from error
    return target


class _progress:  # noqa: N801 - used as a function
    """A progress bar on the terminal's error stream; silent elsewhere."""

    def __init__(self, name: str) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name)

    def __enter__(self) -> Report:
        self._bar.start()
        return lambda done, total: self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def fetch(remote: Remote, target: Path, report: Report = lambda done, total: None) -> None:
    """Fetch a file from the first mirror that serves it whole.

    Raises:
        UserError: no mirror did; lists what each answered.
        OSError: it cannot be written here.
    """
    part = target.with_name(target.name + ".part")
    refusals: list[str] = []
    for url in remote.urls:
        resumed = part.exists()
        problem = _fetch_from(url, remote, part, report)
        if problem == "wrong checksum" and resumed:  # the old part may be to blame: once more from the start
            problem = _fetch_from(url, remote, part, report)
        if problem is None:
            os.replace(part, target)
            return
        refusals.append(f"{url}: {problem}")
        if part.exists() and not part.stat().st_size:
            part.unlink()
    raise UserError("no mirror served it (" + "; ".join(refusals) + ")")


def _fetch_from(url: str, remote: Remote, part: Path, report: Report) -> str | None:
    """Bring `part` to completion; None, or what went wrong. A wrong part is removed, a short one kept."""
    if not url.startswith(("https://", "http://")):
        return "not an http address"
    try:
        with part.open("ab") as file:
            problem = _receive(url, file, remote.max_bytes, report)
            file.flush()
            os.fsync(file.fileno())
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    if problem is None and not _matches(part, remote.checksum):
        problem = "wrong checksum"
    if problem in ("wrong checksum", "larger than expected"):
        part.unlink(missing_ok=True)
    return problem


def _receive(url: str, file: BinaryIO, max_bytes: int, report: Report) -> str | None:
    """Append what is missing of `url` to `file`; None, or what went wrong."""
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": "metarl", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                return None  # nothing is missing, or the part is wrong: the checksum tells
        raise
    with response:
        begins = f"bytes {have}-"
        if have and not (
            response.status == http.HTTPStatus.PARTIAL_CONTENT
            and response.headers.get("Content-Range", "").startswith(begins)
        ):
            file.truncate(0)  # the whole file is coming
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if (total or 0) > max_bytes:
            return "larger than expected"
        while chunk := response.read(CHUNK):
            have += len(chunk)
            if have > max_bytes:
                return "larger than expected"
            file.write(chunk)
            report(have, total)
    return None if total is None or have == total else f"stopped after {have} of {total} bytes"


def _matches(path: Path, checksum: str) -> bool:
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest() == expected
