"""One run of several processes: rank 0 has the folder, the others follow what it says.

    run = joint.begin(ranks, Run.create, folder, learner=..., config=..., source=..., seed=..., device=...)

Only rank 0 reads and writes, so the others need not see its disk. What torchrun restarts after a process was lost
(`--max-restarts`) goes on from the last checkpoint: the run knows which start of torchrun has made it.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.errors import NonFiniteError, UserError, shown
from metarl.ops.finite import check_numbers, first_non_finite
from metarl.ranks import Ranks
from metarl.runs.record import CONFIG, IDENTITY, NamedSource, differences, new_record, read_record
from metarl.runs.run import Run

LAUNCH, SIZE = "launch", "ranks"  # what the run remembers: which start of torchrun made it, and of how many processes


class RanksWarning(UserWarning):
    """A run goes on with another number of processes."""


class Leader(Run):
    """The run of rank 0, whose folder it is. What the others must know they get by the calls that all make."""

    def remember(self, name: str, value: Any) -> None:
        """See `Run.remember`; the value is rank 0's."""
        self.ranks.first(lambda: super(Leader, self).remember(name, value))
        self.ranks.broadcast(value)

    def restore(self, like: Mapping[str, Any] | None = None) -> tuple[int, Any] | None:
        """See `Run.restore`; all ranks get the state."""
        return self.ranks.first(lambda: super(Leader, self).restore(like))


class Follower(Run):
    """The run as the other ranks have it: they read and write nothing."""

    _saved: int | None = None

    def remember(self, name: str, value: Any) -> None:
        """Remember what rank 0 does."""
        self.ranks.first(lambda: None)
        value = self.ranks.broadcast(None)
        self._record = {**self._record, "choices": {**self._record["choices"], name: value}}

    def restore(self, like: Mapping[str, Any] | None = None) -> tuple[int, Any] | None:
        """What rank 0 restores."""
        restored: tuple[int, Any] | None = self.ranks.first(lambda: None)
        if restored is not None:
            self._at = self._saved = restored[0]
        return restored

    def log(self, iteration: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Look at the numbers, as rank 0 does."""
        check_numbers(metrics)

    def checkpoint(self, iteration: int, state: Any) -> None:
        """Look at the state, as rank 0 does."""
        if place := first_non_finite(state):
            raise NonFiniteError(f"{place} is not finite")
        self._at = self._saved = iteration

    def keep_failure(self, error: NonFiniteError, iteration: int | None = None, state: Any = None) -> None:
        """Say in which iteration it was; rank 0 keeps the data."""
        error.iteration = iteration

    def attach(self, callbacks: Sequence[Any], load: Callable[[Run], Any] | None = None) -> None:
        """Nothing: rank 0 has callbacks."""

    def withdraw(self) -> None:
        """Nothing: rank 0 does."""

    def check_writable(self) -> None:
        """Nothing: rank 0 writes."""

    @property
    def saved(self) -> int | None:
        """Iterations done at rank 0's last checkpoint; None where there is none."""
        return self._saved


def begin(
    ranks: Ranks,
    folder: str | Path,
    *,
    learner: str,
    config: Any,
    source: NamedSource,
    seed: int,
    device: str = "cpu",
    resume: bool = False,
) -> Run:
    """A run of these processes, made or resumed by rank 0; see `Run.create` and `Run.resume`.

    Raises:
        UserError: it cannot be, or the processes were asked for different runs.
    """
    folder, launch = Path(folder), _launch()
    asked = {"learner": learner, "config": config, "source": source, "seed": seed, "device": device}
    kind = Run if ranks.size == 1 else Leader if ranks.leads else Follower

    made: list[Run] = []

    def make() -> tuple[dict[str, Any], int | None]:
        goes_on = resume or (_restarted() and _made_by(folder, launch))
        made.append(kind.resume(folder, **asked) if goes_on else kind.create(folder, **asked))
        return made[0].record, made[0].completed

    record, completed = ranks.first(make)
    run = made[0] if made else Follower(folder, record, config, device=device)
    run.ranks, run._at = ranks, completed
    ranks.together(lambda: _check_same(ranks, record, new_record(**asked)))
    _remember(run, launch)
    return run


def _check_same(ranks: Ranks, record: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a run that is not what this process was asked for: machines may have other configs of one name."""
    each = (difference for part in IDENTITY for difference in differences(part, record[part], own[part]))
    if different := [f"{name} is {shown(there)} there and {shown(here)} here" for name, there, here in each]:
        raise UserError(f"rank {ranks.rank} is asked for another run than rank 0: {'; '.join(different)}")


def _remember(run: Run, launch: str | None) -> None:
    """Have the run know what started it, and how many processes it has."""
    before, size = run.recall(SIZE, int) or 1, run.ranks.size
    if launch is not None and run.recall(LAUNCH, str) != launch:
        run.remember(LAUNCH, launch)
    if before != size:
        run.remember(SIZE, size)
        if run.completed is None and run.ranks.leads:
            warnings.warn(
                f"{run.folder} was trained by {before} process{'es' * (before > 1)} and goes on with {size}: sums "
                "may be taken in another order, so the last bits of what follows may be others",
                RanksWarning,
                stacklevel=3,
            )


def _launch() -> str | None:
    """What tells a start of torchrun from others, restarts by it from none; None without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    name = os.environ["TORCHELASTIC_RUN_ID"]
    if name != "none":  # which is what torchrun has unless told otherwise
        return name
    agent = os.getppid()
    try:  # pids come again
        began = Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        began = ""
    return f"{socket.gethostname()}:{agent}:{began}"


def _restarted() -> bool:
    """Whether torchrun starts these processes again, after one was lost."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _made_by(folder: Path, launch: str | None) -> bool:
    """Whether the folder holds a run that this start of torchrun has made."""
    try:
        choices = read_record(folder)["choices"] if (folder / CONFIG).exists() else {}
    except UserError:  # resuming says it
        return False
    return launch is not None and choices.get(LAUNCH) == launch
