"""What a folder of pictures holds, all its faults at once; nothing is kept of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from metarl.errors import UserError
from metarl.fewshot.datasets.folder import LAYOUT, classes_of, own_split, split_by_name
from metarl.fewshot.datasets.folders import FolderStore
from metarl.fewshot.datasets.image_source import SPLITS
from metarl.fewshot.datasets.picture_files import ADVICE, FRAMES, has_frames, opened
from metarl.fewshot.datasets.pictures import render


@dataclass(frozen=True)
class LargestTasks:
    """The largest tasks that can be made of a split.

    Attributes:
        ways: its classes.
        shots: support images that its smallest class has beside the query images; 0: none.
    """

    ways: int
    shots: int


@dataclass(frozen=True)
class Inspection:
    """What a folder holds.

    Attributes:
        classes: pictures of each.
        sizes: pictures of each size, width x height.
        modes: pictures of each of Pillow's modes.
        passed_over: names of what is not read, or stands out, by why.
        damaged: a line for each picture that cannot be read.
        split_by: how classes are split, in words.
        splits: classes of each split.
        tasks: the largest tasks of each split.
    """

    classes: dict[str, int]
    sizes: dict[str, int]
    modes: dict[str, int]
    passed_over: dict[str, list[str]]
    damaged: list[str]
    split_by: str
    splits: dict[str, list[str]]
    tasks: dict[str, LargestTasks]


def inspect_folder(root: Path, queries: int) -> Inspection:
    """Look at all pictures of a folder, as the data set `folder` reads it.

    Args:
        root: the folder.
        queries: query images a class of the tasks.

    Raises:
        UserError: it is no folder or cannot be listed, it holds no class, or a class is in two splits.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; expected: {LAYOUT}")
    store = FolderStore(root)
    members, passed_over = classes_of(store)
    if not members:
        raise UserError(f"{root} holds no folder of pictures; expected: {LAYOUT}")
    own, outside = own_split(root, members)
    passed_over = {"classes passed over beside the folders of splits": outside, **passed_over}
    members = {folder: names for folder, names in members.items() if folder not in outside}
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    damaged: list[str] = []
    frames: list[str] = []
    for name in (name for names in members.values() for name in names):
        try:
            with opened(store.read(name), store.where(name)) as picture:
                size, mode = f"{picture.width}x{picture.height}", picture.mode
                if has_frames(picture):
                    frames.append(name)
                render(picture, "RGB")
        except UserError as error:
            damaged.append(str(error).partition(f"; {ADVICE}")[0])
            continue
        sizes[size] += 1
        modes[mode] += 1
    labels = tuple(own) if own else tuple(members)
    counts = dict(zip(labels, map(len, members.values()), strict=True))
    if own:
        splits = {split: [label for label in labels if own[label] == split] for split in SPLITS}
    else:
        splits = {split: [labels[i] for i in ids] for split, ids in split_by_name(labels).items()}
    tasks = {}
    for split, names in splits.items():
        fewest = min((counts[name] for name in names), default=0)
        tasks[split] = LargestTasks(len(names), max(0, fewest - queries))
    return Inspection(
        counts,
        dict(sizes),
        dict(modes),
        {what: list(names) for what, names in {**passed_over, FRAMES: frames}.items() if names},
        damaged,
        "as it lies in folders" if own else "by the classes' names",
        splits,
        tasks,
    )
