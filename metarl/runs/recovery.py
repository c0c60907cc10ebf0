"""A run folder as its last process left it, back to the last checkpoint."""

from __future__ import annotations

from pathlib import Path

from metarl.files import unfinished
from metarl.runs import checkpoints
from metarl.runs.checkpoints import Manifest
from metarl.runs.logs import Logs
from metarl.runs.record import CONFIG


def rewind(folder: Path, manifest: Manifest | None) -> None:
    """Cut the logs back to the last checkpoint and remove what was left half-written.

    Raises:
        UserError: a log or the checkpoint is damaged; nothing is changed.
    """
    logs, sizes = Logs(folder), (manifest.metrics_bytes, manifest.timings_bytes) if manifest else (0, 0)
    logs.check_reaches(sizes)
    if manifest:
        checkpoints.read(folder / "checkpoints", manifest)
    checkpoints.tidy(folder / "checkpoints", manifest)
    for leftover in unfinished(folder / CONFIG):
        leftover.unlink()
    logs.cut(sizes)
