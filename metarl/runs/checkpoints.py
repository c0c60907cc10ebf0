"""Checkpoints that survive being killed: whole, verified, and never code.

A folder of checkpoints holds `latest.json`, a manifest that names the last checkpoint with its SHA-256,
and that checkpoint. Every file is written to a temporary name, flushed to disk and renamed; the manifest
moves only when the checkpoint it names is complete, and older files go only after it has moved. So at
any moment the manifest, if there is one, names a complete checkpoint. Loading uses PyTorch's restricted
unpickler (`weights_only=True`): a file that would run code is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from metarl.documents import parse_json, read_regular
from metarl.errors import UserError, one_line
from metarl.files import TEMPORARY, sync, write_atomically
from metarl.ops.finite import first_non_finite
from metarl.runs import tensor_file

MANIFEST = "latest.json"
LONGEST_MANIFEST = 1 << 16  # bytes
_NAME = re.compile(r"\d{8,}-[0-9a-f]{16}\.pt")


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


def save(folder: Path, iteration: int, state: Any, *, metrics_bytes: int, timings_bytes: int) -> Manifest:
    """Write a checkpoint, point the manifest to it, then remove what it replaces.

    Args:
        folder: where the checkpoints are; made if absent.
        iteration: completed iterations.
        state: dicts, lists and tuples of tensors, numbers, strings, booleans and None.
        metrics_bytes: length of metrics.jsonl that belongs to this state.
        timings_bytes: length of timings.jsonl that belongs to this state.

    Raises:
        ValueError: the state holds something that could not be loaded again; it is named.
        UserError: it cannot be written there; the checkpoint before stays.
    """
    data = pack(state)
    digest = hashlib.sha256(data).hexdigest()
    # Named by content too, so that writing an iteration twice never touches the file in use.
    manifest = Manifest(f"{iteration:08d}-{digest[:16]}.pt", digest, iteration, metrics_bytes, timings_bytes)
    if not folder.is_dir():
        folder.mkdir()
        sync(folder.parent)
    write_atomically(folder / manifest.file, data)
    write_atomically(folder / MANIFEST, json.dumps({"version": 1, **asdict(manifest)}, indent=2).encode())
    tidy(folder, manifest)
    return manifest


def latest(folder: Path) -> Manifest | None:
    """The manifest of the last checkpoint, or None if none was completed.

    Raises:
        UserError: the manifest is damaged.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    try:
        record = parse_json(read_regular(path, LONGEST_MANIFEST))
        version = record.pop("version")
        manifest = Manifest(**record)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path} is damaged: it is no checkpoint manifest; {_REMEDY}") from None
    if version != 1:
        raise UserError(f"{path} has version {version!r}; this metarl reads version 1")
    typed = all(type(getattr(manifest, f.name)).__name__ == f.type for f in fields(Manifest))
    counts = (manifest.iteration, manifest.metrics_bytes, manifest.timings_bytes)
    if not typed or not _NAME.fullmatch(manifest.file) or min(counts) < 0:
        raise UserError(f"{path} is damaged: its entries are not those of a checkpoint manifest; {_REMEDY}")
    return manifest


def read(folder: Path, manifest: Manifest) -> bytes:
    """The bytes of the checkpoint, verified.

    Raises:
        UserError: the file is missing or is not the one that was written.
    """
    path = folder / manifest.file
    try:
        data = read_regular(path, tensor_file.LARGEST)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"the checkpoint {path} cannot be read ({reason}); {_REMEDY}") from None
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise UserError(f"the checkpoint {path} is damaged: its SHA-256 is not the one recorded; {_REMEDY}")
    return data


def load(folder: Path, manifest: Manifest) -> Any:
    """The state of the checkpoint, every tensor on the CPU.

    Raises:
        UserError: the file is missing, damaged, foreign (holds anything but plain data and tensors), or holds a
            number that is not finite.
    """
    data, path = read(folder, manifest), folder / manifest.file
    try:
        state = tensor_file.unpack(data)
    except ValueError as error:
        raise UserError(f"the checkpoint {path} is refused: {error}; {_REMEDY}") from None
    if place := first_non_finite(state):
        raise UserError(f"the checkpoint {path} is refused: {place} is not finite, so its training failed; {_REMEDY}")
    return state


def tidy(folder: Path, manifest: Manifest | None) -> None:
    """Remove checkpoints other than the manifest's, and what a killed process left half-written."""
    kept = manifest.file if manifest else None
    for path in folder.glob("*"):
        if path.name.endswith(TEMPORARY) or (_NAME.fullmatch(path.name) and path.name != kept):
            path.unlink(missing_ok=True)


_REMEDY = "restore the run folder from a copy, or train again into another folder"


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
