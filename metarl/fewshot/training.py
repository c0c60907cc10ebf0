"""The training loop of every few-shot learner: resumable bit for bit, means of what it saw in the log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from metarl import outer
from metarl.fewshot.batch import Batch
from metarl.learner import ScoreKind, UserError
from metarl.runs import Run
from metarl.tasks import Tasks

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


def fit(run: Run, config: Settings, what: Learnable, step: Callable[[int], Mapping[str, Tensor]]) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one.

    Args:
        run: where it is logged and saved.
        config: how long, and how often.
        what: changed in place.
        step: leaves the gradient of an iteration in the parameters' `.grad` and returns scalars to log,
            of which metrics.jsonl holds means over `log_every` iterations.
    """
    recent: dict[str, list[float]] = {}
    restored = run.restore()
    if restored is not None:
        held = restored[1]
        put_back(what.tensors(), held["params"], run)
        what.optimiser.load_state_dict(held["optimiser"])
        recent = held["recent"]

    def state() -> dict[str, Any]:
        return {"params": dict(what.tensors()), "optimiser": what.optimiser.state_dict(), "recent": recent}

    started = time.perf_counter()
    with run.loop(config.iterations, checkpoint_every=config.checkpoint_every, state=state) as loop:
        for iteration in loop:
            for group in what.optimiser.param_groups:
                group["lr"] = what.step_size(iteration)
            for name, value in step(iteration).items():
                recent.setdefault(name, []).append(float(value.detach()))
            what.optimiser.step()
            if (iteration + 1) % config.log_every == 0:
                means = {name: sum(values) / len(values) for name, values in recent.items()}
                loop.log(means, {"train_s": time.perf_counter() - started})
                recent, started = {}, time.perf_counter()


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
        except (RuntimeError, NotImplementedError) as error:
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
