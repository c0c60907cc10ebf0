"""Progress on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from metarl.errors import printable
from metarl.streams import Lossy

SHOWN = ("return/", "score/")  # metrics whose names begin so are shown beside the progress bar
PLAIN_SECONDS = 60.0  # between two lines of progress where there is no terminal


class Display:
    """A progress bar on a terminal; elsewhere a plain line now and then."""

    def __init__(self, total: int, completed: int, *, quiet: bool = False) -> None:
        stderr: Any = Lossy(sys.stderr)  # a terminal that is gone ends no training
        self._console = Console(file=stderr, stderr=True, quiet=quiet)
        self._total = total
        self._first = completed
        self._shown: dict[str, float] = {}
        self._began = self._printed = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self) -> None:
        """Begin to show."""
        self._began = self._printed = time.monotonic()
        if self._console.quiet or not self._console.is_terminal:
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
        """Keep the metrics that are shown, for the next picture."""
        self._shown |= {name: float(value) for name, value in metrics.items() if name.startswith(SHOWN)}

    def advance(self, completed: int) -> None:
        """So many iterations are completed."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=completed, description=self._scores())
        elif time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            seconds = (self._printed - self._began) / (completed - self._first) * (self._total - completed)
            self.say(f"iteration {completed}/{self._total}  {self._scores()}  {seconds / 60:.1f} min left")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._progress:
            self._progress.stop()

    def _scores(self) -> str:
        return printable("  ".join(f"{name.partition('/')[2]} {value:.4g}" for name, value in self._shown.items()))
