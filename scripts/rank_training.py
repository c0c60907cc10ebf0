"""A training under torchrun that takes an iteration when it is told to, and says what it sent; for scripts."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed

import metarl

ORDER = "METARL_RANK_TRAINING"  # the variable that tells a process what to train, and where to report
KEY = b"ranks"
WAIT = 60  # seconds for a training to end
# What of torch.distributed is watched, and how many bytes a call hands over: a tensor's, or those of what is pickled.
WATCHED = {
    "all_reduce": lambda tensor, *_: tensor.numel() * tensor.element_size(),
    "send": lambda tensor, *_: tensor.numel() * tensor.element_size(),
    "broadcast": lambda tensor, *_: tensor.numel() * tensor.element_size(),
    "all_gather_object": lambda _, value, *__: len(pickle.dumps(value)),
    "broadcast_object_list": lambda values, *_: len(pickle.dumps(values)),
}


class Iteration(NamedTuple):
    """What rank 0 says of one."""

    work: float  # environment steps, or what was named as its work
    seconds: float
    messages: list[tuple[str, int]]  # kind and bytes of each that rank 0 took part in


class Paced(metarl.Callback):
    """Takes an iteration whenever it is told to, and reports it."""

    def __init__(self, address: str, work: float | None) -> None:
        self._asked: Connection = Client(address, authkey=KEY)
        self._work, self._messages, self._begun = work, list[tuple[str, int]](), 0.0
        for name, size in WATCHED.items():
            self._watch(name, size)

    def _watch(self, name: str, size: Any) -> None:
        call = getattr(torch.distributed, name)

        def watched(*args: Any, **options: Any) -> Any:
            self._messages.append((name, size(*args)))
            return call(*args, **options)

        setattr(torch.distributed, name, watched)

    def _go_on(self) -> bool:
        told = bool(self._asked.recv())
        self._messages.clear()
        self._begun = time.perf_counter()
        return told

    def on_start(self, training: object) -> None:
        """Wait to be told."""
        self._go_on()

    def on_iteration(self, metrics: dict[str, Any]) -> bool:
        """Report, and wait to be told to go on or to stop."""
        work = metrics["episodes/steps"] if self._work is None else self._work
        self._asked.send((work, time.perf_counter() - self._begun, self._messages))
        return self._go_on()


class Trained:
    """A training in one or more processes, an iteration at a time.

    Args:
        ranks: processes; one is started without torchrun.
        agent: what is trained.
        source: on what.
        work: an iteration's; None where its environment steps are counted.
        options: those that differ from the preset's.
    """

    def __init__(self, ranks: int, agent: str, source: str, work: float | None, **options: Any) -> None:
        self._folder = tempfile.TemporaryDirectory()
        order = {"agent": agent, "source": source, "options": options, "work": work, "folder": self._folder.name}
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        environment = {**os.environ, ORDER: json.dumps(order), "OMP_NUM_THREADS": "1"}
        with Listener(f"{self._folder.name}/socket", authkey=KEY) as listener:
            self._process = subprocess.Popen([sys.executable, *launch, __file__], env=environment)
            self._told = listener.accept()

    def iterate(self) -> Iteration:
        """One more iteration."""
        self._told.send(True)
        return Iteration(*self._told.recv())

    def end(self) -> None:
        """Stop the training."""
        self._told.send(False)
        try:
            self._process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._folder.cleanup()


def train(order: dict[str, Any]) -> None:
    """What each process does: the training of an order, which ends when it is told to."""
    leads = os.environ.get("RANK", "0") == "0"
    metarl.train(
        order["agent"],
        order["source"],
        out=Path(order["folder"]) / "run",
        callbacks=[Paced(f"{order['folder']}/socket", order["work"])] if leads else [],
        iterations=10**6,
        checkpoint_every=10**6,
        **order["options"],
    )


if __name__ == "__main__":
    train(json.loads(os.environ[ORDER]))
