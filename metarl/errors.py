"""What can go wrong for a user, and how it is said."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

LONGEST = 300  # characters of a value in an error
NAMES = "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM EIO ESTALE ENOENT ENOTDIR EMFILE ENFILE ENXIO"
MACHINE = {getattr(errno, name) for name in NAMES.split() if hasattr(errno, name)}  # what no code of ours can help
SHOWN = 8  # numbers of a task's parameter that still fit into a line


class UserError(Exception):
    """A mistake in what the user gave: one line that says what was given, what is allowed, what to do.

    >>> try:
    ...     make_family("metarl/Navigaton2D-v0")
    ... except UserError as error:
    ...     print(str(error)[:70])
    unknown family 'metarl/Navigaton2D-v0'; did you mean metarl/Navigation

    The command line prints it and exits with code 2.

    Attributes:
        everywhere: whether every process of the training has it, so that one says it for all (`metarl.ranks`).
    """

    everywhere = False


def unknown(kind: str, name: str, allowed: Iterable[str]) -> UserError:
    """The error that a name is not one of those allowed; it says the nearest of them, and all."""
    names = list(allowed)
    lowered = {one.lower(): one for one in names}
    nearest = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.4)
    hint = f"did you mean {lowered[nearest[0]]}? " if nearest else ""
    return UserError(f"unknown {kind} {name!r}; {hint}choose from {', '.join(names) or 'none: there are none here'}")


class NonFiniteError(ArithmeticError):
    """A number that is NaN or infinite where learning or judging needs a finite one: the work stops there.

    The command line prints it as one line and exits with code 3. Training adds the iteration and writes the
    failing data into the run folder (`metarl.runs.run.Run.keep_failure`).

    Args:
        what: which number is what, such as "loss/query is nan".
        tasks: positions in the batch of the tasks it belongs to; none where it belongs to all, or to no task.
        of: size of that batch of tasks; None where there is no such batch.
        task: parameters of the tasks concerned by name, each `(n, ...)`.
        data: what shows it again, by name: arrays, tensors and numbers.
        environment: whether an environment gave it, so that no setting of the learner is to blame.
        row: of a vector environment that it belongs to, where there is one.

    Attributes:
        iteration: of the training, counted from 0; None outside of one.
        remark: what became of the training, in words.
        everywhere: whether every process of the training has it, so that one says it for all (`metarl.ranks`).
    """

    everywhere = False

    def __init__(
        self,
        what: str,
        *,
        tasks: Sequence[int] = (),
        of: int | None = None,
        task: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        environment: bool = False,
        row: int | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.tasks = list(tasks)
        self.of = of
        self.task = dict(task or {})
        self.data = dict(data or {})
        self.environment = environment
        self.row = row
        self.iteration: int | None = None
        self.remark = ""

    def __str__(self) -> str:
        """The whole line."""
        when = "" if self.iteration is None else f"training stopped in iteration {self.iteration}: "
        return "; ".join(part for part in (f"{when}{self.what}{self._which()}", self.remark, self._cure()) if part)

    def _cure(self) -> str:
        if self.environment:
            return "mend the environment"
        if self.iteration is None:
            return (
                "look at the data, or at the network that gives it for them; a run that diverged is to be trained again"
            )
        return "smaller step sizes are the usual cure"

    def _which(self) -> str:
        if self.of is None:
            return ""
        if not self.tasks:
            return f", of all {self.of} tasks together" if self.of > 1 else ""
        if len(self.tasks) > 1:
            first = ", ".join(map(str, self.tasks[:SHOWN])) + (", ..." if len(self.tasks) > SHOWN else "")
            return f", in {len(self.tasks)} of {self.of} tasks ({first})"
        floats = {name: values[0] for name, values in self.task.items() if values.dtype.kind == "f"}
        short = [f"{name} {values.tolist()}" for name, values in floats.items() if values.size <= SHOWN]
        return f", in task {self.tasks[0]}" + (f" ({', '.join(short)})" if short else "")


def shown(value: Any) -> str:
    """A value as one short line of an error; arrays as lists."""
    plain = {name: _plain(one) for name, one in value.items()} if isinstance(value, Mapping) else _plain(value)
    text = " ".join(repr(plain).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def of_machine(error: OSError) -> str:
    """What a file system refuses, as one line: which file, and why."""
    return f"{error.filename}: {error.strerror}" if error.filename is not None else one_line(error)


def printable(text: str) -> str:
    """Text without letters that cannot be printed: no code that moves a cursor, hides or turns round what is read."""
    return text if text.isprintable() else "".join(one if one.isprintable() or one == "\n" else " " for one in text)


def one_line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
