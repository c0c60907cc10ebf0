"""The training loop of every few-shot learner: resumable bit for bit, means of what it saw in the log."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from metarl.errors import NonFiniteError, UserError
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.archives import DataWarning, some
from metarl.fewshot.datasets.images import ImageSource
from metarl.learning.contract import ScoreKind
from metarl.meta import outer
from metarl.ops import finite
from metarl.runs.run import Run
from metarl.tasks import Tasks

UNNAMED = "folder"  # the data set whose classes are the user's, and were split otherwise before runs remembered them
TRAINED_ON = "trained_on"  # what a run calls the classes it remembers
Strategy = Literal["auto", "loop", "threads", "vmap"]


class SupervisedSource(Protocol):
    """A `Source` whose tasks become tensors."""

    @property
    def kind(self) -> ScoreKind:
        """How its tasks are scored."""

    def fixed(self, split: str, n: int) -> Tasks:
        """The first n of the split's frozen tasks."""

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Tasks:
        """Draw n fresh tasks."""

    def batch(self, tasks: Tasks, device: torch.device | str = "cpu") -> Batch:
        """Their support and query data."""


class Settings(Protocol):
    """What the loop needs of a learner's config."""

    @property
    def iterations(self) -> int:
        """Iterations in all."""

    @property
    def checkpoint_every(self) -> int:
        """Iterations between checkpoints."""

    @property
    def log_every(self) -> int:
        """Iterations between lines of the log."""


@dataclass(frozen=True)
class Learnable:
    """What training changes.

    Attributes:
        tensors: every tensor a checkpoint must hold, by name: parameters, frozen ones too, and buffers. Asked anew
            each time, since a module may replace a buffer rather than change it in place.
        optimiser: made over the parameters among them.
        step_size: the optimiser's step size in an iteration, counted from 0.
    """

    tensors: Callable[[], Mapping[str, Tensor]]
    optimiser: torch.optim.Optimizer
    step_size: Callable[[int], float]


