"""What asks a process to end: Ctrl-C, SIGTERM (Slurm, Kubernetes, `timeout`) and SIGHUP (its terminal is gone).

What a process ignores (nohup's SIGHUP, a background job's SIGINT) it goes on ignoring. Only the main thread takes
signals, and gives them back afterwards.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# Seconds in which a signal only repeats the one before. `timeout` signals a process and then its group, Slurm each
# process of a job, whose parents pass it on too; whoever presses Ctrl-C twice means it.
ECHO: dict[int, float] = {signum: 0.05 if signum == signal.SIGINT else 1.0 for signum in SIGNALS}


class Stopped(KeyboardInterrupt):
    """A signal asks this process to end.

    Attributes:
        signum: which.
    """

    def __init__(self, message: str = "", signum: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signum = signum


def signal_of(error: KeyboardInterrupt) -> int:
    """The signal that raised it: Ctrl-C's unless it says otherwise."""
    return getattr(error, "signum", signal.SIGINT)


def exit_code(error: KeyboardInterrupt) -> int:
    """Of a process that a signal ended, as shells have it: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + signal_of(error)


class Signals:
    """Has a function react to signals, in the main thread, until the context is left.

    Args:
        react: called with the number of a signal that is no echo of the one before.
        numbers: of the signals; those that the process ignores stay ignored.
    """

    _last = -float("inf")  # when any signal was last reacted to, whoever took it

    def __init__(self, react: Callable[[int], None], numbers: Iterable[int] = SIGNALS) -> None:
        self._react = react
        self._numbers = tuple(numbers)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        Signals._last = -float("inf")
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._on)

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _on(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - Signals._last >= ECHO[number]:
            Signals._last = now
            self._react(number)


def stop(number: int) -> None:
    """End at once."""
    raise Stopped(signum=number)


@contextmanager
def raising() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Stopped` as Ctrl-C does, so that a training ends in order; the command line's way.

    In a script of one's own: `with raising(): metarl.train(...)`.
    """
    with Signals(stop):
        yield


@contextmanager
def ignoring() -> Iterator[None]:
    """Signals change nothing any more: last words are being said."""
    with Signals(lambda number: None):
        yield


class Deferred:
    """Keeps a signal until a good moment; another one raises `Stopped` at once.

    Ctrl-C is kept, and of the others those that would raise (`raising`): a program that has not asked for it ends by
    SIGTERM as ever.

    Args:
        told: called with the number of the signal that is kept.
        again: called with that of each later one.

    Attributes:
        signum: of the signal that is kept; None while there is none.
    """

    def __init__(self, told: Callable[[int], None], again: Callable[[int], None] = stop) -> None:
        self.signum: int | None = None
        self._told, self._again = told, again
        self._signals: Signals | None = None

    def __enter__(self) -> Deferred:
        self._signals = Signals(self._keep, [n for n in SIGNALS if n == signal.SIGINT or _raises(n)])
        self._signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._signals is not None:
            self._signals.__exit__()

    def _keep(self, number: int) -> None:
        if self.signum is None:
            self.signum = number
            self._told(number)
        else:
            self._again(number)


def _raises(number: int) -> bool:
    return isinstance(getattr(signal.getsignal(number), "__self__", None), Signals)
