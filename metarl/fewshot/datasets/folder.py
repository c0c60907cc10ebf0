"""Any folder of pictures: a subfolder a class.

A class is a folder that holds pictures: `DIR/CLASS/*`, or below folders that group classes, `DIR/GROUP/CLASS/*`; its
name is its path below DIR. All classes lie at one depth, that of most folders with pictures; what lies elsewhere, or is
no picture, is passed over and named in a warning.

Classes are split 64/16/20 % into train, validation and test by a hash of their names, so that a class stays in its
split whatever becomes of the others; or as they lie, in `DIR/train`, `DIR/validation` and `DIR/test` (`training`,
`val`, `valid`, `dev`, `testing`, and so on). Classes of the same name in two of these are refused: they would leak.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

from metarl.errors import UserError
from metarl.fewshot.datasets.cache import described
from metarl.fewshot.datasets.downloads import data_folder
from metarl.fewshot.datasets.folders import FolderStore
from metarl.fewshot.datasets.image_source import SPLITS, ImageSource
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.datasets.picture_files import head_of, is_picture
from metarl.fewshot.datasets.pictures import Preparation, prepare_all
from metarl.fewshot.datasets.reading import Remarks, some, warn

LAYOUT = (
    "a folder for each class with its pictures (DIR/CLASS/*.png or *.jpg), or DIR/train, DIR/validation and DIR/test "
    "with such folders"
)
SPELLINGS = {
    "train": ("train", "training", "trn", "meta-train", "metatrain"),
    "validation": ("validation", "valid", "val", "validate", "dev", "meta-val", "metaval", "meta-validation"),
    "test": ("test", "testing", "tst", "meta-test", "metatest"),
}
NAMES = {spelling: split for split, spellings in SPELLINGS.items() for spelling in spellings}
EMPTY = "folders without a picture"
TEST, VALIDATION = 0.2, 0.16  # shares of the classes
LEAST = 2  # classes that training and test have at least, of four or more: fewer make no task


@dataclass(frozen=True, kw_only=True)
class Folder(ImageSource):
    """Your own pictures; groups are the folders around the classes.

    Attributes:
        size: pictures are resized to size x size with Pillow's LANCZOS filter (aspect is not kept).
        grey: one channel instead of three.
    """

    name: ClassVar[str] = "folder"
    more_classes: ClassVar[str] = (
        ", or more classes, or lay them out in DIR/train, DIR/validation and DIR/test yourself"
    )

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
        """The folder's own split, or the one by name."""
        return self._read()[1]

    def _read(self) -> tuple[Images, dict[str, tuple[int, ...]]]:
        root = self.data_root if self.data_root is not None else data_folder(None) / "folder"
        return read(root.resolve(), self.preparation)


@cache
def read(root: Path, preparation: Preparation) -> tuple[Images, dict[str, tuple[int, ...]]]:
    """All pictures, by class, and the class indices of each split.

    What is passed over or stands out is a `DataWarning`.

    Raises:
        UserError: the folder is not laid out as expected, or pictures are damaged.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; expected: {LAYOUT}; give it with --data-root DIR")
    store = FolderStore(root)
    members, passed_over = classes_of(store)
    if len(members) < 2:
        seen = "; ".join(f"{len(names)} {what}, the first {names[0]}" for what, names in passed_over.items() if names)
        raise UserError(
            f"{root} holds pictures of {len(members)} classes, at least 2 are needed{seen and f' ({seen})'}; "
            f"expected: {LAYOUT}; give it with --data-root DIR"
        )
    own, outside = own_split(root, members)
    members = {folder: names for folder, names in members.items() if folder not in outside}
    files = [name for names in members.values() for name in names]
    counts = tuple(len(names) for names in members.values())
    key = f"{root} {store.fingerprint()} LANCZOS {preparation.mode} rendered {len(counts)}"
    fill = partial(prepare_all, store, files, counts, preparation)
    pixels, remarks = described("folder", key, (len(files), *preparation.image_shape), fill)
    warn(str(root), {"classes passed over beside the folders of splits": outside, **passed_over, **(remarks or {})})
    classes = tuple(own) if own else tuple(members)
    groups = tuple(label.rpartition("/")[0] or label for label in classes)
    splits = split_by_name(classes) if not own else {s: _indices(list(own.values()), s) for s in SPLITS}
    return Images(pixels, classes, counts, groups), splits


def classes_of(store: FolderStore) -> tuple[dict[str, list[str]], Remarks]:
    """The pictures of each class, by the path of its folder below the store, and what was passed over.

    Raises:
        UserError: the folder cannot be listed.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    others: list[str] = []
    for name in store.names:
        if is_picture(name, partial(head_of, store.path / name)):
            by_folder[name.rpartition("/")[0]].append(name)
        else:
            others.append(name)
    depths = Counter(folder.count("/") + 1 for folder in by_folder if folder)
    depth = min(depths, key=lambda each: (-depths[each], each), default=1)
    members = {folder: by_folder[folder] for folder in sorted(by_folder) if folder and folder.count("/") + 1 == depth}
    stray = [name for folder, names in by_folder.items() if folder not in members for name in names]
    empty = [
        folder
        for folder in store.folders
        if folder.count("/") + 1 == depth and not any(f"{parent}/".startswith(f"{folder}/") for parent in by_folder)
    ]
    return members, {
        f"pictures passed over outside of folders as deep as {next(iter(members), 'classes')}": sorted(stray),
        EMPTY: empty,
        "passed over as no pictures": others,
        **store.passed_over,
    }


def own_split(root: Path, members: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], list[str]]:
    """Where classes lie in folders of splits: the split of each, without its folder, and the classes beside these.

    Raises:
        UserError: a class is in two splits.
    """
    parts = {folder: folder.partition("/") for folder in members}
    tops = {folder: NAMES.get(top.lower().replace("_", "-")) for folder, (top, _, label) in parts.items() if label}
    if len({split for split in tops.values() if split}) < 2:
        return {}, []
    inside = {folder: split for folder, split in tops.items() if split}
    counts = Counter(parts[folder][2] for folder in inside)
    if twice := [label for label, count in counts.items() if count > 1]:
        raise UserError(
            f"{root}: {len(twice)} classes are in two splits ({some(twice)}), so test tasks would be trained on; give "
            "one of its folders as --data-root and its classes are split"
        )
    return {parts[folder][2]: split for folder, split in inside.items()}, [f for f in members if f not in inside]


def _indices(own: Sequence[str], split: str) -> tuple[int, ...]:
    return tuple(i for i, each in enumerate(own) if each == split)


def split_by_name(classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Class indices of each split, by a hash of each class's name.

    The hash is a number in [0, 1): below `TEST` the class is tested on, up to `VALIDATION` above it validated on, else
    trained on. Only where that leaves training or test with fewer than `LEAST` of four or more classes, those next to
    the limit change sides, which more classes may undo; a run remembers what it was trained on.
    """
    order = sorted(range(len(classes)), key=lambda i: place(classes[i]))
    places = [place(classes[i]) for i in order]
    most = max(len(classes) - LEAST, 0)
    test = min(max(sum(each < TEST for each in places), LEAST), most)
    seen = min(max(sum(each < TEST + VALIDATION for each in places), test), most)
    return {
        "train": tuple(sorted(order[seen:])),
        "validation": tuple(sorted(order[test:seen])),
        "test": tuple(sorted(order[:test])),
    }


def place(name: str) -> float:
    """Where in [0, 1) a class's name falls: 48 bits of a SHA-256, the same however its letters are composed."""
    text = unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big") / 2**48
