"""Omniglot (Lake et al. 2015): 1,623 handwritten characters of 50 alphabets, 20 drawings each.

Pictures are resized from 105 x 105 to 28 x 28 with Pillow's LANCZOS filter on greyscale (as learn2learn
does; torchmeta's filter is the bilinear one, and code that resizes the 1-bit picture, as Finn's and Snell's,
gets nearest-neighbour) and inverted: ink is 1, paper is 0.

The presets differ in which characters train, validate and test:

- `vinyals`: 1028/172/423 characters (Vinyals et al. 2016, as published by Snell et al. 2017 and torchmeta):
  the background alphabets and the first of the evaluation ones train, five background alphabets validate.
  No character is in two splits, but one alphabet is: 41 characters of Gurmukhi train and its last 4 test,
  so test tasks are not altogether of unseen alphabets.
- `maml`: 1100/100/423 characters chosen at random (Finn et al. 2017, whose permutation depends on the
  order in which their file system listed folders: here it is a keyed one). All 50 alphabets train and test.
- `lake`: the background alphabets train, the evaluation alphabets test; no validation split.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from metarl.errors import UserError
from metarl.fewshot.datasets.archives import Store, ZipStore
from metarl.fewshot.datasets.cache import Pixels, decoded
from metarl.fewshot.datasets.downloads import Remote, data_folder, obtain
from metarl.fewshot.datasets.image_source import SPLITS, ImageSource
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.datasets.pictures import Preparation, decode
from metarl.seeding import Key

SIZE = 28
PREPARATION = Preparation("L", (SIZE, SIZE), inverted=True)
DECODING = "28x28 LANCZOS from L, inverted"  # part of the cache's key: change it with the preparation
DRAWINGS = 20  # a character
MIRRORS = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python",
    "https://github.com/brendenlake/omniglot/raw/master/python",
)
LAYOUT = "omniglot/images_background.zip and omniglot/images_evaluation.zip, from github.com/brendenlake/omniglot"


@dataclass(frozen=True)
class Part:
    """One of the two archives, and what identifies its content."""

    remote: Remote
    characters: int
    sha256: str  # over sorted names and 105 x 105 bits: the same however they are zipped


def _part(name: str, md5: str, characters: int, sha256: str) -> Part:
    urls = tuple(f"{mirror}/images_{name}.zip" for mirror in MIRRORS)
    return Part(Remote(f"omniglot/images_{name}.zip", urls, f"md5:{md5}", 1 << 25), characters, sha256)


PARTS = {
    "background": _part(
        "background",
        "68d2efa1b9178cc56df9314c21c6e718",
        964,
        "72b29e700cff186ed4eec511699ee2b6466aab8e2fa6daf852264b72ab606d32",
    ),
    "evaluation": _part(
        "evaluation",
        "6b91aef0f799c5bb55b94e3f2daec811",
        659,
        "3bccfcf54110b862e4f04c62a4d7d432b0f2bf145889b45d9b824cbd9191ccd5",
    ),
}
MEMBER = re.compile(r"images_(?:background|evaluation)/([^/]+/character\d\d)/\d{4}_\d\d\.png")

VINYALS_VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
VINYALS_TRAIN_EVALUATION = (
    "Angelic",
    "Atemayar_Qelisayer",
    "Atlantean",
    "Aurek-Besh",
    "Avesta",
    "Ge_ez",
    "Glagolitic",
)
VINYALS_GURMUKHI = 41  # of Gurmukhi's 45 characters the first 41 train, the last 4 test


@dataclass(frozen=True, kw_only=True)
class Omniglot(ImageSource):
    """Handwritten characters, `(1, 28, 28)`; groups are alphabets.

    Attributes:
        preset: whose class lists: `vinyals`, `maml` or `lake`.
        rotations: on by default, in all splits, as for Vinyals et al. 2016, Snell et al. 2017 and Finn et al. 2017
            (Nichol et al. 2018 turn characters only in training, Lake et al. not at all).
    """

    name: ClassVar[str] = "omniglot"
    presets: ClassVar[tuple[str, ...]] = ("vinyals", "maml", "lake")

    preset: Literal["vinyals", "maml", "lake"] = "vinyals"
    rotations: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset not in self.presets:
            raise UserError(f"omniglot has no preset {self.preset!r}; choose from {', '.join(self.presets)}")

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, validation and test; `lake` has no validation split."""
        return ("train", "test") if self.preset == "lake" else SPLITS

    @property
    def preparation(self) -> Preparation:
        """Shrunk and inverted."""
        return PREPARATION

    def load(self) -> Images:
        """All 32,460 drawings."""
        return read(data_folder(self.data_root).resolve())

    def split_classes(self, images: Images) -> Mapping[str, Sequence[int]]:
        """Class indices of the preset's lists."""
        background = PARTS["background"].characters
        everything = range(len(images.classes))
        if self.preset == "lake":
            return {"train": everything[:background], "test": everything[background:]}
        if self.preset == "maml":
            order = np.argsort(Key(0)("omniglot", "maml split").uniform((len(everything),)), kind="stable")
            return {
                "train": order[:1100].tolist(),
                "validation": order[1100:1200].tolist(),
                "test": order[1200:].tolist(),
            }
        validation = [i for i in everything if images.groups[i] in VINYALS_VALIDATION]
        train = [
            i
            for i in everything
            if (i < background and images.groups[i] not in VINYALS_VALIDATION)
            or images.groups[i] in VINYALS_TRAIN_EVALUATION
            or (images.groups[i] == "Gurmukhi" and int(images.classes[i][-2:]) <= VINYALS_GURMUKHI)
        ]
        return {"train": train, "validation": validation, "test": sorted(set(everything) - {*train, *validation})}