def fit(
    run: Run,
    config: Settings,
    what: Learnable,
    draw: Callable[[int], Any],
    step: Callable[[int, Any], Mapping[str, Tensor]],
) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one.

    Args:
        run: where it is logged and saved.
        config: how long, and how often.
        what: changed in place.
        draw: what an iteration learns from: `Tasks`, or named tensors.
        step: given an iteration and what was drawn for it, leaves the gradient in the parameters' `.grad` and returns
            scalars to log, of which metrics.jsonl holds means over `log_every` iterations.

    Raises:
        NonFiniteError: a scalar, the gradient or a tensor is not finite. The optimiser takes no step with such a
            gradient, and what it spoils is not saved.
    """

    def watched(iteration: int, data: Any) -> dict[str, float]:
        numbers = {name: float(value.detach()) for name, value in step(iteration, data).items()}
        finite.check_numbers(numbers)
        finite.check_gradient(what.tensors())
        return numbers

    recent: dict[str, list[float]] = {}
    masks = finite.masks(what.tensors(), what.optimiser)
    restored = run.restore()
    if restored is not None:
        held = restored[1]
        put_back(what.tensors(), held["params"], run)
        what.optimiser.load_state_dict(held["optimiser"])
        recent = held["recent"]

    def state() -> dict[str, Any]:
        saved = {"params": dict(what.tensors()), "optimiser": what.optimiser.state_dict(), "recent": recent}
        return saved | ({"infinite": masks} if masks else {})

    started = time.perf_counter()
    with run.loop(config.iterations, checkpoint_every=config.checkpoint_every, state=state) as loop:
        for iteration in loop:
            for group in what.optimiser.param_groups:
                group["lr"] = what.step_size(iteration)
            data = draw(iteration)
            try:
                numbers = watched(iteration, data)
                with finite.refusals_of_torch():
                    what.optimiser.step()
                finite.check_tensors(what.tensors(), "after the step, ", masks)
            except NonFiniteError as error:
                raise _with_data(error, data, partial(watched, iteration)) from None
            for name, number in numbers.items():
                recent.setdefault(name, []).append(number)
            if (iteration + 1) % config.log_every == 0:
                means = {name: sum(values) / len(values) for name, values in recent.items()}
                loop.log(means, {"train_s": time.perf_counter() - started})
                recent, started = {}, time.perf_counter()


def _with_data(error: NonFiniteError, data: Any, attempt: Callable[[Tasks], Any]) -> NonFiniteError:
    """The error with what was learned from: the tasks that fail alone, or all of them where none does."""
    if isinstance(data, Tasks):
        return finite.blame(error, data, finite.failing(data, attempt))
    error.data = dict(data)
    return error


def put_back(tensors: Mapping[str, Tensor], held: Mapping[str, Tensor], run: Run) -> None:
    """Copy the tensors of a run's checkpoint into those of the same names.

    Raises:
        UserError: they have other names or shapes.
    """
    for name in sorted(tensors.keys() | held.keys()):
        here, there = (tuple(each[name].shape) if name in each else "nothing" for each in (tensors, held))
        if here != there:
            raise UserError(
                f"the checkpoint in {run.folder} does not fit: {name} is {there} there and {here} here; "
                "give the encoder and the config it was trained with"
            )
    with torch.no_grad():
        for name, value in tensors.items():
            value.copy_(held[name])


def remember_classes(run: Run, source: Any) -> None:
    """Store in config.json which classes a run is trained on, or see that they are those it began with.

    Args:
        run: being trained.
        source: where its tasks come from; one without classes has nothing to remember.

    Raises:
        UserError: the run began with other classes or pictures.
    """
    if not isinstance(source, ImageSource):
        return
    now = _memory(source)
    before = run.recall(TRAINED_ON)
    if before is None:
        if source.name == UNNAMED and run.metrics():
            raise UserError(
                f"{run.folder} does not remember its classes, and they were split otherwise then: train anew"
            )
        run.remember(TRAINED_ON, now)
        few = {split: len(source.classes(split)) for split in source.splits}
        few = {split: count for split, count in few.items() if split != "train" and count < source.ways}
        if few and len(now["classes"]) >= source.ways:
            counts = ", ".join(f"{split} {count}" for split, count in few.items())
            warnings.warn(
                f"{source.name}: too few classes to judge with {source.ways} ways ({counts}): evaluate with fewer "
                f"--ways{source.more_classes}",
                DataWarning,
                stacklevel=2,
            )
        return
    if before != now:
        raise UserError(
            f"{run.folder} cannot go on: {source.name} has changed since it began ({_changes(before, now)}); give the "
            "data as they were, or train a new run"
        )


def check_unseen(run: Run, source: Any, split: str) -> None:
    """Check that a run is judged on classes that it was not trained on; warn if its data have changed.

    Raises:
        UserError: it was trained on some of them; the first few are named.
    """
    before = run.recall(TRAINED_ON)
    if not isinstance(source, ImageSource):
        return
    if before is None:
        if source.name == UNNAMED:
            warnings.warn(
                f"{run.folder} does not remember its classes, which were split otherwise when it was trained: some of "
                f"the {split} classes may be among them; train anew to be sure",
                DataWarning,
                stacklevel=2,
            )
        return
    seen = sorted(set(before["classes"]) & set(source.classes(split)))
    if seen and split != "train":
        raise UserError(
            f"{run.folder} was trained on {len(seen)} of the {len(source.classes(split))} {split} classes "
            f"({some(seen)}): give the data as they were, or train a new run on these"
        )
    now = _memory(source)
    if before != now:
        warnings.warn(
            f"{source.name} has changed since {run.folder} was trained ({_changes(before, now)}): its {split} tasks "
            "are not those of then",
            DataWarning,
            stacklevel=2,
        )


def _memory(source: ImageSource) -> dict[str, Any]:
    return {"classes": sorted(source.classes("train")), "images": source.images.fingerprint}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two memories of training data, in words."""
    old, new = set(before["classes"]), set(now["classes"])
    parts = [f"{len(new)} classes to train on, {len(old)} then"]
    parts += [f"{word}: {some(sorted(names))}" for word, names in (("new", new - old), ("gone", old - new)) if names]
    return "; ".join(parts) if old != new else "other pictures, or other classes to test on"


def plan(
    run: Run, strategy: Strategy, objective: outer.Objective, meta: Any, batch: Any, draws: bool = False
) -> outer.Plan:
    """The run's remembered plan for its meta-gradients, or a new one: given, or measured on `batch`.

    Raises:
        UserError: tasks cannot be computed together so, or not where the network `draws` random numbers: they come
            from generators that belong to the process.
    """
    stored = run.recall("meta_gradient")
    if stored is not None:
        return outer.Plan(**stored)
    if draws and strategy not in ("auto", "loop"):
        raise UserError(f"--strategy {strategy} is not for an encoder that draws random numbers (dropout): use loop")
    if strategy == "auto" and not draws:
        found = outer.choose(objective, meta, batch)
    else:
        name: outer.Strategy = "loop" if strategy == "auto" else strategy
        found = outer.Plan(name, threads=_cores() if name == "threads" else torch.get_num_threads())
    if strategy == "vmap":
        try:
            outer.meta_gradient(objective, meta, batch, found)
        except RuntimeError as error:
            line = str(error).partition("\n")[0]
            raise UserError(f"--strategy vmap cannot compute this ({line}); use loop or threads") from error
    run.remember("meta_gradient", found.to_json())
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def saved(run: Run) -> dict[str, Tensor]:
    """The tensors of a run's last checkpoint, on the CPU.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    restored = run.restore()
    if restored is None:
        raise UserError(f"{run.folder} has no checkpoint yet: train it first")
    tensors: dict[str, Tensor] = restored[1]["params"]
    return tensors
