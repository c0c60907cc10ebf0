"""Checkpoints that survive being killed: whole, verified, and never code.

A checkpoint is a file of its own: its name holds the completed iterations and the beginning of its SHA-256, and
beside the state it says which run it is of and how long that run's metrics.jsonl was. `latest.json`, a manifest,
names the last one. Every file is written to a temporary name, flushed to disk and renamed; the manifest moves only
when the checkpoint it names is complete, and files older than the one before go only after it has moved. So at any
moment the manifest, if there is one, names a complete checkpoint, and the one before it is there if the disk spoils
it (`metarl.runs.recovery`). Loading uses PyTorch's restricted unpickler (`weights_only=True`): a file that would run
code is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from metarl.documents import parse_json, read_regular
from metarl.errors import UserError, one_line, shown
from metarl.files import TEMPORARY, sync, write_atomically
from metarl.ops.finite import first_non_finite
from metarl.runs import tensor_file

MANIFEST = "latest.json"
LONGEST_MANIFEST = 1 << 16  # bytes
FORMAT = "metarl checkpoint"  # the entry of a file that holds its format's version; files without it are a bare state
VERSION = 2
NAME = re.compile(r"(\d{8,})-([0-9a-f]{16})\.pt")  # completed iterations, and how the SHA-256 begins


@dataclass(frozen=True)
class Manifest:
    """What `latest.json` says about the last checkpoint.

    Attributes:
        file: its name in the same folder.
        sha256: of the file's bytes, hexadecimal.
        iteration: completed iterations.
        metrics_bytes: length of the run's metrics.jsonl at that moment.
        timings_bytes: length of the run's timings.jsonl at that moment.
    """

    file: str
    sha256: str
    iteration: int
    metrics_bytes: int
    timings_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        path: the file.
        sha256: of the file's bytes, hexadecimal.
        iteration: completed iterations.
        run: learner, config, source and seed of the run it is of; None in files of earlier versions.
        metrics: length in bytes and SHA-256 of the run's metrics.jsonl at that moment; None in files of earlier
            versions.
        state: all that continuing needs, every tensor on the CPU.
    """

    path: Path
    sha256: str
    iteration: int
    run: Mapping[str, Any] | None
    metrics: tuple[int, str] | None
    state: Any


def pack(state: Any) -> bytes:
    """The bytes of a file that `torch.load(..., weights_only=True)` reads.

    Raises:
        ValueError: the state holds something that could not be loaded again; it is named.
    """
    buffer = io.BytesIO()
    plain = _plain(state, "state")
    torch.save(plain, buffer)
    data = buffer.getvalue()
    try:
        tensor_file.check_file(data)
        tensor_file.check_state(plain, len(data))
    except ValueError as error:
        raise ValueError(f"the state cannot be kept in a checkpoint: {error}") from None
    return data


def save(
    folder: Path,
    iteration: int,
    state: Any,
    *,
    run: Mapping[str, Any],
    metrics: tuple[int, str],
    timings_bytes: int,
    before: str | None = None,
) -> Manifest:
    """Write a checkpoint, point the manifest to it, then remove all but it and the one before.

    Args:
        folder: where the checkpoints are; made if absent.
        iteration: completed iterations.
        state: dicts, lists and tuples of tensors, numbers, strings, booleans and None.
        run: whose it is, as JSON gives it.
        metrics: length in bytes and SHA-256 of the metrics.jsonl that belongs to this state.
        timings_bytes: length of the timings.jsonl that belongs to this state.
        before: the name of the checkpoint that this one follows.

    Raises:
        ValueError: the state holds something that could not be loaded again; it is named.
        UserError: it cannot be written there; the checkpoint before stays.
    """
    content = {FORMAT: VERSION, "iteration": iteration, "run": dict(run), "metrics": list(metrics)}
    data = pack(content | {"state": _plain(state, "state")})
    digest = hashlib.sha256(data).hexdigest()
    # Named by content too, so that writing an iteration twice never touches the file in use.
    manifest = Manifest(f"{iteration:08d}-{digest[:16]}.pt", digest, iteration, metrics[0], timings_bytes)
    try:
        folder.mkdir(exist_ok=True)
        sync(folder.parent)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}") from None
    write_atomically(folder / manifest.file, data)
    point(folder, manifest)
    tidy(folder, {manifest.file, before})
    return manifest


def point(folder: Path, manifest: Manifest) -> None:
    """Have `latest.json` name a checkpoint."""
    write_atomically(folder / MANIFEST, json.dumps({"version": 1, **asdict(manifest)}, indent=2).encode())


