"""mini-ImageNet with the split of Ravi & Larochelle 2017: 64/16/20 classes, 600 images each, 84 x 84.

ImageNet's licence does not let anybody hand its pictures on: bring your own. Expected below the data
folder: `mini_imagenet/train.csv`, `val.csv`, `test.csv` (filename,label) and the pictures they name in
`mini_imagenet/images/` (or folders in it) or `mini_imagenet/images.zip`, of any size: they are resized to 84 x 84
with Pillow's LANCZOS filter, once, into a file that later runs map into memory.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

from metarl.errors import UserError
from metarl.fewshot.datasets.archives import Store, open_store
from metarl.fewshot.datasets.cache import described
from metarl.fewshot.datasets.downloads import data_folder
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.datasets.pictures import Preparation, prepare_all
from metarl.fewshot.datasets.reading import read_file, read_text, reading, warn

SIZE = 84
PREPARATION = Preparation("RGB", (SIZE, SIZE))
PER_CLASS = 600
FILES = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
# SHA-256 of each split's sorted class names, joined by newlines
PUBLISHED = {
    "train": "0f107a65ea80bf1e1d1e5e18d368f0d007e3e4c1885f33cc071363997e3814e9",
    "validation": "489f8af43b2560094c8766f36213842de429622b67b5e9fed1277ebb99806f7d",
    "test": "0db5287e659efd3391c100c88f40df0f66510dfa9be94b8d0ecc66498f4e9810",
}
LAYOUT = (
    "mini_imagenet/train.csv, val.csv and test.csv (Ravi & Larochelle's lists, from "
    "github.com/twitter/meta-learning-lstm, data/miniImagenet) and your own ImageNet pictures in "
    "mini_imagenet/images/ or mini_imagenet/images.zip"
)


@dataclass(frozen=True, kw_only=True)
class MiniImageNet(ImageSource):
    """Colour photographs, `(3, 84, 84)`."""

    name: ClassVar[str] = "mini-imagenet"

    @property
    def preparation(self) -> Preparation:
        """Shrunk to 84 x 84."""
        return PREPARATION

    def load(self) -> Images:
        """All 60,000 images, mapped from the cache."""
        return read(data_folder(self.data_root).resolve())[0]

    def split_classes(self, images: Images) -> Mapping[str, Sequence[int]]:
        """The published class lists."""
        lists = read(data_folder(self.data_root).resolve())[1]
        return {split: [images.classes.index(label) for label in labels] for split, labels in lists.items()}


@cache
def read(root: Path) -> tuple[Images, dict[str, tuple[str, ...]]]:
    """All images, in the order of the lists, and the classes of each split.

    Raises:
        UserError: a list or a picture is missing or damaged.
    """
    folder = root / "mini_imagenet"
    lists = {split: read_list(folder / name, split) for split, name in FILES.items()}
    store = _pictures(folder)
    wanted = [name for members in lists.values() for names in members.values() for name in names]
    files = _locate(store, wanted)
    classes = tuple(label for members in lists.values() for label in members)
    counts = tuple(len(names) for members in lists.values() for names in members.values())
    key = f"{store.fingerprint()} {hashlib.sha256(chr(10).join(files).encode()).hexdigest()} LANCZOS RGB rendered"
    fill = partial(prepare_all, store, files, counts, PREPARATION)
    pixels, remarks = described("mini-imagenet", key, (len(wanted), 3, SIZE, SIZE), fill)
    warn(str(store.path), remarks or {})
    return Images(pixels, classes, counts, classes), {split: tuple(members) for split, members in lists.items()}


def read_list(path: Path, split: str) -> dict[str, list[str]]:
    """The file names of each class of a list, in the list's order.

    Raises:
        UserError: the list is missing, damaged, or not the published one.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; expected: {LAYOUT}")
    members: dict[str, list[str]] = defaultdict(list)
    with reading(str(path)):
        rows = list(csv.reader(io.StringIO(read_text(read_file(path), str(path)), newline=""), strict=True))
        if not rows or rows[0] != ["filename", "label"]:
            raise ValueError("its first line is not filename,label")
        for number, row in enumerate(rows[1:], 2):
            if len(row) != 2 or PurePosixPath(row[0]).name != row[0] or "\\" in row[0]:
                raise ValueError(f"line {number} is not a file name and a label")
            members[row[1]].append(row[0])
    names = [name for files in members.values() for name in files]
    digest = hashlib.sha256("\n".join(sorted(members)).encode()).hexdigest()
    if digest != PUBLISHED[split] or {len(files) for files in members.values()} != {PER_CLASS}:
        raise UserError(
            f"{path} is not the published {split} list: it has {len(names)} pictures of {len(members)} classes; "
            f"expected: {LAYOUT}"
        )
    if len(set(names)) != len(names):
        raise UserError(f"{path} names a picture twice; expected: {LAYOUT}")
    return dict(members)


def _pictures(folder: Path) -> Store:
    for path in (folder / "images", folder / "images.zip"):
        if path.exists():
            return open_store(path)
    raise UserError(f"{folder / 'images'} is missing; expected: {LAYOUT}")


def _locate(store: Store, wanted: Sequence[str]) -> list[str]:
    """Where each wanted picture is, digest by its bare name: there are often folders around them."""
    where: dict[str, str] = {}
    listed, twice = set(wanted), []
    for name in store.names:
        bare = PurePosixPath(name).name
        if bare in listed and where.setdefault(bare, name) != name:
            twice.append(f"{where[bare]} and {name}")
    if missing := [name for name in wanted if name not in where]:
        raise UserError(f"{store.path} lacks {len(missing)} pictures, the first {missing[0]}; expected: {LAYOUT}")
    if twice:
        raise UserError(f"{store.path} holds {len(twice)} pictures twice, the first {twice[0]}; expected: {LAYOUT}")
    return [where[name] for name in wanted]
