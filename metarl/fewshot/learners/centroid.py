"""Nearest centroid on a frozen encoder: ProtoNet's rule without its training (Wang et al. 2019, "SimpleShot")."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from metarl.fewshot.datasets.image_source import ImageSource, check_images
from metarl.fewshot.learners import transfer
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.learners.transfer import SHARED, train
from metarl.runs.run import Run

__all__ = ["DEFAULTS", "SHARED", "Config", "load", "pixels", "train"]


@dataclass(frozen=True)
class Config(transfer.Config):
    """Settings of training the encoder."""


DEFAULTS = transfer.defaults(Config)


def load(run: Run, source: ImageSource, encoder: nn.Module | None = None) -> TrainedEmbedding:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    return transfer.load(run, source, encoder, ProtoNet, "nearest class mean of frozen features")


def pixels(source: ImageSource) -> TrainedEmbedding:
    """The same rule on raw pixels, which needs no training: what any encoder should better."""
    check_images(source, "pixels")
    return TrainedEmbedding(ProtoNet(nn.Flatten(), "running"), source, "nearest class mean of raw pixels")
