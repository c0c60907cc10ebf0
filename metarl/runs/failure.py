"""nonfinite.pt: the data that show a failure again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.errors import NonFiniteError, UserError
from metarl.files import write_atomically
from metarl.ops.finite import reproducer
from metarl.runs.checkpoints import pack

FAILURE = "nonfinite.pt"


def keep(folder: Path, record: Mapping[str, Any], error: NonFiniteError, state: Any, saved: int | None) -> str:
    """Write what shows a failure again; where it is, and which checkpoint there is (of `saved` iterations), in words.

    The file holds the run's identity (learner, config, source, seed, device) and what `finite.reproducer` makes of
    the error; `torch.load(path, weights_only=True)` reads it.
    """
    identity = {name: record[name] for name in ("metarl", "learner", "config", "source", "seed", "device")}
    path = folder / FAILURE
    try:
        write_atomically(path, pack(identity | reproducer(error, state)))
        seen = f"its data are in {path}"
    except UserError as problem:  # a full disk must not hide the failure itself
        seen = f"its data could not be kept ({problem})"
    stays = f"the last checkpoint, of {saved} iterations, stays" if saved is not None else "there is no checkpoint yet"
    return f"{seen}; {stays}"
