"""Prototypical Networks (Snell et al. 2017): the class whose mean embedding is nearest.

log p(class | query) = log softmax over classes of  -|f(query) - mean of f(support of the class)|^2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.learners import encoder_choice, metric
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.networks.distances import at_least_single, class_means, exact, squared_distances
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.runs.run import Run
from metarl.seeding import Key


@dataclass(frozen=True)
class Config(metric.Config):
    """Settings of ProtoNet; the defaults are those of Omniglot (Snell et al. 2017)."""


_PHOTOGRAPHS = Config(train_ways=20, train_queries=15)
SHARED = metric.SHARED
DEFAULTS = {  # a data set's name, or a setting of one
    "omniglot": Config(),
    "glyphs": Config(iterations=1000, train_ways=20, train_queries=None, checkpoint_every=100, log_every=10),
    "mini-imagenet": replace(_PHOTOGRAPHS, train_ways=30),
    "mini-imagenet-5shot": _PHOTOGRAPHS,
    "cifar-fs": _PHOTOGRAPHS,
    "folder": replace(_PHOTOGRAPHS, train_ways=None, train_queries=None),
}


class ProtoNet(EmbeddingNetwork):
    """Distances to class means."""

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Log-probabilities `(T, R, N)`; see `EmbeddingNetwork.compare`."""
        compared = [_distances(*task, ways) for task in zip(support, labels, query, strict=True)]
        return (-torch.stack(compared)).log_softmax(-1).to(at_least_single(query).dtype)


def _distances(support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
    """Squared distances `(R, N)` of one task: in double precision, features of all tasks could be large."""
    means = class_means(exact(support[None]), labels[None], ways)
    return squared_distances(exact(query[None]), means)[0]


def make(config: Config, source: ImageSource, seed: int, encoder: nn.Module | None = None) -> ProtoNet:
    """The network before training."""
    if encoder is None:
        encoder = metric.make_encoder(config, source, Key(seed)("protonet"))
    return ProtoNet(encoder, config.batch_norm)


@plain_torch()
def train(config: Config, source: ImageSource, run: Run, encoder: nn.Module | None = None) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one.

    Args:
        config: the settings.
        source: tasks of images.
        run: where it is logged and saved.
        encoder: a module to start from, in place of the config's backbone; see `user_encoders`.
    """
    encoder = encoder_choice.to_train(run, config, source, encoder)
    metric.train(config, source, run, make(config, source, run.seed, encoder), Key(run.seed)("protonet"))


@plain_torch()
def load(run: Run, source: ImageSource, encoder: nn.Module | None = None) -> TrainedEmbedding:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    encoder = encoder_choice.to_judge(run, source, encoder)
    network = metric.restored(make(run.config, source, run.seed, encoder), run)
    return TrainedEmbedding(network, source, "nearest class mean")
