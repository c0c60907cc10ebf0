"""Logistic regression on a frozen encoder (Tian et al. 2020): scikit-learn's, on features of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.learners import transfer
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.transfer import SHARED, train
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.distances import unit
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.learning.settings import check_range
from metarl.runs.run import Run
from metarl.seeding import Key

__all__ = ["DEFAULTS", "SHARED", "Config", "load", "train"]


@dataclass(frozen=True)
class Config(transfer.Config):
    """Settings of training the encoder, and of the regression."""

    c: float = 1.0
    """Inverse strength of the regression's L2 penalty (Tian et al. 2020's code: 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "c", above=0)


DEFAULTS = transfer.defaults(Config)


class Logistic(EmbeddingNetwork):
    """A regression for each task."""

    def __init__(self, encoder: nn.Module, batch_norm: BatchNormMode, c: float) -> None:
        super().__init__(encoder, batch_norm)
        self.c = c

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Log-probabilities `(T, R, N)`; see `EmbeddingNetwork.compare`."""
        support, query = (unit(part.detach().cpu().double()) for part in (support, query))
        log_probabilities = []
        for x, y, z in zip(support.numpy(), labels.cpu().numpy(), query.numpy(), strict=True):
            if not (np.isfinite(x).all() and np.isfinite(z).all()):  # scikit-learn's own error names no task
                log_probabilities.append(torch.full((len(z), ways), torch.nan, dtype=torch.float64))
                continue
            model = LogisticRegression(C=self.c, max_iter=1000).fit(x, y)
            log_probabilities.append(torch.from_numpy(model.predict_log_proba(z)))
        return torch.stack(log_probabilities).float().to(labels.device)


def load(run: Run, source: ImageSource, encoder: nn.Module | None = None) -> TrainedEmbedding:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    return transfer.load(
        run, source, encoder, partial(Logistic, c=run.config.c), "logistic regression on frozen features"
    )
