"""The classes a run is trained on, remembered: it may go on with no others, and is judged on none of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from metarl.errors import UserError
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.reading import DataWarning, some
from metarl.runs.run import Run

UNNAMED = "folder"  # the data set whose classes are the user's, and were split otherwise before runs remembered them
TRAINED_ON = "trained_on"  # what a run calls the classes it remembers
_FORM = {"classes": [str]}  # of what it remembers of them


def remember_classes(run: Run, source: Any) -> None:
    """Store in config.json which classes a run is trained on, or see that they are those it began with.

    Args:
        run: being trained.
        source: where its tasks come from; one without classes has nothing to remember.

    Raises:
        UserError: the run began with other classes or pictures.
    """
    if not isinstance(source, ImageSource):
        return
    now = _memory(source)
    before = run.recall(TRAINED_ON, _FORM)
    if before is None:
        if source.name == UNNAMED and run.metrics():
            raise UserError(
                f"{run.folder} does not remember its classes, and they were split otherwise then: train anew"
            )
        run.remember(TRAINED_ON, now)
        few = {split: len(source.classes(split)) for split in source.splits}
        few = {split: count for split, count in few.items() if split != "train" and count < source.ways}
        if few and len(now["classes"]) >= source.ways:
            counts = ", ".join(f"{split} {count}" for split, count in few.items())
            warnings.warn(
                f"{source.name}: too few classes to judge with {source.ways} ways ({counts}): evaluate with fewer "
                f"--ways{source.more_classes}",
                DataWarning,
                stacklevel=2,
            )
        return
    if before != now:
        raise UserError(
            f"{run.folder} cannot go on: {source.name} has changed since it began ({_changes(before, now)}); give the "
            "data as they were, or train a new run"
        )


def check_unseen(run: Run, source: Any, split: str) -> None:
    """Check that a run is judged on classes that it was not trained on; warn if its data have changed.

    Raises:
        UserError: it was trained on some of them; the first few are named.
    """
    before = run.recall(TRAINED_ON, _FORM)
    if not isinstance(source, ImageSource):
        return
    if before is None:
        if source.name == UNNAMED:
            warnings.warn(
                f"{run.folder} does not remember its classes, which were split otherwise when it was trained: some of "
                f"the {split} classes may be among them; train anew to be sure",
                DataWarning,
                stacklevel=2,
            )
        return
    seen = sorted(set(before["classes"]) & set(source.classes(split)))
    if seen and split != "train":
        raise UserError(
            f"{run.folder} was trained on {len(seen)} of the {len(source.classes(split))} {split} classes "
            f"({some(seen)}): give the data as they were, or train a new run on these"
        )
    now = _memory(source)
    if before != now:
        warnings.warn(
            f"{source.name} has changed since {run.folder} was trained ({_changes(before, now)}): its {split} tasks "
            "are not those of then",
            DataWarning,
            stacklevel=2,
        )


def _memory(source: ImageSource) -> dict[str, Any]:
    return {"classes": sorted(source.classes("train")), "images": source.images.fingerprint}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two memories of training data, in words."""
    old, new = set(before["classes"]), set(now["classes"])
    parts = [f"{len(new)} classes to train on, {len(old)} then"]
    parts += [f"{word}: {some(sorted(names))}" for word, names in (("new", new - old), ("gone", old - new)) if names]
    return "; ".join(parts) if old != new else "other pictures, or other classes to test on"
