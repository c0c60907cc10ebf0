"""Labelled images held in memory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metarl.fewshot.datasets.sampling import Index


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
