"""metrics.jsonl and timings.jsonl: a line an iteration."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.documents import read_regular
from metarl.errors import UserError, one_line, shown
from metarl.files import sync
from metarl.ops.finite import check_numbers

LARGEST = 256 << 20  # bytes of a log that is read
LONGEST_LINE = 1 << 20
LINES = 1_000_000
NUMBERS = 5_000_000  # of all its lines together
LARGEST_NUMBER = sys.float_info.max
METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"


class Logs:
    """Both logs of a run folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths = folder / METRICS, folder / TIMINGS

    def append(self, iteration: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Add a line to each; see `Run.log`."""
        check_numbers(metrics)
        for path, values in zip(self._paths, (metrics, timings), strict=True):
            if "iteration" in values:
                raise ValueError("'iteration' is a field of every line and cannot name a metric")
            try:
                with path.open("ab") as file:
                    file.write(line(iteration, values))
            except OSError as error:
                raise UserError(f"cannot write {path}: {error.strerror or one_line(error)}") from None

    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl."""
        return read_lines(self._paths[0])

    def timings(self) -> list[dict[str, float]]:
        """The lines of timings.jsonl."""
        return read_lines(self._paths[1])

    def flush(self) -> tuple[tuple[int, str], int]:
        """Bring both to disk; bytes and SHA-256 of metrics.jsonl, and bytes of timings.jsonl."""
        for path in self._paths:
            if path.exists():
                sync(path)
        sync(self._folder)
        return digest(self._paths[0]), size(self._paths[1])


def line(iteration: int, values: Mapping[str, float]) -> bytes:
    """One line of a log, with its newline."""
    numbers = {name: float(value) for name, value in values.items()}
    return (json.dumps({"iteration": int(iteration), **numbers}, allow_nan=False) + "\n").encode()


def read_lines(path: Path) -> list[dict[str, float]]:
    """The complete lines; the last one may still be in the writing."""
    if not path.exists():
        return []
    try:
        complete, _, _ = read_regular(path, LARGEST).rpartition(b"\n")
        return _numbers(complete)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {one_line(error)}") from None


def _numbers(complete: bytes) -> list[dict[str, float]]:
    """What lines say: numbers by name, `iteration` among them, which rises from line to line."""
    rows: list[dict[str, float]] = []
    numbers, last = 0, -1
    if complete.count(b"\n") >= LINES:
        raise ValueError(f"it has more than {LINES:,} lines")
    for i, text in enumerate(complete.split(b"\n"), 1):
        if not text:
            continue
        row = _row(text, i)
        if not row["iteration"] > last:
            raise ValueError(f"line {i} is of iteration {row['iteration']}, after one of {last}")
        numbers, last = numbers + len(row), int(row["iteration"])
        if numbers > NUMBERS:
            raise ValueError(f"it holds more than {NUMBERS:,} numbers")
        rows.append(row)
    return rows


def _row(text: bytes, i: int) -> dict[str, float]:
    if len(text) > LONGEST_LINE:
        raise ValueError(f"line {i} has {len(text):,} bytes, and at most {LONGEST_LINE:,} are read")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or type(row.get("iteration")) is not int:
        raise ValueError(f"line {i} is not a JSON object with an iteration")
    read: dict[str, float] = {}
    for name, value in row.items():
        if value is None:
            value = math.nan
        elif type(value) not in (int, float) or not abs(value) <= LARGEST_NUMBER:
            raise ValueError(f"line {i} says that {shown(name)} is {shown(value)}, and not a finite number")
        read[sys.intern(name)] = value
    return read


def size(path: Path) -> int:
    """Bytes of a log, 0 where there is none.

    Raises:
        UserError: something else lies in its place.
    """
    if not os.path.lexists(path):
        return 0
    if not path.is_file():
        raise UserError(f"{path} is damaged: it is no regular file")
    return path.stat().st_size


def digest(path: Path, length: int | None = None) -> tuple[int, str]:
    """Bytes and SHA-256 of a log, or of its first `length` bytes, of which there may be fewer."""
    seen, read, left = hashlib.sha256(), 0, size(path)
    if left:
        with path.open("rb") as file:
            while data := file.read(min((left if length is None else length) - read, 1 << 20)):
                seen.update(data)
                read += len(data)
    return read, seen.hexdigest()


def before(path: Path, iteration: int) -> tuple[int, int]:
    """How many lines a log begins with that are whole and of earlier iterations; and their bytes."""
    lines = length = 0
    for raw, row in _rows(path):
        if row is None or not row["iteration"] < iteration:
            break
        lines, length = lines + 1, length + len(raw)
    return lines, length


def last_iteration(path: Path) -> int:
    """The highest iteration of a log, -1 where it says none."""
    return max((row["iteration"] for _, row in _rows(path) if row is not None), default=-1)


def _rows(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each line of a log with what it says; None where it is not whole, and nothing after one that is too long."""
    if not size(path):
        return
    with path.open("rb") as file:
        while raw := file.readline(LONGEST_LINE):
            try:
                row = json.loads(raw)
            except (ValueError, RecursionError):
                row = None
            whole = raw.endswith(b"\n") and isinstance(row, dict) and type(row.get("iteration")) is int
            yield raw, row if whole else None
            if not raw.endswith(b"\n"):
                return


def cut(path: Path, length: int) -> None:
    """Cut a log back to its first bytes."""
    if size(path) > length:
        os.truncate(path, length)
