"""The distinct tasks behind a curve's rows: their means, their numbers where these are few, their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation.statistics import Values

FEW_TASKS = 6  # at most so many are shown one by one
NAMED = 6  # numbers of a task that still make a name
PLACED = 2  # numbers of a task that place it on a line or a map


def task_means(values: Values, task_of: NDArray[np.int64]) -> Values:
    """Means over the rows of each distinct task, `(T, ...)` to `(D, ...)`, in the order of first rows."""
    return np.stack([values[task_of == row].mean(0) for row in np.unique(task_of)])


def small_arrays(arrays: Mapping[str, Any], tasks: int) -> dict[str, Values]:
    """Arrays `(D, ...)` of small tasks, checked.

    Raises:
        ValueError: they are not of D tasks, hold no numbers, or are too many or too large to be told.
    """
    made = {str(name): np.array(values) for name, values in arrays.items()}
    if any(values.ndim == 0 or values.shape[0] != tasks or values.dtype.kind not in "biuf" for values in made.values()):
        raise ValueError(f"task_arrays must hold numbers of each of the {tasks} tasks")
    if sum(values[0].size for values in made.values()) > (most := NAMED if tasks <= FEW_TASKS else PLACED):
        raise ValueError(f"task_arrays of {tasks} tasks are for at most {most} numbers each")
    return made


def task_names(arrays: Mapping[str, Any], rows: Sequence[int]) -> tuple[str, ...]:
    """A name for each of the D tasks: its numbers where they tell them apart, else "task" and its first row."""
    made = {name: np.asarray(values) for name, values in arrays.items()}
    names = [
        ", ".join(f"{name}={_spelled(values[d], bool((values < 0).any()))}" for name, values in made.items())
        for d in range(len(rows))
    ]
    return tuple(names if len(set(names)) == len(rows) else [f"task {row}" for row in rows])


def _spelled(value: Values, signed: bool) -> str:
    numbers = [f"{number:{'+' * signed}.6g}" for number in np.ravel(value)]
    return numbers[0] if np.ndim(value) == 0 else f"({', '.join(numbers)})"
