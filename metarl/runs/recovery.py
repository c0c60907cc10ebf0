"""A run folder as its last process left it: which checkpoint is the newest whole one, and back to it.

Everything is judged before anything is changed. What the disk has spoiled is passed over, and said: a missing or torn
manifest, a checkpoint that is missing or damaged, a log that is shorter than at the checkpoint, or says something
else. A checkpoint that is whole but not this run's is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.errors import UserError
from metarl.files import unfinished
from metarl.runs import checkpoints, logs
from metarl.runs.checkpoints import REMEDY, Checkpoint, ForeignCheckpointError, Manifest
from metarl.runs.lock import Lock, check_free
from metarl.runs.logs import METRICS, TIMINGS
from metarl.runs.record import CONFIG, IDENTITY, as_of_today, differing

TOLD = 3  # problems that an error names
READS = 3  # times a folder is looked at, in which a training that goes on elsewhere replaces checkpoints


class RecoveryWarning(UserWarning):
    """A run folder was damaged, and an older checkpoint or fewer lines of a log are used."""


@dataclass(frozen=True)
class Recovered:
    """What a run goes on from.

    Attributes:
        checkpoint: the newest whole one; None to begin at the start.
        manifest: that names it.
        seen: the manifest that was there.
        timings_bytes: how much of timings.jsonl belongs to it.
        remarks: what was passed over, a line each.
    """

    checkpoint: Checkpoint | None
    manifest: Manifest | None
    seen: Manifest | None
    timings_bytes: int = 0
    remarks: tuple[str, ...] = ()


def newest(folder: Path, record: Mapping[str, Any], config: Any) -> Recovered:
    """The newest whole checkpoint of a run, whatever its logs hold; to read.

    Args:
        folder: of the run.
        record: its config.json.
        config: as its learner has it, or as a dict.

    Raises:
        UserError: none is whole.
        ForeignCheckpointError: it is of another run.
    """
    return _search(folder, record, config, to_resume=False)


def resume(folder: Path, record: Mapping[str, Any], config: Any) -> tuple[Recovered, Lock]:
    """Have a run's files be as they were at the newest whole checkpoint whose logs are there too; see `newest`.

    Raises:
        UserError: there is none, or another process writes into the folder; nothing is changed.
        ForeignCheckpointError: it is of another run; nothing is changed.
    """
    check_free(folder)
    recovered = _search(folder, record, config, to_resume=True)
    lock = Lock(folder)
    try:
        if not _unchanged(folder, recovered):
            recovered = _search(folder, record, config, to_resume=True)
        warn(recovered)
        _rewind(folder, recovered)
    except BaseException:
        lock.release()
        raise
    return recovered, lock


def warn(recovered: Recovered) -> None:
    """Say what was passed over."""
    for remark in recovered.remarks:
        warnings.warn(remark, RecoveryWarning, stacklevel=3)


def _rewind(folder: Path, recovered: Recovered) -> None:
    """Point to the checkpoint, cut the logs back, and remove what was left half-written."""
    place = folder / "checkpoints"
    if recovered.manifest is not None and recovered.manifest != recovered.seen:
        checkpoints.point(place, recovered.manifest)
    checkpoints.tidy(place, checkpoints.names(place))
    for leftover in unfinished(folder / CONFIG):
        with contextlib.suppress(OSError):  # a folder of that name, say
            leftover.unlink()
    logs.cut(folder / METRICS, recovered.manifest.metrics_bytes if recovered.manifest else 0)
    logs.cut(folder / TIMINGS, recovered.timings_bytes)


def _unchanged(folder: Path, recovered: Recovered) -> bool:
    """Whether no checkpoint has been written since."""
    return _manifest(folder / "checkpoints")[0] == recovered.seen


def _search(folder: Path, record: Mapping[str, Any], config: Any, *, to_resume: bool) -> Recovered:
    for _ in range(READS):  # a training that goes on elsewhere removes what it has replaced
        seen, damage = _manifest(folder / "checkpoints")
        try:
            recovered = _judged(folder, record, config, seen, damage, to_resume=to_resume)
        except ForeignCheckpointError:
            raise
        except UserError:
            if _manifest(folder / "checkpoints")[0] == seen:
                raise
            continue
        if not recovered.remarks or _unchanged(folder, recovered):
            return recovered
    return _judged(folder, record, config, *_manifest(folder / "checkpoints"), to_resume=to_resume)


def _judged(
    folder: Path, record: Mapping[str, Any], config: Any, seen: Manifest | None, damage: str, *, to_resume: bool
) -> Recovered:
    place = folder / "checkpoints"
    if os.path.lexists(place) and not place.is_dir():
        raise UserError(f"{place} is no folder; {REMEDY}")
    files, problems = checkpoints.names(place), [damage] * bool(damage)
    if seen is not None:
        files = [seen.file, *(file for file in files if file != seen.file)]
    elif not files and not damage:
        return Recovered(None, None, None, remarks=_of_the_start(folder, record) if to_resume else ())
    elif not damage:
        problems.append(f"{place / checkpoints.MANIFEST} is missing")
    if to_resume and (folders := [place / file for file in files if (place / file).is_dir()]):
        raise UserError(f"{folders[0]} is a folder, where a checkpoint is to be written; remove it")
    for file in files:
        named = seen if seen is not None and seen.file == file else None
        try:
            checkpoint = checkpoints.load(place, file, named.sha256 if named else None)
            _check_owner(checkpoint, record, config)
            metrics_bytes, timings_bytes, remarks = _logs_of(folder, checkpoint, named) if to_resume else (0, 0, ())
        except ForeignCheckpointError:
            raise
        except UserError as error:
            problems.append(str(error))
            continue
        if problems:
            remarks = f"{problems[0]}; used instead: {checkpoint.path}, of {checkpoint.iteration} iterations", *remarks
        manifest = named or Manifest(file, checkpoint.sha256, checkpoint.iteration, metrics_bytes, timings_bytes)
        return Recovered(checkpoint, manifest, seen, timings_bytes, remarks)
    raise UserError(f"{'; '.join(problems[:TOLD])}; {REMEDY}")


def _manifest(place: Path) -> tuple[Manifest | None, str]:
    """The manifest, or None and what is wrong with it, if anything is."""
    try:
        return checkpoints.latest(place), ""
    except ForeignCheckpointError:
        raise
    except UserError as error:
        return None, str(error)


def _check_owner(checkpoint: Checkpoint, record: Mapping[str, Any], config: Any) -> None:
    """Raise ForeignCheckpointError where a checkpoint says that it is of another run.

    Those of earlier versions say nothing. The run's iterations may have been raised since.
    """
    if checkpoint.run is None:
        return
    theirs: dict[str, Any]
    ours: dict[str, Any]
    theirs, ours = ({name: one.get(name) for name in IDENTITY} for one in (checkpoint.run, record))
    if isinstance(theirs["config"], dict):
        then, now = theirs["config"], ours["config"]
        if dataclasses.is_dataclass(config):
            then, now = as_of_today(type(config), then), as_of_today(type(config), now)
        else:  # whose fields may have been renamed since
            known = (then.keys() & now.keys()) - {"threads"}  # which may change where they decide nothing
            then, now = ({name: one[name] for name in known} for one in (then, now))
        theirs, ours = theirs | {"config": then}, ours | {"config": now}
    if different := differing(theirs, ours, config):
        raise ForeignCheckpointError(
            f"the checkpoint {checkpoint.path} is of another run: {'; '.join(different)}; put this run's own back, "
            "or train again into another folder"
        )


def _logs_of(folder: Path, checkpoint: Checkpoint, manifest: Manifest | None) -> tuple[int, int, tuple[str, ...]]:
    """How many bytes of metrics.jsonl and of timings.jsonl belong to a checkpoint, and what is to be said of them.

    Raises:
        UserError: metrics.jsonl is not as it was at that checkpoint.
    """
    path, iteration = folder / METRICS, checkpoint.iteration
    lines, whole = logs.before(path, iteration)
    if checkpoint.metrics is not None:
        length, same = checkpoint.metrics[0], logs.digest(path, checkpoint.metrics[0]) == checkpoint.metrics
    elif manifest is not None:
        length, same = manifest.metrics_bytes, manifest.metrics_bytes == whole
    else:
        raise UserError(f"the checkpoint {checkpoint.path}, of an earlier version, does not say which logs it had")
    if not same:
        what = "is shorter than" if logs.size(path) < length else "is not as it was"
        raise UserError(f"{path} is damaged: it {what} at the checkpoint of {iteration} iterations")
    timed, timings_bytes = logs.before(folder / TIMINGS, iteration)
    lost = (f"{folder / TIMINGS} is damaged: {lines - timed} of its {lines} lines are lost",) if timed < lines else ()
    return length, timings_bytes, lost


def _of_the_start(folder: Path, record: Mapping[str, Any]) -> tuple[str, ...]:
    """What is to be said of a run that has no checkpoint, and so begins anew.

    Raises:
        UserError: it has come so far that there was one: what it logged is not to be lost.
    """
    every = record["config"].get("checkpoint_every")
    last = max(logs.last_iteration(folder / name) for name in (METRICS, TIMINGS))
    if isinstance(every, int) and last >= every:
        raise UserError(f"{folder} has logged {last + 1} iterations, but its checkpoints are missing; {REMEDY}")
    return (f"{folder} has no checkpoint: it begins anew, {last + 1} logged iterations too",) if last >= 0 else ()
