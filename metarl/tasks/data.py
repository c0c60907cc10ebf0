"""Tasks as plain data: named arrays such as `{"goal": (2,)}`, saved, hashed and sent as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from metarl.errors import one_line, shown
from metarl.seeding import Key

Array = NDArray[Any]
Task = Mapping[str, Array]
Uniform = Callable[[tuple[int, ...]], NDArray[np.float64]]
LARGEST = float(np.finfo(np.float32).max)  # of rewards and observations: policies compute in float32
NUMBERS = "biufc"  # kinds of NumPy types
LONGEST = 4096  # bytes of a text in an array that is read
DECIMALS = 9  # of a frozen number: exp, log and powers differ in their last bits from one CPU to the next


class Tasks(Sequence[Task]):
    """A frozen batch of T tasks.

    >>> goals = Tasks({"goal": [[0.0, 0.5], [0.3, -0.2], [1.0, 0.0]]})
    >>> len(goals), goals[1]["goal"].tolist(), goals[:2].arrays["goal"].shape
    (3, [0.3, -0.2], (2, 2))

    Each task has a place: the split it is of and its index there. Random streams are named by places, so a task
    meets the same luck alone, in any batch, in any chunk and on any number of processes, and tasks of other
    splits meet other luck.

    Args:
        arrays: named arrays, each with the task axis first: `(T, ...)`.
        split: the split of all of them; "" where they are of none.
        indices: `(T,)`, their indices within the split; 0 to T - 1 by default.

    An integer index gives one task (a mapping without the task axis); a slice, a boolean mask or an
    integer array gives a smaller batch, whose tasks keep their places. Equality and hash are of the arrays only.

    Raises:
        ValueError: no array was given, their first axes differ, or `indices` is not one number from 0 on a task.
    """

    def __init__(self, arrays: Mapping[str, Any], *, split: str = "", indices: Any = None) -> None:
        frozen = {name: np.array(values) for name, values in sorted(arrays.items())}
        sizes = {values.shape[0] if values.ndim else -1 for values in frozen.values()}
        if len(sizes) != 1 or -1 in sizes:
            shapes = {name: values.shape for name, values in frozen.items()}
            raise ValueError(f"a batch of tasks needs arrays with one common first axis, got {shapes}")
        self._arrays = frozen
        self._size = sizes.pop()
        self._split = split
        self._indices = np.array(np.arange(self._size) if indices is None else indices, dtype=np.int64)
        if self._indices.shape != (self._size,) or (self._indices < 0).any():
            raise ValueError(f"a batch of {self._size} tasks needs as many indices from 0 on, got {self._indices}")
        for values in (*frozen.values(), self._indices):
            values.setflags(write=False)

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The named arrays, read-only, each `(T, ...)`."""
        return dict(self._arrays)

    @property
    def split(self) -> str:
        """The split they are of, "" where of none."""
        return self._split

    @property
    def indices(self) -> NDArray[np.int64]:
        """Their indices within the split `(T,)`, read-only."""
        return self._indices

    def place(self, t: int) -> tuple[str, int]:
        """Split and index of task t: the part of a stream's key that names the task."""
        return self._split, int(self._indices[t])

    def streams(self, key: Key, rows: NDArray[np.int64] | None = None) -> Iterator[np.random.Generator]:
        """The generator of every task, or of some `rows`, below a key: it depends on the task's place alone.

        Each serves only until the next is asked for (`Key.at`).
        """
        return key(self._split).at(self._indices if rows is None else self._indices[rows])

    def at(self, split: str, indices: Any = None) -> Tasks:
        """The same tasks in other places."""
        return Tasks(self._arrays, split=split, indices=indices)

    def cycled(self, n: int) -> Tasks:
        """These tasks in turn, over and over, until there are n, each in a place of its own."""
        return self[np.arange(n) % self._size].at(self._split)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for values in (*self._arrays.values(), self._indices):  # a copy forgets that it is read-only
            values.setflags(write=False)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Task: ...

    @overload
    def __getitem__(self, index: slice | list[Any] | Array) -> Tasks: ...

    def __getitem__(self, index: Any) -> Task | Tasks:
        """One task for an integer, a `Tasks` for anything else NumPy can index with."""
        if isinstance(index, (int, np.integer)):
            if not -self._size <= index < self._size:
                raise IndexError(f"task {index} of {self._size}")
            return {name: values[index] for name, values in self._arrays.items()}
        arrays = {name: values[index] for name, values in self._arrays.items()}
        return Tasks(arrays, split=self._split, indices=self._indices[index])

    def __iter__(self) -> Iterator[Task]:
        return (self[i] for i in range(self._size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tasks) and self.sha256() == other.sha256()

    def __hash__(self) -> int:
        return hash(self.sha256())

    def __repr__(self) -> str:
        return f"Tasks({len(self)}, {{{', '.join(f'{n}: {v.shape}' for n, v in self._arrays.items())}}})"

    def repeat(self, n: int) -> Mapping[str, Array]:
        """Every task n times in a row, as arrays `(T * n, ...)`: the layout of `TaskVectorEnv`."""
        return {name: np.repeat(values, n, axis=0) for name, values in self._arrays.items()}

    def sha256(self) -> str:
        """A hash of names, types, shapes and values; what a saved curve is bound to."""
        digest = hashlib.sha256()
        for name, values in self._arrays.items():
            kind = values.dtype.newbyteorder("<")
            digest.update(f"{name} {kind.str} {values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values, dtype=kind).tobytes())
        return digest.hexdigest()

    def distinct(self) -> NDArray[np.int64]:
        """For every task, the position of the first that equals it (to `DECIMALS`), `(T,)`."""
        first: dict[bytes, int] = {}
        return np.array([first.setdefault(row, t) for t, row in enumerate(row_bytes(self))], dtype=np.int64)

    def to_json(self) -> str:
        """The tasks and their places as JSON; floats are written with every digit."""
        arrays = {n: {"dtype": v.dtype.str, "values": v.tolist()} for n, v in self._arrays.items()}
        return json.dumps({"split": self._split, "indices": self._indices.tolist(), "arrays": arrays})

    @staticmethod
    def from_json(text: str) -> Tasks:
        """The inverse of `to_json`.

        Raises:
            ValueError: the text holds no tasks.
        """
        try:
            document = json.loads(text)
            kinds = {n: np.dtype(a["dtype"]) for n, a in document["arrays"].items()}
            if any(kind.kind not in f"{NUMBERS}U" or kind.itemsize > LONGEST for kind in kinds.values()):
                raise ValueError("they must be numbers or short texts")
            arrays = {n: np.array(a["values"], dtype=kinds[n]) for n, a in document["arrays"].items()}
            return Tasks(arrays, split=str(document["split"]), indices=document["indices"])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"this JSON holds no tasks: {one_line(error)}") from None

    @staticmethod
    def stack(tasks: Sequence[Task]) -> Tasks:
        """A batch of single tasks."""
        return Tasks({name: np.stack([task[name] for task in tasks]) for name in tasks[0]})


def rounded(values: Array) -> Array:
    """Floats to `DECIMALS`, without a negative zero; anything else unchanged."""
    return np.round(values, DECIMALS) + 0.0 if np.issubdtype(values.dtype, np.floating) else values


def row_bytes(tasks: Tasks) -> list[bytes]:
    """Every task as bytes: equal for tasks that are equal to `DECIMALS`."""
    arrays = [rounded(values) for values in tasks.arrays.values()]
    return [b"".join(np.ascontiguousarray(values[i]).tobytes() for values in arrays) for i in range(len(tasks))]


def within_float32(values: Array) -> bool:
    """Whether float32 can hold all of them."""
    return not values.size or bool(-LARGEST <= values.min() <= values.max() <= LARGEST)  # false when one is NaN


def first_wrong(values: Array, wrong: NDArray[np.bool_]) -> str:
    """The first of T tasks' values in which something is wrong `(T, ...)`, in one line."""
    return shown(values[int(np.argmax(wrong.reshape(len(values), -1).any(1)))])
