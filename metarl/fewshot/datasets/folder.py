"""Any folder of pictures: a subfolder a class.

Either `DIR/CLASS/*.png`, and the classes are split 64/16/20 % into train, validation and test by a keyed
permutation of their names; or `DIR/train/CLASS/*`, `DIR/validation/CLASS/*` (or `val`), `DIR/test/CLASS/*`.
Classes of the same name in two of these are refused: they would leak.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from metarl.fewshot.datasets.archives import SUFFIXES, FolderStore, Preparation
from metarl.fewshot.datasets.cache import Pixels, decoded
from metarl.fewshot.datasets.downloads import data_folder
from metarl.fewshot.images import SPLITS, Images, ImageSource
from metarl.learner import UserError
from metarl.seeding import Key

LAYOUT = (
    "a folder for each class with its pictures (DIR/CLASS/*.png or *.jpg), or DIR/train, DIR/validation and DIR/test "
    "with such folders; give it with --data-root DIR"
)
NAMES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Folder(ImageSource):
    """Your own pictures.

    Attributes:
        size: pictures are resized to size x size with Pillow's LANCZOS filter (aspect is not kept).
        grey: one channel instead of three.
    """

    name: ClassVar[str] = "folder"

    size: int = 84
    grey: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 8 <= self.size <= 1024:
            raise UserError(f"folder: size must be between 8 and 1024 pixels, got {self.size}")

    @property
    def preparation(self) -> Preparation:
        """Resized to size x size."""
        return Preparation("L" if self.grey else "RGB", (self.size, self.size))

    def load(self) -> Images:
        """All pictures of the folder `data_root` (default: `folder` in the data folder)."""
        return self._read()[0]

    def split_classes(self, images: Images) -> Mapping[str, Sequence[int]]:
        """The folder's own split, or the keyed one."""
        return self._read()[1]

    def _read(self) -> tuple[Images, dict[str, tuple[int, ...]]]:
        root = self.data_root if self.data_root is not None else data_folder(None) / "folder"
        return read(root.resolve(), self.preparation)


@cache
def read(root: Path, preparation: Preparation) -> tuple[Images, dict[str, tuple[int, ...]]]:
    """All pictures, by class, and the class indices of each split.

    Raises:
        UserError: the folder is not laid out as expected, or a picture is damaged.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; expected: {LAYOUT}")
    store = FolderStore(root)
    members = _members(store)
    files = [name for names in members.values() for name in names]
    shape = (len(files), *preparation.image_shape)
    key = f"{root} {store.fingerprint()} LANCZOS {preparation.mode}"
    pixels = decoded("folder", key, shape, partial(_fill, store, files, preparation))
    classes = tuple(label for _, label in members)
    counts = tuple(len(names) for names in members.values())
    return Images(pixels, classes, counts, classes), _split([split for split, _ in members], classes)


def _members(store: FolderStore) -> dict[tuple[str, str], list[str]]:
    """The pictures of each (split or "", class)."""
    pictures = [name.split("/") for name in store.names if name.lower().endswith(SUFFIXES)]
    own_split = {parts[0] for parts in pictures} <= set(NAMES) and any(len(parts) == 3 for parts in pictures)
    depth = 3 if own_split else 2
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for parts in pictures:
        if len(parts) != depth:
            raise UserError(f"{store.where('/'.join(parts))} is not in a class's folder; expected: {LAYOUT}")
        members[NAMES[parts[0]] if own_split else "", parts[-2]].append("/".join(parts))
    if len(members) < 2:
        raise UserError(
            f"{store.path} holds pictures of {len(members)} classes, at least 2 are needed; expected: {LAYOUT}"
        )
    labels = [label for _, label in members]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UserError(f"{store.path}: class {twice[0]} is in two splits; its test tasks would be trained on")
    return dict(sorted(members.items()))


def _split(given: Sequence[str], classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The folder's own split, or 64/16/20 % of a keyed permutation; of few classes each split gets one."""
    if any(given):
        return {split: tuple(i for i, own in enumerate(given) if own == split) for split in SPLITS}
    order = np.argsort(Key(0)("folder split").uniform((len(classes),)), kind="stable").tolist()
    test, validation = (math.ceil(share * len(classes)) for share in (0.2, 0.16))
    return {
        "test": tuple(order[:test]),
        "validation": tuple(order[test : test + validation]),
        "train": tuple(order[test + validation :]),
    }


def _fill(store: FolderStore, names: Sequence[str], preparation: Preparation, out: Pixels) -> None:
    for i, name in enumerate(names):
        out[i] = preparation.read(store.read(name), store.where(name))
