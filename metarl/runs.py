"""Run folders: what was asked, what happened, and all that is needed to go on.

    config.json      learner, config, source, seed, device, measured choices, environment
    metrics.jsonl    a line an iteration, the same on every repetition: no wall-clock in it
    timings.jsonl    a line an iteration, seconds
    tensorboard/     the same numbers for TensorBoard
    checkpoints/     the last state, see `metarl.checkpoints`
    nonfinite.pt     only after a failure: the data that made a number NaN or infinite

A process killed at any moment leaves a folder that `Run.resume` continues from: both logs are cut back
to the last checkpoint, so that with keyed random streams a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import os
import platform
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from metarl import __version__, checkpoints
from metarl.errors import NonFiniteError, UserError
from metarl.finite import check_numbers, first_non_finite, reproducer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

VERSION = 1  # of config.json
CONFIG, METRICS, TIMINGS, FAILURE = "config.json", "metrics.jsonl", "timings.jsonl", "nonfinite.pt"
SHOWN = ("return/", "score/")  # metrics whose names begin so are shown beside the progress bar
PLAIN_SECONDS = 60.0  # between two lines of progress where there is no terminal


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


class NamedSource(Protocol):
    """The part of a `Source` that identifies it."""

    @property
    def name(self) -> str:
        """The family's id or the data set's name."""

    def options(self) -> dict[str, Any]:
        """Its preset and options, plain data."""


class Run:
    """One training run and its folder; made by `create`, `open` or `resume`.

    Attributes:
        folder: where it lives.
        learner: the learner's name.
        config: the learner's config; a dict if the run was opened without a config class.
        source: `{"name": ..., "options": {...}}`, where its tasks come from.
        seed: of every stream.
        device: where it trains.
    """

    def __init__(self, folder: Path, record: dict[str, Any], config: Any, *, writable: bool) -> None:
        self.folder = folder
        self.config = config
        self.learner: str = record["learner"]
        self.source: dict[str, Any] = record["source"]
        self.seed: int = record["seed"]
        self.device: str = record["device"]
        self._record = record
        self._writable = writable
        self._manifest = checkpoints.latest(folder / "checkpoints")
        # The iteration that the caller's state belongs to; unknown until an existing checkpoint is restored.
        self._at: int | None = None if self._manifest else 0
        self._writer: SummaryWriter | None = None

    @staticmethod
    def create(
        folder: str | Path, *, learner: str, config: Any, source: NamedSource, seed: int, device: str = "cpu"
    ) -> Run:
        """A new run in an empty or absent folder.

        Raises:
            UserError: the folder holds another run or anything else, or cannot be written; nothing is changed.
        """
        folder = Path(folder)
        record = _new_record(learner, config, source, seed, device)
        if (folder / CONFIG).exists():
            raise UserError(f"{folder} already holds a run; resume it, or choose another folder")
        if folder.exists() and not _is_fresh(folder):
            raise UserError(f"{folder} is not an empty folder; choose another one for the run")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            checkpoints.sync(folder.parent)
            _write_record(folder, record)
        except OSError as error:
            raise UserError(f"{folder} cannot hold a run: {error.strerror}; choose another folder") from None
        return Run(folder, record, config, writable=True)

    @staticmethod
    def open(folder: str | Path, config_class: type | None = None) -> Run:
        """An existing run, to read: nothing in the folder is created or changed.

        Args:
            folder: of the run.
            config_class: the learner's config dataclass; without it `config` is a dict.

        Raises:
            UserError: there is no run, or its config.json is damaged or does not fit the class.
        """
        folder = Path(folder)
        record = _read_record(folder)
        config = record["config"]
        if config_class is not None:
            config = _build(config_class, config, f"config of {folder / CONFIG}")
        return Run(folder, record, config, writable=False)

    @staticmethod
    def resume(
        folder: str | Path, *, learner: str, config: Any, source: NamedSource, seed: int, device: str = "cpu"
    ) -> Run:
        """Continue a run from its last checkpoint, or from the start if it was stopped before the first.

        The learner, the source, the seed and the config must be those of the run, except that
        `iterations` may be raised, unless the config's class says `iterations_may_grow = False` (a schedule
        depends on them, so a longer run would differ from its first iteration on). The logs are cut back to
        the checkpoint; call `restore` next. A folder whose process was killed before it wrote config.json, so
        an empty one, is begun anew.

        Raises:
            UserError: there is no such folder, it holds another run, or the run is damaged. The fields
                that differ are named, and nothing is changed.
        """
        folder = Path(folder)
        if folder.is_dir() and _is_fresh(folder):
            return Run.create(folder, learner=learner, config=config, source=source, seed=seed, device=device)
        old, new = _read_record(folder), _new_record(learner, config, source, seed, device)
        _check_identity(folder, old, new, may_grow=getattr(config, "iterations_may_grow", True))
        changed = {"config": new["config"], "device": device}
        run = Run(folder, {**old, **changed}, config, writable=True)
        run._rewind()
        if any(old[name] != value for name, value in changed.items()):
            _write_record(folder, run._record)
        return run

    @property
    def record(self) -> dict[str, Any]:
        """All that config.json holds, also what made the run; a copy."""
        return copy.deepcopy(self._record)

    def recall(self, name: str) -> Any | None:
        """A choice remembered by this run, as JSON gives it back, or None."""
        return self._record["choices"].get(name)

    def remember(self, name: str, value: Any) -> None:
        """Store a choice (JSON) in config.json, for instance a measured plan that a resumed run must reuse."""
        self._check_writable()
        value = _as_json(value, f"the choice {name!r}")
        self._record = {**self._record, "choices": {**self._record["choices"], name: value}}
        _write_record(self.folder, self._record)

    def log(self, iteration: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl and one to timings.jsonl, and scalars to TensorBoard.

        Args:
            iteration: what the numbers belong to; the loop counts from 0.
            metrics: numbers that a repetition must reproduce, so no wall-clock.
            timings: seconds.

        Raises:
            NonFiniteError: a number is not finite; nothing is written. What is undefined in an iteration, such
                as the mean return where no episode ended, is left out by the learner.
        """
        self._check_writable()
        check_numbers(metrics)
        for name, values in ((METRICS, metrics), (TIMINGS, timings)):
            if "iteration" in values:
                raise ValueError("'iteration' is a field of every line and cannot name a metric")
            with (self.folder / name).open("ab") as file:
                file.write(_line(iteration, values))
        writer = self._tensorboard()
        for name, value in (*metrics.items(), *((f"time/{n}", v) for n, v in timings.items())):
            writer.add_scalar(name, float(value), iteration)

    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl; `iteration` is an integer, null (in files of earlier versions) is NaN."""
        return _read_lines(self.folder / METRICS)

    def timings(self) -> list[dict[str, float]]:
        """The lines of timings.jsonl."""
        return _read_lines(self.folder / TIMINGS)

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
        self._check_writable()
        if place := first_non_finite(state):
            raise NonFiniteError(f"{place} is not finite")
        if self._writer:
            self._writer.flush()
        sizes = {}
        for name, field in ((METRICS, "metrics_bytes"), (TIMINGS, "timings_bytes")):
            path = self.folder / name
            if path.exists():
                checkpoints.sync(path)
            sizes[field] = path.stat().st_size if path.exists() else 0
        checkpoints.sync(self.folder)
        self._manifest = checkpoints.save(self.folder / "checkpoints", iteration, state, **sizes)
        self._at = iteration

    def restore(self) -> tuple[int, Any] | None:
        """Completed iterations and state of the last checkpoint, tensors on the CPU; None if there is none.

        Raises:
            UserError: the checkpoint is missing, damaged or foreign, or a number in it is not finite.
        """
        if not self._writable:  # a training that goes on elsewhere has replaced the checkpoint since
            self._manifest = checkpoints.latest(self.folder / "checkpoints")
        if self._manifest is None:
            return None
        state = checkpoints.load(self.folder / "checkpoints", self._manifest)
        self._at = self._manifest.iteration
        return self._manifest.iteration, state

    def keep_failure(self, error: NonFiniteError, iteration: int | None = None, state: Any = None) -> None:
        """Write what shows a failure again into nonfinite.pt, and add to the error what became of the training.

        Args:
            error: what failed.
            iteration: in which it did, counted from 0; None after the last.
            state: what `checkpoint` would save.

        The file holds the run's identity (learner, config, source, seed, device) and what `finite.reproducer`
        makes of the error; `torch.load(path, weights_only=True)` reads it.
        """
        self._check_writable()
        error.iteration = iteration
        identity = {name: self._record[name] for name in ("metarl", "learner", "config", "source", "seed", "device")}
        path = self.folder / FAILURE
        try:
            checkpoints.write_atomically(path, checkpoints.pack(identity | reproducer(error, state)))
            seen = f"its data are in {path}"
        except OSError as problem:  # a full disk must not hide the failure itself
            seen = f"its data could not be kept in {path} ({problem.strerror})"
        if self._manifest is None:
            kept = "there is no checkpoint yet"
        else:
            kept = f"the last checkpoint, of {self._manifest.iteration} iterations, stays"
        error.remark = f"{seen}; {kept}"

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
        return Loop(self, total, checkpoint_every, state)

    def withdraw(self) -> None:
        """Remove a run that has not begun, so that its folder may be used again; one with progress is left alone."""
        if self._manifest is None and not (self.folder / METRICS).exists():
            (self.folder / CONFIG).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # unless something else lies there

    def close(self) -> None:
        """Flush and close TensorBoard's file; the loop does it on leaving."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def _check_writable(self) -> None:
        if not self._writable:
            raise ValueError(f"{self.folder} was opened to read; create or resume it to write")

    def _tensorboard(self) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and reading needs none

            # Tells TensorBoard to drop what an earlier process logged at or after this step.
            purge = self._manifest.iteration if self._manifest else 0
            self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=purge)
        return self._writer

    def _rewind(self) -> None:
        """Cut the logs back to the last checkpoint and remove what was left half-written."""
        folder, manifest = self.folder / "checkpoints", self._manifest
        sizes = {METRICS: manifest.metrics_bytes if manifest else 0, TIMINGS: manifest.timings_bytes if manifest else 0}
        for name, size in sizes.items():
            path = self.folder / name
            if size > (path.stat().st_size if path.exists() else 0):
                raise UserError(f"{path} is damaged: it is shorter than at the last checkpoint; train again elsewhere")
        if manifest:
            checkpoints.read(folder, manifest)
        checkpoints.tidy(folder, manifest)
        for name, size in sizes.items():
            if (self.folder / name).exists():
                os.truncate(self.folder / name, size)


