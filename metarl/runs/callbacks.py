"""Callbacks: what watches a training, adds numbers of its own to the logs, and may stop it.

    class Judge(Callback):
        def on_start(self, training):
            self.training = training

        def on_iteration(self, metrics):
            metrics["score/mine"] = my_score(self.training.agent())  # logged with the others
            return metrics["score/mine"] < 0.9                        # False stops the training

    metarl.train("maml-trpo", family, out="runs/mine", callbacks=[Judge()])

A class of one's own need not inherit from `Callback`: whatever has one of its methods is a callback, and so is a
function of the metrics. They are called in their order; TensorBoard is the last, and sees what the others added.

What a callback remembers is no part of a checkpoint: where a training is resumed it begins anew, from
`training.completed` on. One that counts over iterations, for instance to stop early, reads them from the logs
(`Run.open(training.folder).metrics()`). The learner's own numbers do not depend on it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.errors import UserError, one_line, shown

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

RAISED = "raised in "  # how the note on what a callback raised begins
HOOKS = ("on_start", "on_iteration", "on_checkpoint", "on_end")


@dataclass(frozen=True)
class Training:
    """The training that a callback watches.

    Attributes:
        folder: of the run.
        learner: the learner's name.
        config: the learner's.
        source: `{"name": ..., "options": {...}}`, where its tasks come from.
        seed: of every stream.
        completed: iterations that were done when it began, 0 unless it was resumed.
        total: iterations of the whole run.
        agent: gives what the learner's `load` would, were it trained until now: something with `curve`.
    """

    folder: Path
    learner: str
    config: Any
    source: Mapping[str, Any]
    seed: int
    completed: int
    total: int
    agent: Callable[[], Any]


class Callback:
    """Watches a training; inherit from it and write the methods that are needed.

    >>> class StopEarly(Callback):
    ...     def on_iteration(self, metrics):
    ...         return metrics["iteration"] < 2 and metrics["return/after"] < 0    # False stops
    >>> small = {"iterations": 5, "tasks": 2, "episodes": 2}
    >>> agent = train("maml-trpo", "metarl/Navigation2D-v0", out="run", callbacks=[StopEarly()], **small)
    >>> len(Run.open("run").metrics())
    3
    """

    def on_start(self, training: Training) -> None:
        """The first iteration is about to begin."""

    def on_iteration(self, metrics: dict[str, Any]) -> bool | None:
        """An iteration is complete.

        Args:
            metrics: `iteration`, counted from 0, and what the learner logged in it (few-shot learners do so now and
                then): its metrics, and seconds as `time/...`. Numbers that are added here are logged too.

        Returns:
            False to stop the training after this iteration: a checkpoint is written, and it can be resumed.
        """
        return None

    def on_checkpoint(self) -> None:
        """A checkpoint is about to be written."""

    def on_end(self) -> None:
        """The training ends: done, stopped, interrupted or failed. Called where `on_start` was."""


def check_callbacks(callbacks: Any) -> tuple[Any, ...]:
    """The callbacks, each with the methods of a `Callback`.

    Raises:
        UserError: one is a class, has none of the methods, or one whose name begins so and is none of them.
    """
    if callable(callbacks) or not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise UserError(f"callbacks are given as a list, got {shown(callbacks)}: callbacks=[...]")
    for callback in callbacks:
        if isinstance(callback, type):
            raise UserError(f"a callback is an object, and {callback.__name__} is a class: give {callback.__name__}()")
        named = [name for name in dir(callback) if name.startswith("on_") and callable(getattr(callback, name))]
        if strange := [name for name in named if name not in HOOKS]:
            raise UserError(f"{name_of(callback)} has {strange[0]}, which nobody calls; there are {', '.join(HOOKS)}")
        if not named and not callable(callback):
            raise UserError(f"{name_of(callback)} is no callback: it needs one of {', '.join(HOOKS)}")
    return tuple(callbacks)


def name_of(callback: Any) -> str:
    """What a callback is called in messages."""
    return str(getattr(callback, "__name__", type(callback).__name__))


class Watchers:
    """The callbacks of a training, called one after the other."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = callbacks
        self._started: list[Any] = []

    def start(self, training: Training) -> None:
        """Begin."""
        for callback in self._callbacks:
            self._started.append(callback)
            _call(callback, "on_start", training)

    def iteration(self, metrics: Mapping[str, Any]) -> tuple[dict[str, float], str]:
        """An iteration is complete: what was added to its metrics, and the name of who stops the training, if any does.

        Raises:
            UserError: a callback answers with what is neither a truth nor None, changes a number of the learner's, or
                adds what is no finite number.
        """
        seen, stopper = dict(metrics), ""
        for callback in self._callbacks:
            before = dict(seen)
            answer = _call(callback, "on_iteration", seen)
            if not isinstance(answer, (bool, np.bool_, type(None))):
                raise UserError(
                    f"{name_of(callback)} must return False to stop, True or None to go on, got {shown(answer)}"
                )
            stopper = stopper or (name_of(callback) if answer is not None and not answer else "")
            _check_added(callback, before, seen)
        return {name: float(value) for name, value in seen.items() if name not in metrics}, stopper

    def checkpoint(self) -> None:
        """A checkpoint is about to be written."""
        for callback in self._callbacks:
            _call(callback, "on_checkpoint")

    def end(self) -> None:
        """The training ends; a callback that fails keeps no other from hearing of it."""
        if self._started:
            try:
                _call(self._started.pop(0), "on_end")
            finally:
                self.end()


