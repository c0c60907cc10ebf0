"""A trained embedding whose features are centred on the mean of the images trained on: CL2N for every metric head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.errors import UserError
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.matchingnet import MatchingNet
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.fewshot.networks.feature_norm import FeatureNorm, Normalised

MOST = 4096  # training images that are encoded for their mean, evenly over all
TOGETHER = 256  # images read at a time


def with_feature_norm(learner: object, kind: FeatureNorm, source: Any) -> TrainedEmbedding:
    """A learner that compares normalised features; its network is changed itself.

    Args:
        learner: a trained embedding.
        kind: how features are normalised, see `metarl.fewshot.networks.feature_norm`.
        source: of the images it was trained on, whose train classes give CL2N's centre.

    Raises:
        UserError: it compares no features, its features depend on the images beside them, or the training images
            cannot be read.
    """
    if not isinstance(learner, TrainedEmbedding):
        raise UserError(
            f"--feature-norm {kind} is for learners that compare features (protonet, matchingnet, r2d2, "
            "meta-baseline, centroid, logistic, baseline, baseline++); this one adapts its network: leave it out"
        )
    network = learner.network
    if isinstance(network, MatchingNet) and network.context is not None:
        raise UserError(f"--feature-norm {kind}: full-context embeddings were trained on features as they are")
    network.feature_norm = Normalised(training_mean(network, source) if kind == "cl2n" else None)
    return replace(learner, rule=f"{learner.rule}, features {kind}")


@plain_torch()
def training_mean(network: EmbeddingNetwork, source: ImageSource) -> Tensor:
    """The mean feature `(F,)` float64 of the images trained on, or of `MOST` of them evenly spaced.

    Raises:
        UserError: features depend on the images beside them, or the images cannot be read.
    """
    if network.batch_norm != "running":
        raise UserError(
            f"cl2n centres on the mean of training features, which batch norm {network.batch_norm} makes depend on the "
            "task: use --feature-norm l2, or a learner trained with --batch-norm running"
        )
    images, names = source.images, set(source.classes("train"))
    if not names:
        raise UserError(f"{source.name} has no training images to centre on: use --feature-norm l2")
    each = [
        np.arange(s, s + n)
        for name, s, n in zip(images.classes, images.starts, images.sizes, strict=True)
        if name in names
    ]
    index = np.concatenate(each)
    index = index[np.linspace(0, len(index) - 1, min(MOST, len(index))).astype(np.int64)]
    turns = np.arange(len(index)) % 4 if source.rotations else np.zeros(len(index), np.int64)
    like = next((p for p in network.parameters()), torch.zeros(()))
    sums = []
    with torch.no_grad():
        for start in range(0, len(index), TOGETHER):
            some = slice(start, start + TOGETHER)
            sums.append(network.encoded(images.gather(index[some], turns[some], like.device)).double().sum(0))
    return torch.stack(sums).sum(0) / len(index)