class Loop:
    """Iterations of a run; see `Run.loop`."""

    def __init__(self, run: Run, total: int, checkpoint_every: int, state: Callable[[], Any]) -> None:
        if run._at is None:
            raise ValueError(f"{run.folder} has a checkpoint: call restore() and use its state before loop()")
        if total < 0 or checkpoint_every < 1:
            raise ValueError(f"need total >= 0 and checkpoint_every >= 1, got {total} and {checkpoint_every}")
        run._check_writable()
        self._run = run
        self._total = total
        self._every = checkpoint_every
        self._state = state
        self._completed = self._running = run._at
        self._display = _Display(total, self._completed)
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
        manifest = self._run._manifest
        if manifest is None or manifest.iteration != self._completed:
            self._run.checkpoint(self._completed, self._state())

    def _on_interrupt(self, signum: int, frame: types.FrameType | None) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        with contextlib.suppress(RuntimeError):  # the signal may have come while stderr was being written
            self._display.say("stopping after this iteration; Ctrl-C again stops at once")


class _Display:
    """A progress bar on a terminal; elsewhere a plain line now and then."""

    def __init__(self, total: int, completed: int) -> None:
        self._console = Console(stderr=True)
        self._total = total
        self._first = completed
        self._shown: dict[str, float] = {}
        self._began = self._printed = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self) -> None:
        self._began = self._printed = time.monotonic()
        if not self._console.is_terminal:
            return
        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.description}", markup=False),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=2,
            speed_estimate_period=600,  # iterations may take a minute each
        )
        self._task = self._progress.add_task("", total=self._total, completed=self._first)
        self._progress.start()

    def show(self, metrics: Mapping[str, float]) -> None:
        self._shown |= {name: float(value) for name, value in metrics.items() if name.startswith(SHOWN)}

    def advance(self, completed: int) -> None:
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=completed, description=self._scores())
        elif time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            seconds = (self._printed - self._began) / (completed - self._first) * (self._total - completed)
            self.say(f"iteration {completed}/{self._total}  {self._scores()}  {seconds / 60:.1f} min left")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        if self._progress:
            self._progress.stop()

    def _scores(self) -> str:
        return "  ".join(f"{name.partition('/')[2]} {value:.4g}" for name, value in self._shown.items())


