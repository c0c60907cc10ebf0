"""Few-shot tasks drawn from labelled images.

A task is N classes, a rotation for each, and the indices of its support and query images: plain
data. `ImageSource.batch` turns a whole meta-batch of them into tensors with one gather.

Nothing can leak by construction: the splits of a source are disjoint lists of classes, the images of
a task are drawn without replacement, and a class appears in a task once, in one rotation.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.datasets.pictures import Preparation
from metarl.fewshot.datasets.reading import some
from metarl.fewshot.datasets.sampling import Index, choose, spread
from metarl.learning.contract import ScoreKind
from metarl.seeding import Key
from metarl.tasks import Tasks, Uniform

if TYPE_CHECKING:
    import torch

    from metarl.fewshot.batch import Batch

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class ImageSource(ABC):
    """Few-shot classification tasks from a set of images; satisfies `metarl.learning.contract.Source`.

    A task's arrays: `classes (N,)`, `rotation (N,)` in quarter turns, `support (N*K,)` and
    `support_label`, `query (N*Q,)` and `query_label` (image indices, labels 0..N-1), and `data`, the
    fingerprint of the images they index.

    Attributes:
        ways: N, classes a task.
        shots: K, support images a class.
        queries: Q, query images a class.
        min_ways: with it, every `sample` draws N from min_ways..ways (one N for the meta-batch, so
            its tensors stay rectangular); fixed tasks have `ways`. None: always `ways`.
        min_shots: the same for K.
        unbalanced: the N*K support images are spread unevenly, at least one a class.
        rotations: every class of a task is turned by a random multiple of 90 degrees, in all splits:
            the class augmentation of Santoro et al. 2016, as in MAML's code.
        within_groups: a task's classes all come from one group (an alphabet), as in Lake's benchmark.
        data_root: the folder that holds the data sets; default: the environment's METARL_DATA, then
            the user's cache folder. Not part of the source's identity.
    """

    name: ClassVar[str]
    kind: ClassVar[ScoreKind] = "accuracy"
    more_classes: ClassVar[str] = ""  # how a split that has too few classes gets more, for the message

    ways: int = 5
    shots: int = 1
    queries: int = 15
    min_ways: int | None = None
    min_shots: int | None = None
    unbalanced: bool = False
    rotations: bool = False
    within_groups: bool = False
    data_root: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        low = {"ways": 2, "shots": 1, "queries": 1, "min_ways": 2, "min_shots": 1}
        for name, least in low.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{self.name}: {name} must be at least {least}, got {value}")
        for name in ("ways", "shots"):
            if (getattr(self, f"min_{name}") or 0) > getattr(self, name):
                raise UserError(f"{self.name}: min_{name} {getattr(self, f'min_{name}')} exceeds {name}")

    @abstractmethod
    def load(self) -> Images:
        """All images; cached by the data set, so that two sources share them.

        Raises:
            UserError: the data is missing or damaged; the message says what is expected where.
        """

    @abstractmethod
    def split_classes(self, images: Images) -> Mapping[str, Sequence[int]]:
        """The class indices of each split, disjoint."""

    @cached_property
    def images(self) -> Images:
        """All images of all splits."""
        return self.load()

    @cached_property
    def _split_ids(self) -> dict[str, Index]:
        ids_of = {name: np.array(ids, dtype=np.int64) for name, ids in self.split_classes(self.images).items()}
        every = np.concatenate(list(ids_of.values()))
        if len(np.unique(every)) != len(every):
            raise ValueError(f"{self.name}: a class is in two splits")
        return ids_of

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, validation and test, unless the data set says otherwise."""
        return SPLITS

    @property
    def unseen(self) -> bool:
        """True: test classes are never trained on."""
        return True

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.preparation.image_shape

    @property
    def preparation(self) -> Preparation:
        """How its pictures became its images; unless the data set says otherwise, only their size changed."""
        channels, height, width = self.images.pixels.shape[1:]
        return Preparation("L" if channels == 1 else "RGB", (height, width))

    def __getstate__(self) -> dict[str, Any]:
        """Its fields: a copy or a pickle loads its images again."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def classes(self, split: str) -> tuple[str, ...]:
        """The names of a split's classes."""
        self._check_split(split)
        return tuple(self.images.classes[i] for i in self._split_ids[split])

    def split_sha256(self, split: str) -> str:
        """A hash of the split's class list, whatever its order."""
        return hashlib.sha256("\n".join(sorted(self.classes(split))).encode()).hexdigest()

    def options(self) -> dict[str, Any]:
        """All fields but `data_root`: with `name`, they identify the source and rebuild it."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.compare}

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Tasks:
        """Fresh tasks, n of them, all of one way and shot.

        Raises:
            UserError: the split has too few classes, or a class too few images.
        """
        ways = self.ways if self.min_ways is None else int(rng.integers(self.min_ways, self.ways + 1))
        shots = self.shots if self.min_shots is None else int(rng.integers(self.min_shots, self.shots + 1))
        return self._draw(n, rng.random, split, ways, shots)

    def fixed(self, split: str, n: int) -> Tasks:
        """The first n tasks of the split's one frozen sequence (from raw Philox bits).

        Raises:
            UserError: as `sample`.
            ValueError: n is not positive.
        """
        if n < 1:
            raise ValueError(f"need at least one task, got {n}")
        key = Key(0)("fixed", self.name, json.dumps(self.options(), sort_keys=True), split)

        streams = [key(i).uniforms() for i in range(n)]

        def uniform(shape: tuple[int, ...]) -> NDArray[np.float64]:
            return np.concatenate([stream((shape[0] // n, *shape[1:])) for stream in streams])

        return self._draw(n, uniform, split, self.ways, self.shots)

    def batch(self, tasks: Tasks, device: torch.device | str = "cpu") -> Batch:
        """The tensors of T tasks, by one gather over the images in memory.

        Returns:
            Support `(T, N*K, C, H, W)` and query `(T, N*Q, C, H, W)` float32 in [0, 1], labels int64.

        Raises:
            ValueError: the tasks belong to other data.
        """
        import torch  # no earlier than tensors are needed

        from metarl.fewshot.batch import Batch

        a = tasks.arrays
        if (a["data"] != self.images.fingerprint).any():
            raise ValueError(f"these tasks index other images than those of {self.name}")
        shapes = [a[name].shape for name in ("support", "query")]
        index = np.concatenate([a["support"].ravel(), a["query"].ravel()])
        turns = np.concatenate(
            [np.take_along_axis(a["rotation"], a[f"{s}_label"], 1).ravel() for s in ("support", "query")]
        )
        values = self.images.gather(index, turns, device)
        cut = a["support"].size
        support_x, query_x = (
            part.view(*shape, *values.shape[1:])
            for part, shape in zip((values[:cut], values[cut:]), shapes, strict=True)
        )
        labels = (torch.tensor(a[f"{s}_label"], device=device) for s in ("support", "query"))
        return Batch(support_x, next(labels), query_x, next(labels))

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")

    @cached_property
    def _tables(self) -> dict[tuple[str, int], tuple[Index, Index, int]]:
        return {}

    def _pools(self, split: str, ways: int) -> tuple[Index, Index, int]:
        """A table `(G, most)` of class ids to choose from, its row lengths `(G,)`, the fewest images of a class."""
        self._check_split(split)
        if (split, ways) not in self._tables:
            self._tables[split, ways] = self._make_pools(split, ways)
        return self._tables[split, ways]

    def _check_images(self, split: str, pools: Iterable[Index], needed: int) -> None:
        """Check that every class a task may draw has enough images; all that have not are named."""
        counts = sorted((int(self.images.counts[i]), self.images.classes[i]) for pool in pools for i in pool)
        few = [f"{name}: {count}" for count, name in counts if count < needed]
        if not few:
            return
        if len(few) == len(counts):
            which, cure = f"no {split} class has more than {counts[-1][0]}", ""
        else:
            which, cure = f"{len(few)} {split} classes have fewer ({some(few)})", ", or take these classes out"
        raise UserError(
            f"{self.name}: {needed - self.queries} shots and {self.queries} queries need {needed} images a class, "
            f"{which}; lower --shots or --queries{cure}"
        )

    def _make_pools(self, split: str, ways: int) -> tuple[Index, Index, int]:
        ids = self._split_ids[split]
        labels = np.array(self.images.groups)[ids] if self.within_groups else np.zeros(len(ids), np.int64)
        pools = [ids[labels == label] for label in np.unique(labels)]
        large = [pool for pool in pools if len(pool) >= ways]
        if not large:
            most, where = max(map(len, pools), default=0), "one group" if self.within_groups else "all"
            works = f"at most --ways {most}" if most > 1 else "no task can be made of it"
            others = ", ".join(f"{name} {len(self._split_ids[name])}" for name in self.splits if name != split)
            raise UserError(
                f"{self.name}: {ways} ways asked for, the {split} split has {most} classes in {where} ({others}): "
                f"{works}{self.more_classes}"
            )
        table = np.zeros((len(large), max(map(len, large))), np.int64)
        for row, pool in zip(table, large, strict=True):
            row[: len(pool)] = pool
        fewest = min(self.images.counts[i] for pool in large for i in pool)
        return table, np.array([len(pool) for pool in large]), fewest

    def _draw(self, n: int, uniform: Uniform, split: str, ways: int, shots: int) -> Tasks:
        table, lengths, fewest = self._pools(split, ways)
        if fewest < shots + self.queries:
            pools = (row[:length] for row, length in zip(table, lengths, strict=True))
            self._check_images(split, pools, shots + self.queries)
        group = (uniform((n, 1))[:, 0] * len(table)).astype(np.int64)
        classes = table[group[:, None], choose(uniform((n, ways)), lengths[group])]
        rotation = np.zeros((n, ways), np.int8)
        if self.rotations:
            rotation = (4 * uniform((n, ways))).astype(np.int8)
        most, support_count = shots, np.full((n, ways), shots)
        if self.unbalanced:
            most = min(fewest - self.queries, ways * (shots - 1) + 1)
            support_count = spread(uniform, n, ways, shots, most)
        members = choose(uniform((n * ways, self.queries + most)), self.images.sizes[classes].ravel())
        members = members.reshape(n, ways, -1) + self.images.starts[classes][:, :, None]
        labels = np.broadcast_to(np.arange(ways, dtype=np.int64)[None, :, None], (n, ways, most))
        used = np.arange(most) < support_count[:, :, None]
        return Tasks(
            {
                "classes": classes,
                "rotation": rotation,
                "support": members[:, :, self.queries :][used].reshape(n, ways * shots),
                "support_label": labels[used].reshape(n, ways * shots),
                "query": members[:, :, : self.queries].reshape(n, -1),
                "query_label": np.tile(np.repeat(np.arange(ways, dtype=np.int64), self.queries), (n, 1)),
                "data": np.full(n, self.images.fingerprint, np.int64),
            },
            split=split,
        )


def check_images(source: Any, what: str) -> None:
    """Refuse a data set without images.

    Args:
        source: of tasks.
        what: needs images, for the line.

    Raises:
        UserError: it has none.
    """
    if not isinstance(source, ImageSource):
        raise UserError(f"{what} learns from images, and {source.name} has none; choose another data set or learner")
