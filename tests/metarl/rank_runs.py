"""What ranks do with a run in tests, in a file that their processes can import."""

from __future__ import annotations

import os
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metarl.errors import NonFiniteError
from metarl.ranks import Ranks
from metarl.runs import joint


@dataclass(frozen=True)
class Config:
    iterations: int = 6


class Source:
    name = "nowhere"

    def options(self) -> dict[str, Any]:
        return {}


OF: dict[str, Any] = {"learner": "counting", "source": Source(), "seed": 0}


def begin(ranks: Ranks, folder: Path, **more: Any) -> Any:
    return joint.begin(ranks, folder, **OF, **{"config": Config(), **more})


def count(ranks: Ranks, run: Any, each: Any = lambda iteration: None, every: int = 2) -> float:
    """Train a number that grows by the sum over ranks."""
    x = torch.zeros(1)
    restored = run.restore()
    if restored is not None:
        x = restored[1]["x"]
    with run.loop(run.config.iterations, checkpoint_every=every, state=lambda: {"x": x}) as loop:
        for iteration in loop:
            x = x + ranks.sum(torch.tensor([float(ranks.rank + 1)]))[0]
            each(iteration)
            loop.log({"x": float(x)}, {})
    return float(x)


def attempt(function: Any) -> tuple[str, str]:
    try:
        return "", repr(function())
    except (Exception, KeyboardInterrupt) as error:
        return type(error).__name__, str(error)


class Stops:
    """A callback that stops the training after an iteration, or raises in it."""

    def __init__(self, after: int, *, raises: bool = False) -> None:
        self.after, self.raises = after, raises

    def on_iteration(self, metrics: dict[str, Any]) -> bool:
        if metrics["iteration"] == self.after and self.raises:
            raise OSError("no space on the tracker")
        return metrics["iteration"] != self.after


def life_of_a_run(ranks: Ranks, folder: str) -> dict[str, Any]:
    """A run that is stopped, interrupted and resumed; each rank's paths are its own, as on disks of their own."""
    own = Path(folder) / f"rank {ranks.rank}"
    run, seen = begin(ranks, own), {}
    run.attach([Stops(1)] if ranks.leads else [])
    run.remember("choice", f"of rank {ranks.rank}")
    seen["stopped"] = count(ranks, run), run.saved, run.recall("choice")
    run.close()
    seen["again"] = attempt(lambda: begin(ranks, own))
    seen["other"] = attempt(lambda: begin(ranks, own, resume=True, config=Config(6 + ranks.rank)))
    run = begin(ranks, own, resume=True)

    def asked(iteration: int) -> None:
        if ranks.rank == ranks.size - 1 and iteration == 3:
            os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen["interrupted"] = attempt(lambda: count(ranks, run, asked, every=100)), run.saved
    run.close()
    run = begin(ranks, own, resume=True)
    run.attach([Stops(4, raises=True)] if ranks.leads else [])
    seen["callback"] = attempt(lambda: count(ranks, run, every=100))[0]
    run.close()
    seen["done"] = count(ranks, begin(ranks, own, resume=True))
    seen["files"] = sorted(path.name for path in own.iterdir()) if own.exists() else []
    return seen


def failures(ranks: Ranks, folder: str) -> dict[str, Any]:
    """What goes wrong on one rank, and in the end on none alone."""
    run, seen = begin(ranks, Path(folder) / "a"), {}

    def broken(iteration: int) -> None:
        def fail() -> None:
            if ranks.rank == 1 and iteration == 3:
                raise NonFiniteError("a reward is nan", tasks=[0], of=1, data={"obs": torch.ones(2)})

        ranks.together(fail, tasks=2)

    seen["broken"] = attempt(lambda: count(ranks, run, broken))[0], run.saved
    run = begin(ranks, Path(folder) / "b")
    x = torch.tensor([float(ranks.rank)])
    loop = run.loop(2, checkpoint_every=1, state=lambda: {"x": x})

    def drifted() -> None:
        with loop:
            for _ in loop:
                loop.log({}, {})

    seen["drift"] = attempt(drifted), run.saved
    return seen


def resumed_by(ranks: Ranks, folder: str) -> tuple[list[str], int]:
    """Go on with a run; what is warned of."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run = begin(ranks, Path(folder), resume=(Path(folder) / "config.json").exists())
    run.attach([])
    count(ranks, run)
    return [str(each.message) for each in seen if issubclass(each.category, joint.RanksWarning)], run.recall(
        "ranks", int
    )