def _new_record(learner: str, config: Any, source: NamedSource, seed: int, device: str) -> dict[str, Any]:
    return {
        "version": VERSION,
        "metarl": __version__,
        "learner": learner,
        "config": _as_json(dataclasses.asdict(config), "the config"),
        "source": _as_json({"name": source.name, "options": source.options()}, "the source"),
        "seed": int(seed),
        "device": str(device),
        "choices": {},
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "gymnasium": gymnasium.__version__,
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
        },
    }


def _as_json(value: Any, what: str) -> Any:
    """The value as JSON gives it back (tuples become lists)."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} cannot be stored as JSON ({error}): {value}") from None


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    checkpoints.write_atomically(folder / CONFIG, (json.dumps(record, indent=2) + "\n").encode())


_FIELDS = {"learner": str, "config": dict, "source": dict, "seed": int, "device": str, "choices": dict}


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run (no {CONFIG} in it); give a folder that training made") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{path} is damaged: it is not JSON") from None
    if not isinstance(record, dict) or record.get("version") != VERSION:
        raise UserError(f"{path} is no run of this metarl, which reads version {VERSION}")
    if wrong := [name for name, kind in _FIELDS.items() if not isinstance(record.get(name), kind)]:
        raise UserError(f"{path} is damaged: missing or of the wrong type: {', '.join(wrong)}")
    return record


def _is_fresh(folder: Path) -> bool:
    """Whether the folder holds nothing, or only a config.json that was never completed."""
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= {CONFIG + checkpoints.TEMPORARY}


def _check_identity(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], *, may_grow: bool) -> None:
    differing = [
        f"{name} is {before!r} there and {now!r} here"
        for part in ("learner", "source", "seed", "config")
        for name, before, now in _differences(part, old[part], new[part])
        if not (
            may_grow
            and name == "config.iterations"
            and isinstance(before, int)
            and isinstance(now, int)
            and now > before
        )
    ]
    if differing:
        iterations = (
            "iterations may be raised" if may_grow else "iterations too: this learner's schedule depends on them"
        )
        raise UserError(
            f"{folder} holds another run: {'; '.join(differing)}; resume with the same values "
            f"({iterations}), or choose another folder"
        )


def _differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in old or key not in new:
                yield f"{name}.{key}", old.get(key, "absent"), new.get(key, "absent")
            else:
                yield from _differences(f"{name}.{key}", old[key], new[key])
    elif old != new:
        yield name, old, new


def _line(iteration: int, values: Mapping[str, float]) -> bytes:
    numbers = {name: float(value) for name, value in values.items()}
    return (json.dumps({"iteration": int(iteration), **numbers}, allow_nan=False) + "\n").encode()


def _read_lines(path: Path) -> list[dict[str, float]]:
    """The complete lines; the last one may still be in the writing."""
    if not path.exists():
        return []
    complete, _, _ = path.read_bytes().rpartition(b"\n")
    try:
        rows = [json.loads(line) for line in complete.split(b"\n") if line]
        return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]
    except (ValueError, AttributeError):
        raise UserError(f"{path} is damaged: a line of it is not a JSON object") from None


def _build(kind: Any, value: Any, where: str) -> Any:
    """A value of a config's type from its JSON: dataclasses from dicts, tuples from lists."""
    if get_origin(kind) in (Union, types.UnionType):
        for member in get_args(kind):
            with contextlib.suppress(UserError):
                return _build(member, value, where)
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build_dataclass(kind, value, where)
    elif get_origin(kind) is tuple and isinstance(value, list):
        of = get_args(kind)
        each = of[:1] * len(value) if of[-1] is Ellipsis else of
        if len(each) == len(value):
            return tuple(_build(k, item, where) for k, item in zip(each, value, strict=True))
    elif _fits(kind, value):
        return value
    raise UserError(f"the {where} is {value!r}, which is not {getattr(kind, '__name__', kind)}")


def _build_dataclass(kind: Any, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    if unknown := sorted(value.keys() - {field.name for field in dataclasses.fields(kind)}):
        raise UserError(f"the {where} has unknown fields: {', '.join(unknown)}")
    held = {name: _build(hints[name], item, f"{name} in the {where}") for name, item in value.items()}
    try:
        return kind(**held)
    except (TypeError, ValueError) as error:
        raise UserError(f"the {where} does not fit: {error}") from None


def _fits(kind: Any, value: Any) -> bool:
    """Whether a JSON value that needs no building is of the type, as far as a config's types go."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (bool, int, float, str, types.NoneType):
        return type(value) is kind or (kind is float and type(value) is int)
    return not dataclasses.is_dataclass(kind) and get_origin(kind) is not tuple