def latest(folder: Path) -> Manifest | None:
    """The manifest of the last checkpoint, or None if there is none.

    Raises:
        UserError: the manifest is damaged.
        ForeignCheckpointError: another version of metarl wrote it.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    try:
        record = parse_json(read_regular(path, LONGEST_MANIFEST))
        if (version := record.pop("version")) != 1:
            raise ForeignCheckpointError(f"{path} has version {shown(version)}; this metarl reads version 1")
        manifest = Manifest(**record)
    except FileNotFoundError:  # removed meanwhile
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path} is damaged: it is no checkpoint manifest") from None
    typed = all(type(getattr(manifest, f.name)).__name__ == f.type for f in fields(Manifest))
    counts = (manifest.iteration, manifest.metrics_bytes, manifest.timings_bytes)
    if not typed or not NAME.fullmatch(manifest.file) or min(counts) < 0:
        raise UserError(f"{path} is damaged: its entries are not those of a checkpoint manifest")
    return manifest


def names(folder: Path) -> list[str]:
    """The checkpoints of a folder by name, those of the most iterations first."""
    whole = [match for path in folder.glob("*.pt") if (match := NAME.fullmatch(path.name))]
    return [match[0] for match in sorted(whole, key=lambda match: (int(match[1]), match[0]), reverse=True)]


def read(folder: Path, file: str, sha256: str | None = None) -> tuple[bytes, str]:
    """The bytes of a checkpoint, verified, and their SHA-256.

    Args:
        folder: where it is.
        file: its name.
        sha256: of its bytes, where the manifest says it; else the name says how that begins.

    Raises:
        UserError: the file is missing or is not the one that was written.
    """
    path = folder / file
    try:
        data = read_regular(path, tensor_file.LARGEST)
    except FileNotFoundError:
        raise UserError(f"the checkpoint {path} is missing") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"the checkpoint {path} cannot be read ({reason})") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != (sha256 or digest) or f"-{digest[:16]}." not in file:
        raise UserError(f"the checkpoint {path} is damaged: its SHA-256 is not the one recorded")
    return data, digest


def load(folder: Path, file: str, sha256: str | None = None) -> Checkpoint:
    """A checkpoint that `read` verifies.

    Raises:
        UserError: as `read` does.
        ForeignCheckpointError: it holds anything but plain data and tensors, is no checkpoint of this format, or
            holds a number that is not finite.
    """
    data, digest = read(folder, file, sha256)
    path = folder / file
    content = unpack(data, path)
    named = NAME.fullmatch(file)
    iteration, run, metrics, state = int(named[1]) if named else 0, None, None, content
    if isinstance(content, dict) and FORMAT in content:
        iteration, run, metrics, state = _opened(content, path, iteration)
    if place := first_non_finite(state):
        raise ForeignCheckpointError(
            f"the checkpoint {path} is refused: {place} is not finite, so its training failed; {REMEDY}"
        )
    return Checkpoint(path, digest, iteration, run, metrics, state)


class ForeignCheckpointError(UserError):
    """A checkpoint that is whole, but is none that this run has written: nothing is used in its place."""


def unpack(data: bytes, path: Path) -> Any:
    """What a file of plain data and tensors holds, every tensor on the CPU.

    Raises:
        ForeignCheckpointError: it holds anything else.
    """
    try:
        return tensor_file.unpack(data)
    except ValueError as error:
        raise ForeignCheckpointError(f"the checkpoint {path} is refused: {error}; {REMEDY}") from None


def _opened(content: Mapping[str, Any], path: Path, named: int) -> tuple[int, Mapping[str, Any], tuple[int, str], Any]:
    """Iteration, run, metrics and state of a file of this format, whose name says the iteration."""
    match content:
        case {"iteration": int(iteration), "run": dict(run), "metrics": [int(length), str(sha256)], "state": state}:
            if iteration != named:
                raise ForeignCheckpointError(
                    f"the checkpoint {path} is refused: its name says {named} iterations, it {iteration}; {REMEDY}"
                )
            if not _json(run):
                raise ForeignCheckpointError(f"the checkpoint {path} is refused: it does not say whose it is; {REMEDY}")
            if content[FORMAT] == VERSION:
                return iteration, run, (length, sha256), state
    raise ForeignCheckpointError(f"the checkpoint {path} is refused: this metarl reads version {VERSION}; {REMEDY}")


def _json(value: Any) -> bool:
    """Whether a value is what JSON gives back; how deep it may be was looked at before."""
    if isinstance(value, dict):
        return all(type(name) is str and _json(item) for name, item in value.items())
    if isinstance(value, list):
        return all(map(_json, value))
    return value is None or type(value) in (bool, int, float, str)


def tidy(folder: Path, keep: Collection[str | None]) -> None:
    """Remove the checkpoints other than those to keep, and what a killed process left half-written."""
    for path in folder.glob("*"):
        if path.name.endswith(TEMPORARY) or (NAME.fullmatch(path.name) and path.name not in keep):
            with contextlib.suppress(OSError):  # a folder of that name, say
                path.unlink()


REMEDY = "restore the run folder from a copy, or train again into another folder"


def _plain(value: Any, where: str) -> Any:
    """The state as exactly the types that load again without running code; refuses the others by name."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        shares = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
        return tensor.clone() if shares else tensor  # a view would drag its whole storage into the file
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        if odd := [key for key in value if type(key) not in (str, int)]:
            raise ValueError(f"{where} has the key {odd[0]!r}: keys of a checkpoint are strings or integers")
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise ValueError(
        f"{where} is a {kind}: a checkpoint holds dicts, lists and tuples of tensors, numbers, strings and None"
    )
