"""An input of the command line, the place it is made in, and the doors that make them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

Draw = Callable[[SearchStrategy[Any]], Any]  # a value of a hypothesis strategy


@dataclass(frozen=True)
class Place:
    """Where an input is made and run.

    Attributes:
        folder: empty; the current folder of the input, in which the door writes its files.
        kept: the folder of the runs and curves that inputs may point at; nothing in it may change.
        marker: a file that hostile data try to write by running code (`payload`); it must never appear.
    """

    folder: Path
    kept: Path
    marker: Path

    def write(self, name: str | bytes, data: bytes | str = b"") -> Path:
        """Write a file below the folder."""
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
        return path

    def payload(self, protocol: int = 2) -> bytes:
        """A pickle that writes the marker when it is loaded."""
        return pickle.dumps(_Runs(str(self.marker)), protocol=protocol)


class _Runs:
    """An object whose pickle runs code."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({self.marker!r}, 'w').close()",)


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        words: after `metarl`.
        environment: variables that are set.
        may_change: files of the folder, as patterns, that the command may replace; others that lie there before may
            not change. `leaves` is looked at for a refused input only.
        leaves: files and folders, as patterns, that a refused input may leave behind.
        patience: seconds after which Ctrl-C is sent, where an input asks for time alone; None where there is no
            reason to take long.
        hungry: whether it asks for memory by a number, so that meeting the limit of memory is no fault.
        call: what is called in place of the command line; a `UserError` of it is a refusal.
    """

    words: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    may_change: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    patience: float | None = None
    hungry: bool = False
    call: Callable[[], object] | None = None


Door = Callable[[Draw, Place], Case]
