"""Learners that compare embeddings: an encoder, and a rule from support features to classes.

`EmbeddingNetwork` is the module, its `compare` the rule; `Trained` judges it, with a curve over the
shots it was shown. Nothing here takes gradient steps on the encoder for a new task, so a learner takes any number of
classes, whatever it was trained with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from metarl.errors import NonFiniteError, UserError
from metarl.ops import finite
from metarl.ranks import Ranks
from metarl.runs import structure
from metarl.runs.run import Run
from metarl.tasks import Tasks

Rate = Callable[[int], float]


def halving(step_size: float, every: int | None) -> Rate:
    """A step size that halves every so many iterations; None: never."""
    return lambda iteration: step_size * (0.5 ** (iteration // every) if every else 1.0)


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
        clip: every number of the gradient is cut to this size; None: as it is.
    """

    tensors: Callable[[], Mapping[str, Tensor]]
    optimiser: torch.optim.Optimizer
    step_size: Callable[[int], float]
    clip: float | None = None


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
        draw: what an iteration learns from: `Tasks`, or named tensors `(B, ...)`.
        step: given an iteration and what was drawn for it, leaves the gradient in the parameters' `.grad` and returns
            scalars to log, of which metrics.jsonl holds means over `log_every` iterations. The run's ranks share the
            work; each has the whole's gradient and scalars.

    Raises:
        NonFiniteError: a scalar, the gradient or a tensor is not finite. The optimiser takes no step with such a
            gradient, and what it spoils is not saved.
    """

    def watched(iteration: int, data: Any) -> dict[str, float]:
        scalars = step(iteration, data)
        numbers = dict(zip(scalars, torch.stack([v.detach() for v in scalars.values()]).tolist(), strict=True))
        finite.check_numbers(numbers)
        finite.check_gradient(what.tensors())  # before clipping makes an infinite one finite
        if what.clip is not None:
            torch.nn.utils.clip_grad_value_(what.tensors().values(), what.clip)
        return numbers

    recent: dict[str, list[float]] = {}
    masks = finite.masks(what.tensors(), what.optimiser)
    restored = run.restore({"params": dict, "optimiser": dict, "recent": dict[str, list[float]]})
    if restored is not None:
        checkpoint = restored[1]
        put_back(what.tensors(), checkpoint["params"], run)
        structure.check(checkpoint, {"optimiser": what.optimiser}, f"the checkpoint in {run.folder}")
        what.optimiser.load_state_dict(checkpoint["optimiser"])
        recent = checkpoint["recent"]
    elif run.ranks.size > 1:  # an encoder that a script made may have begun with other numbers in each process
        put_back(what.tensors(), run.ranks.broadcast({n: t.detach().cpu() for n, t in what.tensors().items()}), run)

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


def shared(data: Any, ranks: Ranks) -> tuple[Any, float]:
    """This rank's part of `Tasks`, or of named tensors `(B, ...)`, and its weight: of what the whole counts.

    Of fewer tasks than ranks each has all, such as the one that is looked at after a failure.
    """
    n = len(data if isinstance(data, Tasks) else next(iter(data.values())))
    if n < ranks.size:
        return data, 1 / ranks.size
    own = ranks.share(n)
    part = data[own] if isinstance(data, Tasks) else {name: value[own] for name, value in data.items()}
    return part, (own.stop - own.start) / n


def _with_data(error: NonFiniteError, data: Any, attempt: Callable[[Tasks], Any]) -> NonFiniteError:
    """The error with what was learned from: the tasks that fail alone, or all of them where none does."""
    if isinstance(data, Tasks):
        return finite.blame(error, data, finite.failing(data, attempt))
    error.data = dict(data)
    return error


def put_back(tensors: Mapping[str, Tensor], saved: Mapping[str, Tensor], run: Run) -> None:
    """Copy the tensors of a run's checkpoint into those of the same names.

    Raises:
        UserError: they have other names, shapes or dtypes.
    """
    for name in sorted(tensors.keys() | saved.keys(), key=str):
        here, there = (structure.described(each[name]) if name in each else "nothing" for each in (tensors, saved))
        if here != there:
            raise UserError(
                f"the checkpoint in {run.folder} does not fit: {name} is {there} there and {here} here; "
                "give the encoder and the config it was trained with"
            )
    with torch.no_grad():
        for name, value in tensors.items():
            value.copy_(saved[name])


def saved(run: Run) -> dict[str, Tensor]:
    """The tensors of a run's last checkpoint, on the CPU.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    restored = run.restore({"params": dict})
    if restored is None:
        raise UserError(f"{run.folder} has no checkpoint yet: train it first")
    tensors: dict[str, Tensor] = restored[1]["params"]
    return tensors
