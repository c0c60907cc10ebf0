"""Lake's one-shot benchmark: 20 runs of 20-way classification within an alphabet (Lake et al. 2015).

Each official run has one picture of each of 20 characters, drawn by one person, and 20 test pictures of
the same characters by another. The error is over all 400 test pictures, in per cent; people make 4.5 (from memory).
Train on Omniglot's `lake` preset: the runs use characters of the evaluation alphabets.

The modified Hausdorff distance (Dubuisson & Jain 1994) is the benchmark's own baseline: 38.8 % error,
which the official script states and a test reproduces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.archives import ZipStore
from metarl.fewshot.datasets.downloads import Remote, data_folder, obtain
from metarl.fewshot.datasets.omniglot import MIRRORS, PREPARATION
from metarl.fewshot.datasets.pictures import decode
from metarl.fewshot.datasets.reading import read_text, reading

RUNS, WAYS = 20, 20
PIXELS = 105
REMOTE = Remote(
    "omniglot/all_runs.zip",
    tuple(f"{mirror}/one-shot-classification/all_runs.zip" for mirror in MIRRORS),
    "md5:e8996daecdf12afeeb4a53a179f06b19",
    1 << 22,
)
LAYOUT = "omniglot/all_runs.zip, from github.com/brendenlake/omniglot, python/one-shot-classification"


@dataclass(frozen=True)
class LakeRuns:
    """The 20 runs; ink is true.

    Attributes:
        training: `(20, 20, 105, 105)` bool, one picture of each class of each run.
        test: `(20, 20, 105, 105)` bool.
        answers: `(20, 20)` int64, the class of each test picture.
    """

    training: NDArray[np.bool_]
    test: NDArray[np.bool_]
    answers: NDArray[np.int64]

    def batch(self, device: torch.device | str = "cpu") -> Batch:
        """The runs as 20 tasks of 20 ways and 1 shot, `(20, 20, 1, 28, 28)`, shrunk as Omniglot's pictures are."""
        labels = np.tile(np.arange(WAYS), (RUNS, 1))
        pixels = [self._shrunk(pictures) for pictures in (self.training, self.test)]
        support, query = (torch.from_numpy(each).to(device).float().div_(255) for each in pixels)
        return Batch(support, torch.tensor(labels, device=device), query, torch.tensor(self.answers, device=device))

    def errors(self, predict: Callable[[Batch], Tensor]) -> NDArray[np.float64]:
        """Per cent wrong in each run, `(20,)`.

        Args:
            predict: from the batch of all runs to predicted classes `(20, 20)`.
        """
        predicted = predict(self.batch()).detach().cpu().numpy()
        if predicted.shape != self.answers.shape:
            raise ValueError(f"predictions have shape {predicted.shape}, not {self.answers.shape}")
        wrong: NDArray[np.float64] = 100 * (predicted != self.answers).mean(1)
        return wrong

    def hausdorff_errors(self) -> NDArray[np.float64]:
        """Per cent wrong in each run, `(20,)`, of the nearest picture by modified Hausdorff distance."""
        wrong = np.empty(RUNS)
        for run in range(RUNS):
            training, test = ([ink(picture) for picture in pictures[run]] for pictures in (self.training, self.test))
            nearest = [int(np.argmin([modified_hausdorff(a, b) for b in training])) for a in test]
            wrong[run] = 100 * (np.array(nearest) != self.answers[run]).mean()
        return wrong

    @staticmethod
    def _shrunk(pictures: NDArray[np.bool_]) -> NDArray[np.uint8]:
        paper = np.where(pictures, np.uint8(0), np.uint8(255)).reshape(-1, PIXELS, PIXELS)
        return PREPARATION.finish(paper).reshape(RUNS, WAYS, *PREPARATION.image_shape)


def ink(picture: NDArray[np.bool_]) -> KDTree:
    """The inked pixels' coordinates `(n, 2)`, centred on their mean, in a tree that finds nearest neighbours."""
    points = np.argwhere(picture).astype(np.float64)
    return KDTree(points - points.mean(0))


def modified_hausdorff(a: KDTree, b: KDTree) -> float:
    """The larger of the two mean distances from a point of one set to the nearest of the other."""
    return max(float(b.query(a.data)[0].mean()), float(a.query(b.data)[0].mean()))


def load(data_root: Path | None = None) -> LakeRuns:
    """The official runs.

    Raises:
        UserError: the archive is missing or damaged.
    """
    store = ZipStore(obtain(data_folder(data_root), REMOTE, LAYOUT))
    training = np.empty((RUNS, WAYS, PIXELS, PIXELS), np.bool_)
    test = np.empty_like(training)
    answers = np.empty((RUNS, WAYS), np.int64)
    for run in range(RUNS):
        folder = f"run{run + 1:02d}"
        for i in range(WAYS):
            training[run, i] = _ink(store, f"{folder}/training/class{i + 1:02d}.png")
            test[run, i] = _ink(store, f"{folder}/test/item{i + 1:02d}.png")
        answers[run] = _answers(store, folder)
    return LakeRuns(training, test, answers)


def _ink(store: ZipStore, name: str) -> NDArray[np.bool_]:
    picture = decode(store.read(name), store.where(name), "L")[0]
    with reading(store.where(name)):
        if picture.shape != (PIXELS, PIXELS) or (picture > 127).all():
            raise ValueError(f"not a drawing of {PIXELS}x{PIXELS} pixels")
    ink: NDArray[np.bool_] = picture <= 127
    return ink


def _answers(store: ZipStore, folder: str) -> NDArray[np.int64]:
    """The class of each test picture, from lines "runNN/test/itemII.png runNN/training/classCC.png"."""
    name = f"{folder}/class_labels.txt"
    what = store.where(name)
    text = read_text(store.read(name), what)
    with reading(what):
        lines = dict(line.split() for line in text.splitlines())
        return np.array([int(lines[f"{folder}/test/item{i + 1:02d}.png"][-6:-4]) - 1 for i in range(WAYS)])
