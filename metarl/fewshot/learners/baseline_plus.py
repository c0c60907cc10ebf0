"""Baseline++ (Chen et al. 2019): as Baseline, with cosines to the class weights in training and in the head.

Each class's cosine is multiplied by a learned norm, as in the authors' code (the paper's equation has none).
"""

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
TASK_SCALE = 2.0  # of the cosines in a task (Chen et al. 2019: 2 up to 200 classes)


def train(config: Config, source: ImageSource, run: Run, encoder: nn.Module | None = None) -> None:
    """Train the encoder, from the run's last checkpoint if there is one; see `transfer.train`."""
    transfer.train(config, source, run, encoder, cosine=True)


def load(run: Run, source: ImageSource, encoder: nn.Module | None = None) -> TrainedEmbedding:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    head = partial(transfer.FittedHead, config=run.config, scale=TASK_SCALE)
    return transfer.load(run, source, encoder, head, "a cosine head on frozen features")
