"""CIFAR-FS (Bertinetto et al. 2019): the 100 classes of CIFAR-100, 600 images of 32 x 32 each.

Read from the authors' `cifar_fs.zip` (a picture a file) or from CIFAR-100's own binary archive, which is
fetched if neither is there. The images of a class are ordered by a hash of their pixels, so both give
the same data set and the same tasks.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from metarl.errors import UserError
from metarl.fewshot.datasets.archives import ZipStore, read_tar_gz
from metarl.fewshot.datasets.cache import Pixels, decoded
from metarl.fewshot.datasets.downloads import Remote, data_folder, obtain
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.datasets.pictures import Preparation, decode
from metarl.fewshot.datasets.reading import file_sha256, read_text

SIZE = 32
PREPARATION = Preparation("RGB", (SIZE, SIZE))
PER_CLASS = 600
SHAPE = (60_000, 3, SIZE, SIZE)
ZIPPED = "cifar_fs/cifar_fs.zip"
BINARY = Remote(
    "cifar_fs/cifar-100-binary.tar.gz",
    (
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "http://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    ),
    "md5:03b5dce01913d631647c71ecec9e9cb8",
    1 << 28,
)
LAYOUT = (
    f"{ZIPPED} (the authors' archive: cifar100/data/CLASS/*.png) or "
    f"{BINARY.path} (from cs.toronto.edu/~kriz/cifar.html)"
)
MEMBER = re.compile(r"(?:.*/)?data/([a-z_]+)/[^/]+\.png")

PUBLISHED = {
    "train": (
        "apple aquarium_fish bear bee bottle bowl boy bridge bus can castle caterpillar chair clock cloud "
        "cockroach couch cup dinosaur dolphin elephant forest girl hamster house kangaroo keyboard lawn_mower lion "
        "lizard lobster mountain mouse mushroom oak_tree orange orchid palm_tree pear pine_tree plate porcupine "
        "possum rabbit raccoon ray road seal shrew skunk skyscraper snake spider squirrel streetcar sunflower tank "
        "tiger train trout tulip turtle willow_tree wolf"
    ),
    "validation": (
        "beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter sea shark "
        "television tractor"
    ),
    "test": (
        "baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail sweet_pepper table "
        "telephone wardrobe whale woman worm"
    ),
}
SPLIT_CLASSES = {split: tuple(names.split()) for split, names in PUBLISHED.items()}
CLASSES = tuple(sorted(name for names in SPLIT_CLASSES.values() for name in names))


@dataclass(frozen=True, kw_only=True)
class CifarFS(ImageSource):
    """Colour photographs, `(3, 32, 32)`; 64/16/20 classes as published."""

    name: ClassVar[str] = "cifar-fs"

    @property
    def preparation(self) -> Preparation:
        """Shrunk to 32 x 32."""
        return PREPARATION

    def load(self) -> Images:
        """All 60,000 images."""
        return read(data_folder(self.data_root).resolve())

    def split_classes(self, images: Images) -> Mapping[str, Sequence[int]]:
        """The published class lists."""
        return {split: [images.classes.index(name) for name in names] for split, names in SPLIT_CLASSES.items()}


@cache
def read(root: Path) -> Images:
    """All images, from whichever archive is there.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if (root / ZIPPED).is_file():
        store = ZipStore(root / ZIPPED)
        files = _members(store)
        pixels = decoded("cifar-fs", store.fingerprint(), SHAPE, partial(_fill_from_zip, store, files))
    else:
        path = obtain(root, BINARY, LAYOUT)
        pixels = decoded("cifar-fs", file_sha256(path), SHAPE, partial(_fill_from_binary, path))
    return Images(pixels, CLASSES, (PER_CLASS,) * len(CLASSES), CLASSES)


def _members(store: ZipStore) -> list[str]:
    """The names of the pictures, by class."""
    files = [(match[1], name) for name in store.names if (match := MEMBER.fullmatch(name))]
    if Counter(label for label, _ in files) != dict.fromkeys(CLASSES, PER_CLASS):
        raise UserError(
            f"{store.path} holds {len(files)} pictures of {len({label for label, _ in files})} classes; "
            f"CIFAR-FS has {PER_CLASS} of each of {len(CLASSES)}; expected: {LAYOUT}"
        )
    return [name for _, name in sorted(files)]


def _fill_from_zip(store: ZipStore, files: Sequence[str], out: Pixels) -> None:
    for label in range(len(CLASSES)):
        members = files[label * PER_CLASS : (label + 1) * PER_CLASS]
        _place(out, label, [_picture(store, name) for name in members])


def _picture(store: ZipStore, name: str) -> Pixels:
    picture = decode(store.read(name), store.where(name), PREPARATION.mode)
    if picture.shape != SHAPE[1:]:
        raise UserError(f"{store.where(name)} is {picture.shape[2]}x{picture.shape[1]}, not {SIZE}x{SIZE}")
    return picture


def _fill_from_binary(path: Path, out: Pixels) -> None:
    """CIFAR-100's binary records: coarse label, fine label, then 3 x 32 x 32 bytes."""
    folder = "cifar-100-binary/"
    names = tuple(folder + name for name in ("train.bin", "test.bin", "fine_label_names.txt"))
    members = read_tar_gz(path, names, 1 << 28)
    labels = read_text(members[names[2]], f"{path}: {names[2]}").split()
    data = members[names[0]] + members[names[1]]
    record = 2 + SIZE * SIZE * 3
    if sorted(labels) != list(CLASSES) or len(data) != SHAPE[0] * record:
        raise UserError(f"{path} is not CIFAR-100: {len(labels)} labels, {len(data)} bytes; expected: {LAYOUT}")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    for label, name in enumerate(CLASSES):
        of_class = records[records[:, 1] == labels.index(name), 2:]
        if len(of_class) != PER_CLASS:
            raise UserError(f"{path} holds {len(of_class)} images of {name}, not {PER_CLASS}; expected: {LAYOUT}")
        _place(out, label, list(of_class.reshape(-1, *SHAPE[1:])))


def _place(out: Pixels, label: int, pictures: Sequence[Pixels]) -> None:
    """Write a class's pictures in the order of their pixels' hashes."""
    ordered = sorted(pictures, key=lambda picture: hashlib.sha256(picture.tobytes()).digest())
    out[label * PER_CLASS : (label + 1) * PER_CLASS] = np.stack(ordered)
