"""JSON and files of curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def finite_or_none(value: Any) -> Any:
    """Plain data with every NaN and infinity replaced by None, and tuples and mappings made JSON's."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite_or_none(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_none(entry) for entry in value]
    return value


def dump_json(document: Mapping[str, Any]) -> str:
    """JSON with one top-level entry a line: small enough to commit, still readable."""
    lines = (f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in document.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
