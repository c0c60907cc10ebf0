"""Trackers of experiments as callbacks: Weights & Biases, and trackio.

    metarl.train("maml-trpo", family, out="runs/mine", callbacks=[WandB(project="adaptation")])

What is logged in an iteration goes to the tracker under its number, beside the files of the run folder; the config of
the tracked run is what identifies the training. Neither is installed with metarl.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.documents import fits, parse_json, read_regular
from metarl.errors import UserError, one_line
from metarl.files import write_atomically
from metarl.runs.callbacks import Callback, Training

IDENTITIES = "trackers.json"  # of a run folder: under which identity each tracker knows the run
LONGEST = 1 << 16  # bytes of it


class Tracker(Callback):
    """A tracker with the interface of Weights & Biases: `init`, `log`, `finish`.

    Args:
        project: that the run is filed under; by default "metarl".
        name: of the run; by default that of its folder.
        options: more of the tracker's `init`.

    Raises:
        UserError: the tracker is not installed.
    """

    module = ""

    def __init__(self, project: str = "metarl", name: str | None = None, **options: Any) -> None:
        self._project, self._name, self._options = project, name, options
        try:
            self._tracker: Any = importlib.import_module(self.module)
        except ImportError:
            raise UserError(
                f"{type(self).__name__} needs the package {self.module}, which is not installed: "
                f"pip install 'metarl-suite[{self.module}]'"
            ) from None
        self._run: Any = None

    def identity(self, training: Training) -> dict[str, Any]:
        """The arguments of `init` by which a resumed training goes on under its old name."""
        return {"name": self._name or training.folder.resolve().name, "resume": "allow"}

    def on_start(self, training: Training) -> None:
        """Begin, or go on with, the tracked run."""
        facts = {"learner": training.learner, "seed": training.seed, "source": dict(training.source)}
        config = training.config if isinstance(training.config, Mapping) else dataclasses.asdict(training.config)
        self._run = self._tracker.init(
            project=self._project,
            config={**facts, "config": config},
            **{**self.identity(training), **self._options},
        )

    def on_iteration(self, metrics: dict[str, Any]) -> None:
        """Pass on the numbers, if there are any."""
        numbers = {name: float(value) for name, value in metrics.items() if name != "iteration"}
        if numbers:
            self._run.log(numbers, step=metrics["iteration"])

    def on_end(self) -> None:
        """Finish the tracked run."""
        if self._run is not None:
            self._run.finish()
            self._run = None


class WandB(Tracker):
    """Weights & Biases (`pip install 'metarl-suite[wandb]'`)."""

    module = "wandb"

    def identity(self, training: Training) -> dict[str, Any]:
        """An identity of its own, kept in the run folder, since names need not be unique."""
        return {**super().identity(training), "id": _remembered(training.folder, self.module)}


class Trackio(Tracker):
    """trackio, a local tracker with the same interface (`pip install 'metarl-suite[trackio]'`)."""

    module = "trackio"


TRACKERS: dict[str, type[Tracker]] = {kind.module: kind for kind in (WandB, Trackio)}


def _remembered(folder: Path, tracker: str) -> str:
    path = folder / IDENTITIES
    known: Any = {}
    if path.exists():
        try:
            known = parse_json(read_regular(path, LONGEST))
            if not isinstance(known, dict) or not fits(list(known.values()), [str]):
                raise ValueError("it must hold an identity a tracker")
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged: {one_line(error)}; remove it for a new identity") from None
    if tracker not in known:
        known[tracker] = uuid.uuid4().hex
        write_atomically(path, json.dumps(known).encode())
    return str(known[tracker])
