"""metrics.jsonl and timings.jsonl: a line an iteration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from metarl.errors import UserError


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
