"""What few-shot learners need of the data they learn from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from metarl.fewshot.batch import Batch
from metarl.learning.contract import ScoreKind
from metarl.tasks import Tasks


class SupervisedSource(Protocol):
    """A `Source` whose tasks become tensors."""

    @property
    def kind(self) -> ScoreKind:
        """How its tasks are scored."""

    def fixed(self, split: str, n: int) -> Tasks:
        """The first n of the split's frozen tasks."""

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Tasks:
        """Draw n fresh tasks."""

    def batch(self, tasks: Tasks, device: torch.device | str = "cpu") -> Batch:
        """Their support and query data."""
