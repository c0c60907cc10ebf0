"""Curves as text: JSON that is checked when read, and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.errors import UserError, one_line
from metarl.evaluation.statistics import Values
from metarl.learning.contract import Budget

VERSION = 1  # of a curve's JSON
AXES = ("gradient_steps", "env_steps", "shots")  # what a curve may be drawn against


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


def csv_table(
    seeds: Sequence[int], task_of: Sequence[int], axes: Mapping[str, Sequence[int] | None], per_task: Values
) -> str:
    """Scores `(S, T, K+1)` as CSV, one row a seed, task, repeat and k.

    Args:
        seeds: S training seeds.
        task_of: for each of the T rows, the first row of the same task.
        axes: K+1 positions by the name of the axis; None where it was not counted.
        per_task: the scores.
    """
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["seed", "task", "repeat", "k", *axes, "score"])
    positions: list[Sequence[Any]] = [axis or [""] * per_task.shape[2] for axis in axes.values()]
    for (s, t, k), value in np.ndenumerate(per_task):
        task, repeat = task_of[t], task_of[:t].count(task_of[t])
        rows.writerow([seeds[s], task, repeat, k, *(axis[k] for axis in positions), repr(float(value))])
    return out.getvalue()


def curve_fields(document: Any, kind: type) -> dict[str, Any]:
    """The fields of a curve, a dataclass, from its JSON.

    Raises:
        UserError: it is no curve of this version, or a field is missing or of the wrong type.
    """
    if not isinstance(document, dict):
        raise UserError("it must be a JSON object")
    if document.get("version") != VERSION:
        raise UserError(f"its version must be {VERSION}, got {document.get('version')!r}")
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in document:
            fields[field.name] = _checked(field.name, document[field.name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"it lacks {field.name!r}")
    fields.setdefault("trained", bool(fields.get("config")))  # of old, only agents that are not lacked a config
    return fields


def _checked(name: str, value: Any) -> Any:
    """A field of the JSON as the dataclass holds it, or a UserError."""
    allowed: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("agent", "family", "split", "task_hash", "protocol", "score"), (str,)),
        **dict.fromkeys(("seeds", "per_task"), (list,)),
        **dict.fromkeys(AXES, (list, type(None))),
        **dict.fromkeys(("random", "oracle", "best_arm"), (int, float, type(None))),
        **dict.fromkeys(("options", "config"), (dict,)),
        "preset": (str, type(None)),
        "unseen": (bool,),
        "evaluation_seed": (int,),
        "budget": (dict, type(None)),
        "regret": (list, type(None)),
        "horizon": (int, type(None)),
        "task_of": (list, type(None)),
        "task_arrays": (dict, type(None)),
        "trained": (bool,),
    }
    if type(value) not in allowed[name]:
        kinds = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed[name])
        raise UserError(f"{name!r} must be {kinds}, got {type(value).__name__}")
    if name in ("seeds", "task_of", *AXES) and value is not None:
        if any(type(entry) is not int for entry in value):
            raise UserError(f"{name!r} must hold integers")
        return tuple(value)
    try:
        if name == "regret" and value is not None:
            return tuple(float(entry) for entry in value)
        if name == "per_task":
            return np.array(value, dtype=np.float64)  # null becomes NaN
        if name == "budget" and value is not None:
            return Budget(**value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name!r} is malformed: {one_line(error)}") from None
    return value