@cache
def read(root: Path) -> Images:
    """Both archives; background classes come first, each part in the order of its names.

    Raises:
        UserError: an archive is missing, damaged, or not Omniglot's.
    """
    classes: list[str] = []
    pixels = []
    for name, part in PARTS.items():
        store = ZipStore(obtain(root, part.remote, LAYOUT))
        files = drawings(store, part)
        shape = (len(files), 1, SIZE, SIZE)
        key = f"{store.fingerprint()} {part.sha256} {DECODING}"
        pixels.append(decoded(f"omniglot-{name}", key, shape, partial(_fill, store, files, part)))
        classes += [character for _, character in files[::DRAWINGS]]
    alphabets = tuple(character.split("/")[0] for character in classes)
    return Images(np.concatenate(pixels), tuple(classes), (DRAWINGS,) * len(classes), alphabets)


def _fill(store: Store, files: Sequence[tuple[str, str]], part: Part, out: Pixels) -> None:
    """Decode, verify and shrink every drawing."""
    digest = hashlib.sha256()
    for i, (name, _) in enumerate(files):
        picture = decode(store.read(name), store.where(name), "L")
        digest.update(name.encode() + b"\0" + np.packbits(picture > 127).tobytes())
        out[i] = PREPARATION.finish(picture)
    if digest.hexdigest() != part.sha256:
        raise UserError(f"the pictures in {store.path} are not Omniglot's; expected: {LAYOUT}")


def drawings(store: Store, part: Part) -> list[tuple[str, str]]:
    """The archive's pictures as (name, class), sorted.

    Raises:
        UserError: it does not hold the right number of characters and drawings.
    """
    files = [(name, match[1]) for name in store.names if (match := MEMBER.fullmatch(name))]
    counts = Counter(character for _, character in files)
    if len(counts) != part.characters or set(counts.values()) != {DRAWINGS}:
        raise UserError(
            f"{store.path} holds {len(files)} drawings of {len(counts)} characters; "
            f"Omniglot's has {DRAWINGS} of each of {part.characters}; expected: {LAYOUT}"
        )
    return files
