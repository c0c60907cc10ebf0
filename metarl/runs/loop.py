"""The training loop: what is logged, watched, checkpointed and interrupted."""

from __future__ import annotations

import contextlib
import signal
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from metarl.errors import NonFiniteError
from metarl.ops.finite import check_numbers
from metarl.runs.callbacks import Training, Watchers
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
    learner: str
    config: Any
    source: dict[str, Any]
    seed: int

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

    def agent(self, iteration: int, state: Any) -> Any:
        """The learner as a checkpoint of this state would give it."""

    def keep_failure(self, error: NonFiniteError, iteration: int | None = None, state: Any = None) -> None:
        """Keep the data of a failure."""


class Loop:
    """Iterations of a run; see `Run.loop`."""

    def __init__(
        self, run: Recorder, total: int, checkpoint_every: int, state: Callable[[], Any], callbacks: Sequence[Any] = ()
    ) -> None:
        if run.completed is None:
            raise ValueError(f"{run.folder} has a checkpoint: call restore() and use its state before loop()")
        if total < 0 or checkpoint_every < 1:
            raise ValueError(f"need total >= 0 and checkpoint_every >= 1, got {total} and {checkpoint_every}")
        run.check_writable()
        self._run = run
        self._total = total
        self._every = checkpoint_every
        self._state = state
        self._watchers = Watchers(callbacks)
        self._completed = self._running = run.completed
        self._logged: tuple[Mapping[str, float], Mapping[str, float]] | None = None  # in the present iteration
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
        run = self._run
        self._watchers.start(
            Training(
                run.folder, run.learner, run.config, run.source, run.seed, self._completed, self._total, self._agent
            )
        )
        while self._completed < self._total:
            self._running, self._logged = self._completed, None
            yield self._completed
            self._completed += 1
            stopper = self._tell()
            self._display.advance(self._completed)
            if self._stopping:
                self._save()
                raise Interrupted(self._run.folder, self._completed)
            if stopper:
                self._display.say(f"stopped by {stopper} after {self._completed} of {self._total} iterations")
                break
            if self._completed % self._every == 0:
                self._save()
        self._save()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
            self._previous_handler = None
        self._display.stop()
        try:
            self._watchers.end()
        finally:
            if isinstance(error, NonFiniteError):
                self._run.keep_failure(error, self._running, self._state())

    def log(self, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Log numbers under the present iteration, once; those named `return/...` or `score/...` are shown.

        Args:
            metrics: numbers that a repetition must reproduce, so no wall-clock.
            timings: seconds.

        Raises:
            NonFiniteError: a metric is not finite.
            ValueError: the iteration has been logged already.
        """
        if self._logged is not None:
            raise ValueError(f"iteration {self._completed} is logged twice")
        check_numbers(metrics)
        self._logged = metrics, timings
        self._display.show(metrics)

    def _tell(self) -> str:
        """Have the callbacks see the iteration and write its line; the name of who stops the training, if any does.

        What a callback raises leaves the run as after an orderly stop.
        """
        iteration, (metrics, timings) = self._running, self._logged or ({}, {})
        times = {f"time/{name}": value for name, value in timings.items()}
        try:
            added, stopper = self._watchers.iteration({"iteration": iteration, **metrics, **times})
        except BaseException as error:
            if self._logged is not None:
                self._run.log(iteration, metrics, timings)
            self._save()
            error.add_note(f"{self._run.folder} can be resumed after {self._completed} iterations")
            raise
        if self._logged is not None or added:
            self._run.log(iteration, {**metrics, **added}, timings)
            self._display.show(added)
        return stopper

    def _agent(self) -> Any:
        return self._run.agent(self._completed, self._state())

    def _save(self) -> None:
        if self._run.saved != self._completed:
            self._watchers.checkpoint()
            self._run.checkpoint(self._completed, self._state())

    def _on_interrupt(self, signum: int, frame: types.FrameType | None) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        with contextlib.suppress(RuntimeError):  # the signal may have come while stderr was being written
            self._display.say("stopping after this iteration; Ctrl-C again stops at once")
