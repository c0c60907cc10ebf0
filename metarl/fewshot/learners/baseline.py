"""Baseline (Chen et al. 2019): a frozen encoder, and a linear head fitted to the support images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.learners import transfer
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.runs.run import Run


@dataclass(frozen=True)
class Config(transfer.HeadConfig):
    """Settings of training the encoder, and of fitting the head."""


SHARED = transfer.SHARED
DEFAULTS = transfer.defaults(Config)


def train(config: Config, source: ImageSource, run: Run, encoder: nn.Module | None = None) -> None:
    """Train the encoder, from the run's last checkpoint if there is one; see `transfer.train`."""
    transfer.train(config, source, run, encoder, cosine=False)


def load(run: Run, source: ImageSource, encoder: nn.Module | None = None) -> TrainedEmbedding:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    head = partial(transfer.FittedHead, config=run.config, scale=None)
    return transfer.load(run, source, encoder, head, "a linear head on frozen features")
