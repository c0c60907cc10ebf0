"""The training loop: what is logged, checkpointed and interrupted."""

from __future__ import annotations

import contextlib
import signal
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from metarl.errors import NonFiniteError
from metarl.runs.progress import Display


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the iteration was finished and a checkpoint written.

    Attributes:
        folder: of the run.
        iteration: completed iterations.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        super().__init__(f"interrupted after {iteration} iterations; {folder} can be resumed")
        self.folder = folder
        self.iteration = iteration


class Recorder(Protocol):
    """What a loop needs of its `Run`."""

    folder: Path

    @property
    def completed(self) -> int | None:
        """Iterations done, as last checkpointed or restored; None before a checkpoint that exists was restored."""

    @property
    def saved(self) -> int | None:
        """Iterations done at the last checkpoint; None where there is none."""

    def check_writable(self) -> None:
        """Raise where the run was opened for reading."""

    def log(self, iteration: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Append a line to the logs."""

    def checkpoint(self, iteration: int, state: Any) -> None:
        """Write a checkpoint."""

    def keep_failure(self, error: NonFiniteError, iteration: int | None = None, state: Any = None) -> None:
        """Keep the data of a failure."""

    def close(self) -> None:
        """Close the logs."""


class Loop:
    """Iterations of a run; see `Run.loop`."""

    def __init__(self, run: Recorder, total: int, checkpoint_every: int, state: Callable[[], Any]) -> None:
        if run.completed is None:
            raise ValueError(f"{run.folder} has a checkpoint: call restore() and use its state before loop()")
        if total < 0 or checkpoint_every < 1:
            raise ValueError(f"need total >= 0 and checkpoint_every >= 1, got {total} and {checkpoint_every}")
        run.check_writable()
        self._run = run
        self._total = total
        self._every = checkpoint_every
        self._state = state
        self._completed = self._running = run.completed
        self._display = Display(total, self._completed)
        self._stopping = False
        self._previous_handler: Any = None

    def __enter__(self) -> Loop:
        self._display.start()
        # A process that ignores SIGINT (nohup, a background job) goes on ignoring it.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) not in (
            None,
            signal.SIG_IGN,
        ):
            self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __iter__(self) -> Iterator[int]:
        while self._completed < self._total:
            self._running = self._completed
            yield self._completed
            self._completed += 1
            self._display.advance(self._completed)
            if self._stopping:
                self._save()
                raise Interrupted(self._run.folder, self._completed)
            if self._completed % self._every == 0:
                self._save()
        self._save()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
            self._previous_handler = None
        self._display.stop()
        self._run.close()
        if isinstance(error, NonFiniteError):
            self._run.keep_failure(error, self._running, self._state())

    def log(self, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Log numbers under the present iteration; those named `return/...` or `score/...` are shown."""
        self._run.log(self._completed, metrics, timings)
        self._display.show(metrics)

    def _save(self) -> None:
        if self._run.saved != self._completed:
            self._run.checkpoint(self._completed, self._state())

    def _on_interrupt(self, signum: int, frame: types.FrameType | None) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        with contextlib.suppress(RuntimeError):  # the signal may have come while stderr was being written
            self._display.say("stopping after this iteration; Ctrl-C again stops at once")
