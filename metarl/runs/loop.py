"""The training loop: what is logged, watched, checkpointed and interrupted."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from metarl.errors import NonFiniteError, UserError, shown
from metarl.interrupts import Deferred, Stopped
from metarl.ops.finite import check_numbers
from metarl.ranks import Ranks
from metarl.runs.callbacks import Training, Watchers
from metarl.runs.drift import check_alike
from metarl.runs.environment import as_begun
from metarl.runs.progress import Display

CHECKPOINT_MINUTES = 5.0  # between checkpoints, unless the run says otherwise
# An iteration of so many seconds is saved when it ends. Who asks a job to end (Slurm, Kubernetes) kills it 30 s later
# unless told otherwise: shorter iterations can be finished by then, longer ones leave only themselves undone.
LONG = 10.0


class Interrupted(Stopped):
    """Ctrl-C or its like, after the iteration was finished and a checkpoint written.

    Attributes:
        folder: of the run.
        iteration: completed iterations.
        signum: the signal.
    """

    def __init__(self, folder: Path, iteration: int, signum: int = signal.SIGINT) -> None:
        super().__init__(f"interrupted after {iteration} iterations; {folder} can be resumed", signum)
        self.folder = folder
        self.iteration = iteration


class Recorder(Protocol):
    """What a loop needs of its `Run`."""

    folder: Path
    learner: str
    config: Any
    source: dict[str, Any]
    seed: int
    ranks: Ranks
    checkpoint_minutes: float
    minutes: float | None

    @property
    def record(self) -> dict[str, Any]:
        """What config.json holds."""

    @property
    def completed(self) -> int | None:
        """Iterations done, as last checkpointed or restored; None before a checkpoint that exists was restored."""

    @property
    def saved(self) -> int | None:
        """Iterations done at the last checkpoint; None where there is none."""

    def check_writable(self) -> None:
        """Raise where the run was opened for reading."""

    def begin(self) -> None:
        """A training loop begins: nothing else of this process may write."""

    def end(self) -> None:
        """The training loop ends."""

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
        limit: Any = run.minutes
        if limit is not None and (not isinstance(limit, (int, float)) or not limit > 0):
            raise UserError(f"minutes is {shown(limit)}; it must be a number above 0, or not be given")
        minutes: Any = run.checkpoint_minutes
        if not isinstance(minutes, (int, float)) or not minutes >= 0:
            raise UserError(
                f"checkpoint_minutes is {shown(minutes)}; it must be a number from 0 on (inf: never by time)"
            )
        run.check_writable()
        self._run = run
        self._total = total
        self._every = checkpoint_every
        self._state = state
        self._watchers = Watchers(callbacks)
        self._completed = self._running = run.completed
        self._logged: tuple[Mapping[str, float], Mapping[str, float]] | None = None  # in the present iteration
        self._ranks = run.ranks
        self._signum = 0  # that asked any process of the training to end, as all know it; 0 while none did
        self._display = Display(total, self._completed, quiet=not self._ranks.leads)
        self._asked = Deferred(self._say_stopping)
        self._as_begun = as_begun(run.record)
        self._saved_at = self._began = self._started = time.monotonic()

    def __enter__(self) -> Loop:
        self._run.begin()
        self._as_begun.__enter__()
        self._display.start()
        self._asked.__enter__()
        return self

    def __iter__(self) -> Iterator[int]:
        run = self._run
        self._agreed(self._start)
        stopper, self._saved_at = "", time.monotonic()
        self._started = self._saved_at
        while True:
            if (signum := self._told_to_stop()) is not None:
                self._save()
                raise Interrupted(run.folder, self._completed, signum)
            if stopper or self._completed >= self._total:
                break
            self._running, self._logged, self._began = self._completed, None, time.monotonic()
            yield self._completed
            self._completed += 1
            stopper, due = self._agreed(self._tell_and_time)
            self._display.advance(self._completed)
            if due:
                self._save()
        if stopper:
            self._display.say(f"stopped by {stopper} after {self._completed} of {self._total} iterations")
        self._save()

    def _told_to_stop(self) -> int | None:
        """The signal that asked this training to end, if one did; asked once before each iteration and at the end."""
        return self._asked.signum if self._ranks.size == 1 else self._signum or None

    def _agreed(self, step: Callable[[], str]) -> tuple[str, bool]:
        """Who stops the training, by what rank 0 does between iterations, and whether a checkpoint is due.

        What it raises there, all raise. A signal to any process is one to all of them.
        """
        stopper, error = "", None
        if self._ranks.leads:
            try:
                stopper = step()
            except Exception as raised:
                error = raised
        mine = (error is not None, stopper != "", self._ranks.leads and self._is_due(), self._asked.signum or 0)
        failed, stops, due, self._signum = self._ranks.most(*map(int, mine))
        if failed:
            self._ranks.agree(error)
        return stopper or ("rank 0" if stops else ""), bool(due)

    def _start(self) -> str:
        """Tell the callbacks that the training begins."""
        of, done, total = self._run, self._completed, self._total
        self._watchers.start(Training(of.folder, of.learner, of.config, of.source, of.seed, done, total, self._agent))
        return ""

    def _is_due(self) -> bool:
        """Whether a checkpoint is, by the count of iterations or by time; no number depends on it."""
        now = time.monotonic()
        return (
            self._completed % self._every == 0
            or now - self._saved_at >= 60 * self._run.checkpoint_minutes
            or now - self._began >= LONG
        )

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._asked.__exit__()
        self._as_begun.__exit__(None, None, None)
        self._display.stop()
        try:
            self._watchers.end()
        finally:
            self._run.end()
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
            self._write()
            error.add_note(f"{self._run.folder} can be resumed after {self._completed} iterations")
            raise
        if self._logged is not None or added:
            self._run.log(iteration, {**metrics, **added}, timings)
            self._display.show(added)
        return stopper

    def _tell_and_time(self) -> str:
        """`_tell`; where nobody else stops the training, its minutes do when they are over."""
        stopper, limit = self._tell(), self._run.minutes
        over = limit is not None and time.monotonic() - self._started >= 60 * limit and self._completed < self._total
        return stopper or (f"--minutes {limit:g}" if over else "")

    def _agent(self) -> Any:
        return self._run.agent(self._completed, self._state())

    def _save(self) -> None:
        if self._run.saved != self._completed:
            check_alike(self._ranks, self._state(), self._completed)
            self._ranks.together(self._write)
        self._saved_at = time.monotonic()

    def _write(self) -> None:
        """Write a checkpoint, unless there is one of this iteration."""
        if self._run.saved != self._completed:
            self._watchers.checkpoint()
            self._run.checkpoint(self._completed, self._state())

    def _say_stopping(self, signum: int) -> None:
        again = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        with contextlib.suppress(RuntimeError):  # the signal may have come while stderr was being written
            self._display.say(f"stopping after this iteration; {again} again stops at once")
