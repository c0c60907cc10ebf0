"""Which tasks are told by their numbers in a curve, so that a picture can place each task by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl import registry
from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.distinct import FEW_TASKS, NAMED, PLACED
from metarl.evaluation.statistics import Values
from metarl.learning.contract import ScoreKind
from metarl.tasks import Tasks

MOST = 10_000  # tasks whose numbers are kept


def told(tasks: Tasks, kind: ScoreKind) -> Mapping[str, Any] | None:
    """The arrays of distinct tasks that a curve keeps: all of few small tasks, and of many what places them.

    A task is placed by one or two numbers, such as a speed or a goal; what it has besides (the points that
    a regression is shown) is not kept. The classes of a classification place nothing.
    """
    arrays = {name: values for name, values in tasks.arrays.items() if values.dtype.kind in "biuf"}
    if len(tasks) <= FEW_TASKS and len(arrays) == len(tasks.arrays) and _numbers(arrays) <= NAMED:
        return arrays
    small = {name: values for name, values in arrays.items() if values[0].size <= PLACED}
    return small if kind != "accuracy" and len(tasks) <= MOST and 0 < _numbers(small) <= PLACED else None


def _numbers(arrays: Mapping[str, Any]) -> int:
    return sum(values[0].size for values in arrays.values())


def task_numbers(curve: AdaptationCurve) -> Mapping[str, Values] | None:
    """One or two numbers `(D,)` that tell each task, by their names; None where there are none."""
    columns: dict[str, Values] = {}
    for name, values in (curve.task_arrays or {}).items():
        flat = np.asarray(values, dtype=np.float64).reshape(curve.tasks, -1)
        alone = flat.shape[1] == 1
        columns |= {name if alone else f"{name}[{i}]": column for i, column in enumerate(flat.T)}
    telling = {name: column for name, column in columns.items() if np.ptp(column) > 0 and np.isfinite(column).all()}
    return telling if len(telling) in (1, 2) else None


def with_task_arrays(curves: Sequence[AdaptationCurve]) -> list[AdaptationCurve]:
    """Curves on the same tasks, with the tasks' numbers where they can be had.

    A curve of old holds none, but its family's frozen tasks are what they were: they are drawn again, and
    kept if their hash is the curve's.
    """
    known = next((curve.task_arrays for curve in curves if curve.task_arrays is not None), None)
    first = curves[0]
    arrays = _drawn_again(first) if known is None else known
    return list(curves) if arrays is None else [dataclasses.replace(curve, task_arrays=arrays) for curve in curves]


def _drawn_again(curve: AdaptationCurve) -> Mapping[str, Any] | None:
    if curve.family not in registry.families() | registry.datasets():
        return None  # the name of a module in a file is no reason to run it
    try:
        options = dict(curve.options) | ({} if curve.preset is None else {"preset": curve.preset})
        tasks = registry.make_source(curve.family, options).fixed(curve.split, curve.per_task.shape[1])
    except (UserError, ValueError):
        return None
    distinct = tasks[np.array(curve.rows)]
    return told(distinct, curve.score) if tasks.sha256() == curve.task_hash else None
