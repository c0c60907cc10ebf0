"""Meta-Baseline (Chen et al. 2021): the class whose mean feature points where the query's does, with a learned scale.

    log p(class | query) = log softmax over classes of  scale cos(f(query), mean of f(support of the class))

It is meant to go on from an encoder that tells the base classes apart: `init_from` names the run of one (`baseline`,
`centroid`, ...). Deviations from yinboc/few-shot-meta-baseline: Adam in the place of SGD with momentum and weight
decay, and four convolutions in the place of a ResNet-12.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.errors import UserError
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.learners import encoder_choice, metric, training
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.trained_classes import check_unseen
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.distances import at_least_single, class_means, exact, unit
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.fewshot.networks.encoders import named_tensors
from metarl.learning.settings import check_range
from metarl.runs.run import Run
from metarl.seeding import Key


@dataclass(frozen=True)
class Config(metric.Config):
    """Settings of Meta-Baseline's second stage (Chen et al. 2021)."""

    tasks: int = 4
    """Tasks a meta-batch (Chen et al. 2021: 4)."""
    train_ways: int | None = None
    """Classes of a training task; None: as many as in a test task (Chen et al. 2021)."""
    train_queries: int | None = None
    """Query images a class in training; None: as in a test task (Chen et al. 2021: 15)."""
    scale: float = 10.0
    """The learned scale of the cosine at first (Chen et al. 2021: 10)."""
    init_from: str | None = None
    """The folder of a run whose encoder to start from: of baseline, baseline++, centroid or logistic, trained on the
    same data (Chen et al. 2021); None: from scratch. Read once, when training begins."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "scale", above=0)


SHARED = metric.SHARED
DEFAULTS = {  # by data set
    "omniglot": Config(),
    "glyphs": Config(iterations=1000, checkpoint_every=100, log_every=10),
    "mini-imagenet": Config(),
    "cifar-fs": Config(),
    "folder": Config(),
}


class MetaBaseline(EmbeddingNetwork):
    """Cosines with class means."""

    def __init__(self, encoder: nn.Module, batch_norm: BatchNormMode, scale: float) -> None:
        super().__init__(encoder, batch_norm)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Log-probabilities `(T, R, N)`; see `EmbeddingNetwork.compare`."""
        cosines = torch.stack([_cosines(*task, ways) for task in zip(support, labels, query, strict=True)])
        return (self.log_scale.exp() * cosines).log_softmax(-1).to(at_least_single(query).dtype)


def _cosines(support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
    """With the class means `(R, N)` of one task: in double precision, features of all tasks could be large."""
    means = class_means(exact(support[None]), labels[None], ways)[0]
    return unit(exact(query)) @ unit(means).T


def make(config: Config, source: ImageSource, seed: int, encoder: nn.Module | None = None) -> MetaBaseline:
    """The network before training."""
    if encoder is None:
        encoder = metric.make_encoder(config, source, Key(seed)("meta-baseline"))
    return MetaBaseline(encoder, config.batch_norm, config.scale)


def start_from(folder: str, encoder: nn.Module, source: ImageSource) -> None:
    """Copy the encoder of another run into this one.

    Raises:
        UserError: there is no such run, it has no encoder of this form, or it has seen classes of other splits.
    """
    if not (Path(folder) / "config.json").exists():
        raise UserError(f"--init-from is {folder}, where there is no run")
    first = Run.open(folder)
    for split in source.splits:
        if split != "train":
            check_unseen(first, source, split)
    prefix = "encoder."
    tensors = {n.removeprefix(prefix): v for n, v in training.saved(first).items() if n.startswith(prefix)}
    training.put_back(named_tensors(encoder), tensors, first)


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
    network = make(config, source, run.seed, encoder)
    if config.init_from is not None and run.restore() is None:
        start_from(config.init_from, network.encoder, source)
    metric.train(config, source, run, network, Key(run.seed)("meta-baseline"))


@plain_torch()
def load(run: Run, source: ImageSource, encoder: nn.Module | None = None) -> TrainedEmbedding:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    encoder = encoder_choice.to_judge(run, source, encoder)
    network = metric.restored(make(run.config, source, run.seed, encoder), run)
    return TrainedEmbedding(network, source, "class mean with the largest cosine")
