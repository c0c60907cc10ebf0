"""Labelled images held in memory, and on the device that learns from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metarl.fewshot.datasets.sampling import Index

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Images:
    """I images of C classes; the images of a class are consecutive.

    Attributes:
        pixels: `(I, channels, height, width)` uint8, possibly mapped from a file.
        classes: C names, e.g. "Greek/character01".
        counts: C images a class.
        groups: C names of what the class belongs to (an alphabet, a script); tasks within a group
            draw all their classes from one.
    """

    pixels: NDArray[np.uint8]
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = (len(self.classes), len(self.counts), len(self.groups))
        if len(set(sizes)) != 1 or sum(self.counts) != len(self.pixels) or len(set(self.classes)) != sizes[0]:
            raise ValueError(f"{len(self.pixels)} images do not fit {sizes} classes, counts and groups")

    @cached_property
    def sizes(self) -> Index:
        """`counts` as an array `(C,)`."""
        return np.array(self.counts, dtype=np.int64)

    @cached_property
    def starts(self) -> Index:
        """The index of each class's first image `(C,)`."""
        return np.cumsum([0, *self.counts[:-1]], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> int:
        """63 bits that identify the classes and their sizes; tasks carry it, so they fit no other data."""
        text = json.dumps([self.classes, self.counts])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1

    @cached_property
    def _moved(self) -> dict[torch.device, Tensor]:
        return {}

    def gather(self, index: Index, turns: NDArray[np.integer], device: torch.device | str = "cpu") -> Tensor:
        """Images `(B, channels, height, width)` float32 in [0, 1] on a device.

        All images move there once, as bytes, so a batch sends indices alone; on the CPU they stay where they are.

        Args:
            index: `(B,)`, which.
            turns: `(B,)`, quarter turns of each.
            device: where.
        """
        import torch  # no earlier than tensors are needed

        device = torch.device(device)
        if device.type == "cpu":
            pixels = torch.from_numpy(np.take(self.pixels, index, axis=0))
        else:
            if device not in self._moved:
                self._moved[device] = torch.from_numpy(np.ascontiguousarray(self.pixels)).to(device)
            pixels = self._moved[device][torch.from_numpy(index).to(device)]
        for quarter in (1, 2, 3):
            rows = np.flatnonzero(turns == quarter)
            if len(rows):
                at = torch.from_numpy(rows).to(device)
                pixels[at] = pixels[at].rot90(quarter, (2, 3))
        return pixels.float().div_(255)
