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
        tensors: every tensor a checkpoint must hold, by name: parameters and buffers, changed in place.
        optimiser: made over the parameters among them.
        step_size: the optimiser's step size in an iteration, counted from 0.
    """

    tensors: Mapping[str, Tensor]
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
        with torch.no_grad():
            for name, value in what.tensors.items():
                value.copy_(held["params"][name])
        what.optimiser.load_state_dict(held["optimiser"])
        recent = held["recent"]

    def state() -> dict[str, Any]:
        return {"params": dict(what.tensors), "optimiser": what.optimiser.state_dict(), "recent": recent}

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


def plan(run: Run, strategy: Strategy, objective: outer.Objective, meta: Any, batch: Any) -> outer.Plan:
    """The run's remembered plan for its meta-gradients, or a new one: given, or measured on `batch`."""
    stored = run.recall("meta_gradient")
    if stored is not None:
        return outer.Plan(**stored)
    if strategy == "auto":
        found = outer.choose(objective, meta, batch)
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        found = outer.Plan(strategy, threads=cores if strategy == "threads" else torch.get_num_threads())
    run.remember("meta_gradient", found.to_json())
    return found


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
