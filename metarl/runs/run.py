"""Run folders: what was asked, what happened, and all that is needed to go on.

    config.json      learner, config, source, seed, device, measured choices, environment
    metrics.jsonl    a line an iteration, the same on every repetition: no wall-clock in it
    timings.jsonl    a line an iteration, seconds
    tensorboard/     the same numbers for TensorBoard (metarl.runs.callbacks)
    checkpoints/     the last state and the one before, see `metarl.runs.checkpoints`
    nonfinite.pt     only after a failure: the data that made a number NaN or infinite

A process killed at any moment leaves a folder that `Run.resume` continues from: both logs are cut back
to the last checkpoint, so that with keyed random streams a resumed run equals an uninterrupted one
(`metarl.runs.recovery`). One process at a time writes: `metarl.runs.lock`.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from metarl.errors import NonFiniteError
from metarl.ops.finite import first_non_finite
from metarl.ranks import ALONE, Ranks
from metarl.runs import checkpoints, environment, failure, recovery, structure, tensor_file
from metarl.runs.callbacks import TensorBoard, check_callbacks
from metarl.runs.lock import Lock
from metarl.runs.logs import METRICS, Logs
from metarl.runs.loop import CHECKPOINT_MINUTES, Loop
from metarl.runs.record import (
    CONFIG,
    IDENTITY,
    NamedSource,
    _as_json,
    as_of_today,
    begin,
    build,
    check_identity,
    choice,
    is_fresh,
    new_record,
    read_record,
    write_record,
)
from metarl.runs.recovery import Recovered


class Run:
    """One training run and its folder; made by `create`, `open` or `resume`.

    >>> run = Run.open(runs / "navigation")
    >>> run.learner, run.seed, run.source["name"], len(run.metrics())
    ('maml-trpo', 0, 'metarl/Navigation2D-v0', 1)

    Attributes:
        folder: where it lives.
        learner: the learner's name.
        config: the learner's config; a dict if the run was opened without a config class.
        source: `{"name": ..., "options": {...}}`, where its tasks come from.
        seed: of every stream.
        device: where it computes: where it trains, and where `load` puts what it loads.
        ranks: the processes that train it; `ALONE` where there is one.
        checkpoint_minutes: that may pass between two checkpoints, whatever `loop` counts; infinite: never by time.
        minutes: of training after which this process ends it, whole and resumable; None: at the last iteration.
    """

    def __init__(
        self,
        folder: Path,
        record: dict[str, Any],
        config: Any,
        *,
        device: str,
        lock: Lock | None = None,
        recovered: Recovered | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.learner: str = record["learner"]
        self.source: dict[str, Any] = record["source"]
        self.seed: int = record["seed"]
        self.device = device
        self.ranks: Ranks = ALONE
        self.checkpoint_minutes = CHECKPOINT_MINUTES
        self.minutes: float | None = None
        self._record = record
        self._lock = lock
        if lock is not None:
            weakref.finalize(self, lock.release)
        self._logs = Logs(folder)
        self._recovered = recovered  # what was resumed from, until `restore` gives it
        self._manifest = None if recovered is None else recovered.manifest  # of the last that it resumed or wrote
        self._at: int | None = 0 if self._manifest is None else None
        self._callbacks: tuple[Any, ...] = ()
        self._load: Callable[[Run], Any] | None = None
        self._snapshot: tuple[int, Any] | None = None  # what `restore` gives in place of the last checkpoint

    @classmethod
    def create(
        cls, folder: str | Path, *, learner: str, config: Any, source: NamedSource, seed: int, device: str = "cpu"
    ) -> Self:
        """A new run in an empty or absent folder.

        Raises:
            UserError: the folder holds another run or anything else, or cannot be written; nothing is changed.
        """
        folder = Path(folder)
        record = new_record(learner, config, source, seed, device)
        return cls(folder, record, config, device=device, lock=begin(folder, record))

    @staticmethod
    def open(folder: str | Path, config_class: type | None = None, device: str = "cpu") -> Run:
        """An existing run, to read: nothing in the folder is created or changed.

        Args:
            folder: of the run.
            config_class: the learner's config dataclass; without it `config` is a dict.
            device: where it is to compute, wherever it was trained.

        Raises:
            UserError: there is no run, or its config.json is damaged or does not fit the class.
        """
        folder = Path(folder)
        record = read_record(folder)
        config = record["config"]
        if config_class is not None:
            config = build(config_class, config, f"config of {folder / CONFIG}")
        return Run(folder, record, config, device=device)

    @classmethod
    def resume(
        cls, folder: str | Path, *, learner: str, config: Any, source: NamedSource, seed: int, device: str = "cpu"
    ) -> Self:
        """Continue a run from its last checkpoint, or from the start if it was stopped before the first.

        The learner, the source, the seed and the config must be those of the run, except that
        `iterations` may be raised, unless the config's class says `iterations_may_grow = False` (a schedule
        depends on them, so a longer run would differ from its first iteration on), and that what no number depends
        on may change: `checkpoint_every`, and what the config's class names in `decide_nothing`. The logs are cut
        back to the checkpoint; call `restore` next. A folder whose process was killed before it wrote config.json,
        so an empty one, is begun anew.

        Raises:
            UserError: there is no such folder, it holds another run, or the run is damaged. The fields
                that differ are named, and nothing is changed.
        """
        folder = Path(folder)
        if folder.is_dir() and is_fresh(folder):
            return cls.create(folder, learner=learner, config=config, source=source, seed=seed, device=device)
        old, new = read_record(folder), new_record(learner, config, source, seed, device)
        if old["learner"] == learner:
            old["config"] = as_of_today(type(config), old["config"])
        check_identity(folder, old, new, config)
        record = {**old, "config": new["config"], "device": device}
        recovered, lock = recovery.resume(folder, old, config)
        environment.tell(folder, old, new, None if recovered.manifest is None else recovered.manifest.iteration)
        if old != record:
            write_record(folder, record)
        return cls(folder, record, config, device=device, lock=lock, recovered=recovered)

    @property
    def record(self) -> dict[str, Any]:
        """All that config.json holds, also what made the run; a copy."""
        return copy.deepcopy(self._record)

    def recall(self, name: str, like: Any = object) -> Any | None:
        """A choice remembered by this run, as JSON gives it back, or None; see `metarl.runs.record.choice`."""
        return choice(self._record, self.folder / CONFIG, name, like)

    def remember(self, name: str, value: Any) -> None:
        """Store a choice (JSON) in config.json, for instance a measured plan that a resumed run must reuse."""
        self.check_writable()
        value = _as_json(value, f"the choice {name!r}")
        self._record = {**self._record, "choices": {**self._record["choices"], name: value}}
        write_record(self.folder, self._record)

    def log(self, iteration: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl and one to timings.jsonl; in a loop, `Loop.log` does it.

        Args:
            iteration: what the numbers belong to; the loop counts from 0.
            metrics: numbers that a repetition must reproduce, so no wall-clock.
            timings: seconds.

        Raises:
            NonFiniteError: a number is not finite; nothing is written. What is undefined in an iteration, such
                as the mean return where no episode ended, is left out by the learner.
        """
        self.check_writable()
        self._logs.append(iteration, metrics, timings)

    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl; `iteration` is an integer, null (in files of earlier versions) is NaN."""
        return self._logs.metrics()

    def timings(self) -> list[dict[str, float]]:
        """The lines of timings.jsonl."""
        return self._logs.timings()

    def checkpoint(self, iteration: int, state: Any) -> None:
        """Save all that continuing needs, replacing the checkpoint before.

        Args:
            iteration: completed iterations.
            state: dicts, lists and tuples of tensors, numbers, strings, booleans and None.

        Raises:
            ValueError: the state holds anything else; it is named.
            NonFiniteError: a number of the state is not finite; the checkpoint before stays the last one. Tensors
                whose names are listed in `state["infinite"]` may hold infinities (masks do).
        """
        self.check_writable()
        if place := first_non_finite(state):
            raise NonFiniteError(f"{place} is not finite")
        metrics, timings_bytes = self._logs.flush()
        self._manifest = checkpoints.save(
            self.folder / "checkpoints",
            iteration,
            state,
            run={name: self._record[name] for name in IDENTITY},
            metrics=metrics,
            timings_bytes=timings_bytes,
            before=None if self._manifest is None else self._manifest.file,
        )
        self._at = iteration

    def restore(self, like: Mapping[str, Any] | None = None) -> tuple[int, Any] | None:
        """Completed iterations and state of the last checkpoint, tensors on the CPU; None if there is none.

        Where the disk has spoiled the last one, the newest whole one before it is used, with a `RecoveryWarning`.

        Args:
            like: what the state must look like: entries that it must have, of the same names, types, shapes and
                dtypes (`metarl.runs.structure`). A fresh learner's state is one.

        Raises:
            UserError: every checkpoint is missing or damaged; or the last is another run's, does not look like that,
                or holds a number that is not finite.
        """
        if self._snapshot is not None:
            return self._snapshot
        recovered, self._recovered = self._recovered, None
        if recovered is None:
            recovered = recovery.newest(self.folder, self._record, self.config)
            recovery.warn(recovered)
        if recovered.checkpoint is None:
            return None
        if like is not None:
            structure.check(recovered.checkpoint.state, like, f"the checkpoint {recovered.checkpoint.path}")
        self._manifest, self._at = recovered.manifest, recovered.checkpoint.iteration
        return self._at, recovered.checkpoint.state

    def keep_failure(self, error: NonFiniteError, iteration: int | None = None, state: Any = None) -> None:
        """Write what shows a failure again into nonfinite.pt, and add to the error what became of the training.

        Args:
            error: what failed.
            iteration: in which it did, counted from 0; None after the last.
            state: what `checkpoint` would save.

        See `metarl.runs.failure`.
        """
        self.check_writable()
        error.iteration = iteration
        error.remark = failure.keep(self.folder, self._record, error, state, self.saved)

    def loop(self, total: int, *, checkpoint_every: int, state: Callable[[], Any]) -> Loop:
        """The training loop: iterations, checkpoints, a progress bar and an orderly Ctrl-C.

        A NonFiniteError that leaves it is completed by `keep_failure`.

            with run.loop(config.iterations, checkpoint_every=10, state=lambda: {...}) as loop:
                for iteration in loop:
                    ...
                    loop.log(metrics, timings)

        Args:
            total: iterations of the whole run. They are counted from 0, or from those the restored
                checkpoint has completed, to total - 1.
            checkpoint_every: iterations between checkpoints; there is one at the end in any case.
            state: called between iterations; what `checkpoint` saves.
        """
        return Loop(self, total, checkpoint_every, state, (*self._callbacks, TensorBoard()))

    def attach(self, callbacks: Sequence[Any], load: Callable[[Run], Any] | None = None) -> None:
        """Have callbacks watch the training; call it before the learner's `train`.

        Args:
            callbacks: see `metarl.runs.callbacks`.
            load: gives the trained learner of a run, for callbacks that judge it.

        Raises:
            UserError: one is no callback.
        """
        self._callbacks, self._load = check_callbacks(callbacks), load

    def agent(self, iteration: int, state: Any) -> Any:
        """The learner as a checkpoint of this state would give it; nothing is written.

        Raises:
            ValueError: nobody has said how it is loaded (`attach`).
        """
        if self._load is None:
            raise ValueError("give attach() a `load`: how the learner of a run is loaded")
        now = Run(self.folder, self._record, self.config, device=self.device)
        now._snapshot = (iteration, tensor_file.unpack(checkpoints.pack(state)))
        return self._load(now)

    def withdraw(self) -> None:
        """Remove a run that has not begun, so that its folder may be used again; one with progress is left alone."""
        if self._manifest is None and not (self.folder / METRICS).exists():
            (self.folder / CONFIG).unlink(missing_ok=True)
            self.close()
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # unless something else lies there

    @property
    def completed(self) -> int | None:
        """Iterations done, as last checkpointed or restored; None before a checkpoint that exists was restored."""
        return self._at

    @property
    def saved(self) -> int | None:
        """Iterations done at the last checkpoint; None where there is none."""
        return None if self._manifest is None else self._manifest.iteration

    def check_writable(self) -> None:
        """Raise where the run was opened for reading."""
        if self._lock is None:
            raise ValueError(f"{self.folder} was opened to read; create or resume it to write")
        self._lock.acquire()  # unless it is there still

    def begin(self) -> None:
        """A training loop begins: nothing else of this process may write."""
        if self._lock is not None:
            self._lock.begin()

    def end(self) -> None:
        """The training loop ends: other processes may go on with the run."""
        if self._lock is not None:
            self._lock.end()

    def close(self) -> None:
        """Nothing more will be written: other processes may go on with the run."""
        if self._lock is not None:
            self._lock.release()
