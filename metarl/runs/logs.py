"""metrics.jsonl and timings.jsonl: a line an iteration."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.errors import UserError, one_line
from metarl.files import sync
from metarl.ops.finite import check_numbers

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
    complete, _, _ = path.read_bytes().rpartition(b"\n")
    try:
        rows = [json.loads(line) for line in complete.split(b"\n") if line]
        return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]
    except (ValueError, AttributeError):
        raise UserError(f"{path} is damaged: a line of it is not a JSON object") from None


def size(path: Path) -> int:
    """Bytes of a log, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def digest(path: Path, length: int | None = None) -> tuple[int, str]:
    """Bytes and SHA-256 of a log, or of its first `length` bytes, of which there may be fewer."""
    if not path.exists():
        return 0, hashlib.sha256().hexdigest()
    with path.open("rb") as file:
        data = file.read(-1 if length is None else length)
    return len(data), hashlib.sha256(data).hexdigest()


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
    """Each line of a log with what it says; None where it is not whole."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for raw in file:
            try:
                row = json.loads(raw)
            except (ValueError, RecursionError):
                row = None
            whole = raw.endswith(b"\n") and isinstance(row, dict) and type(row.get("iteration")) is int
            yield raw, row if whole else None


def cut(path: Path, length: int) -> None:
    """Cut a log back to its first bytes."""
    if size(path) > length:
        os.truncate(path, length)