def _call(callback: Any, hook: str, *args: Any) -> Any:
    method = getattr(callback, hook, None)
    if method is None and hook == "on_iteration" and callable(callback):
        method = callback  # a function of the metrics
    try:
        return method(*args) if method is not None else None
    except Exception as error:
        raised = error
        if isinstance(error, StopIteration):  # which would end the training's loop as if it were done
            raised = RuntimeError(f"StopIteration: {error}")
            raised.__traceback__ = error.__traceback__
        raised.add_note(f"{RAISED}{hook} of the callback {name_of(callback)}")
        raise raised from error.__cause__


def _check_added(callback: Any, before: Mapping[str, Any], seen: Mapping[Any, Any]) -> None:
    for name, value in before.items():
        if name not in seen or seen[name] is not value:
            raise UserError(f"{name_of(callback)} changed the metric {name!r}; callbacks only add to them")
    for name in seen.keys() - before.keys():
        value = seen[name]
        number = isinstance(value, (bool, int, float, np.number)) or getattr(value, "shape", None) == ()
        if not isinstance(name, str) or not number or not _is_finite(value):
            raise UserError(f"{name_of(callback)} added {name!r}: {shown(value)}; a metric is a finite number")


def _is_finite(value: Any) -> bool:
    try:
        return not np.iscomplexobj(value) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError, RuntimeError):  # no number, or beyond a float's range
        return False


class TensorBoard(Callback):
    """Writes every number into `tensorboard/` of the run folder; part of every training."""

    def __init__(self) -> None:
        self._training: Training | None = None
        self._writer: SummaryWriter | None = None

    def on_start(self, training: Training) -> None:
        """Remember where to write."""
        self._training = training

    def on_iteration(self, metrics: dict[str, Any]) -> None:
        """Write the numbers, if there are any."""
        numbers = {name: value for name, value in metrics.items() if name != "iteration"}
        if not numbers or self._training is None:
            return
        with self._told():
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter  # slow to import

                # Tells TensorBoard to drop what an earlier process logged at or after this step.
                folder, purge = self._training.folder / "tensorboard", self._training.completed
                self._writer = SummaryWriter(str(folder), purge_step=purge)
            for name, value in numbers.items():
                self._writer.add_scalar(name, float(value), metrics["iteration"])

    def on_checkpoint(self) -> None:
        """Flush, so that a resumed training finds all that came before."""
        with self._told():
            if self._writer:
                self._writer.flush()

    def on_end(self) -> None:
        """Close the file."""
        writer, self._writer = self._writer, None
        with self._told():
            if writer:
                writer.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """A full disk, or the like, as one line; TensorBoard's thread has ended by then."""
        try:
            yield
        except OSError as error:
            self._writer = None
            folder = self._training.folder if self._training else "."
            why = error.strerror or one_line(error)
            raise UserError(f"cannot write {folder}/tensorboard: {why}") from None
