"""The curve of a run, saved beside one of another measurement."""

from __future__ import annotations

import itertools
from pathlib import Path

from metarl.errors import UserError, shown
from metarl.evaluation.curve import AdaptationCurve
from metarl.files import write_atomically

MEASUREMENT = ("split", "options", "task_hash", "budget", "evaluation_seed")  # what a curve was measured on, and how


def save_keeping(curve: AdaptationCurve, path: Path) -> str | None:
    """Save the curve of a run as JSON; one that is there of another measurement is kept under another name.

    A curve of the same tasks, budget and seed is replaced: it is of the same run, which may have been trained on.

    Returns:
        What was kept, where and why, in words; None where nothing was.

    Raises:
        UserError: the file cannot be written.
    """
    why = _differs(curve, path) if path.exists() else None
    kept = None
    if why is not None:
        names = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        write_atomically(aside, path.read_bytes())
        kept = f"the curve that was in {path} is kept as {aside}: {why}"
    curve.save(path)
    return kept


def _differs(curve: AdaptationCurve, path: Path) -> str | None:
    """What tells the measurement of a saved curve from this one's."""
    try:
        saved = AdaptationCurve.load(path)
    except UserError:
        return "it cannot be read"
    for name in MEASUREMENT:
        then, now = getattr(saved, name), getattr(curve, name)
        if then != now:
            what = "it is of other tasks" if name == "task_hash" else f"its {name.replace('_', ' ')} was {shown(then)}"
            return f"{what}; this one's is {shown(now)}" if name != "task_hash" else what
    return None
