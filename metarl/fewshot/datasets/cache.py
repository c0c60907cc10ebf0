"""Decoded pixels in a file that is mapped into memory: decoding happens once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.allocator import check_memory
from metarl.errors import UserError
from metarl.fewshot.datasets.downloads import cache_folder
from metarl.files import replacing, write_atomically

Pixels = NDArray[np.uint8]
SPARE = 1 << 28  # bytes to leave free on the disk


def decoded(name: str, key: str, shape: tuple[int, ...], fill: Callable[[Pixels], None]) -> Pixels:
    """A uint8 array, from the cache if it is there, else filled once and kept.

    The file appears whole or not at all (temporary name, flush, rename). Where the cache folder
    cannot be written, or the disk is nearly full, the array lives in memory instead.

    Args:
        name: the data set's, the beginning of the file's name.
        key: identifies the source files and how they were decoded.
        shape: the array's.
        fill: writes every element of the array it is given; may raise, and then nothing is kept.

    Raises:
        UserError: there is room neither on the disk nor in memory.

    Returns:
        The array; mapped copy-on-write, so that nothing written to it reaches the file.
    """
    path = _place(name, key, shape)
    cached = _load(path, shape)
    if cached is not None:
        return cached
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < math.prod(shape) + SPARE:
            raise OSError("no room")  # writing to a mapped file on a full disk would kill the process
        writing = contextlib.ExitStack()
        temporary = writing.enter_context(replacing(path))
    except OSError:
        check_memory(math.prod(shape), f"{path.parent} has no room for the pictures of {name}, which need")
        pixels = np.empty(shape, np.uint8)
        fill(pixels)
        return pixels
    with writing:
        mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        fill(mapped)
        mapped.flush()
        del mapped
    made = _load(path, shape)
    if made is None:
        raise OSError(f"{path} changed while it was written")
    return made


def described(name: str, key: str, shape: tuple[int, ...], fill: Callable[[Pixels], Any]) -> tuple[Pixels, Any]:
    """As `decoded`, for a `fill` that returns something to say (JSON), which is kept beside the array.

    Returns:
        The array, and what filling it returned; None where that was nothing.
    """
    path, said = _place(name, key, shape).with_suffix(".json"), []

    def fill_and_note(out: Pixels) -> None:
        said.append(fill(out))
        if said[0]:
            with contextlib.suppress(UserError):
                write_atomically(path, json.dumps(said[0]).encode())  # before the array takes its name

    pixels = decoded(name, key, shape, fill_and_note)
    if said:
        return pixels, said[0]
    try:
        return pixels, json.loads(path.read_text())
    except (OSError, ValueError):
        return pixels, None


def _place(name: str, key: str, shape: tuple[int, ...]) -> Path:
    return cache_folder() / "pixels" / f"{name}-{hashlib.sha256(f'{key} {shape}'.encode()).hexdigest()[:32]}.npy"


def _load(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """The cached array, or None if there is none or it is damaged."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    pixels: Pixels = array.view(np.ndarray)
    return pixels if pixels.dtype == np.uint8 and pixels.shape == shape else None
