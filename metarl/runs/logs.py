"""metrics.jsonl and timings.jsonl: a line an iteration."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from metarl.errors import UserError
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
            with path.open("ab") as file:
                file.write(line(iteration, values))

    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl."""
        return read_lines(self._paths[0])

    def timings(self) -> list[dict[str, float]]:
        """The lines of timings.jsonl."""
        return read_lines(self._paths[1])

    def flush(self) -> tuple[int, int]:
        """Bring both to disk; their bytes, 0 where there is none."""
        for path in self._paths:
            if path.exists():
                sync(path)
        sync(self._folder)
        return self._bytes()

    def check_reaches(self, sizes: tuple[int, int]) -> None:
        """Raise UserError where a log is shorter than it was at a checkpoint."""
        for path, size, there in zip(self._paths, sizes, self._bytes(), strict=True):
            if there < size:
                raise UserError(f"{path} is damaged: it is shorter than at the last checkpoint; train again elsewhere")

    def cut(self, sizes: tuple[int, int]) -> None:
        """Cut both to what they held at a checkpoint."""
        for path, size in zip(self._paths, sizes, strict=True):
            if path.exists():
                os.truncate(path, size)

    def _bytes(self) -> tuple[int, int]:
        metrics, timings = (path.stat().st_size if path.exists() else 0 for path in self._paths)
        return metrics, timings


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
