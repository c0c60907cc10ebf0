"""R2-D2 (Bertinetto et al. 2019): ridge regression on the support features, solved within the network.

    W = argmin  1/S |[X 1] W - Y|^2 + penalty |W|^2          Y one-hot
    log p(class | query) = log softmax over classes of  scale [f(query) 1] W

The encoder, the penalty and the scale are trained through the solution. The paper's bias on all of a query's logits is
left out: a softmax does not see it. Other deviations from bertinetto/r2d2: there four layers of 96, 192, 384 and 512
filters, of which the last two are features, leaky and with dropout; 1 to 10 support images a class drawn anew in every
episode of 240 images; and the penalty learned only where asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.learners import encoder_choice, metric
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.distances import at_least_single, exact
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.fewshot.networks.ridge import ridge
from metarl.learning.settings import check_range
from metarl.runs.run import Run
from metarl.seeding import Key


@dataclass(frozen=True)
class Config(metric.Config):
    """Settings of R2-D2; the defaults are those of CIFAR-FS (Bertinetto et al. 2019)."""

    train_ways: int | None = 20
    """Classes of a training task; None: as many as in a test task (Bertinetto et al. 2019's code: CIFAR-FS 20,
    mini-ImageNet 16)."""
    train_queries: int | None = 10
    """Query images a class in training; None: as in a test task (Bertinetto et al. 2019's code: 240 images in all)."""
    step_size: float = 5e-3
    """Learning rate of Adam at first (Bertinetto et al. 2019: 0.005)."""
    penalty: float = 50.0
    """The learned penalty on the squared weights at first, beside a mean squared error (Bertinetto et al. 2019's code:
    50, not learned; glyphs 1, own choice)."""
    scale: float = 10.0
    """The learned scale of the logits at first (Bertinetto et al. 2019's code: CIFAR-FS 10)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "penalty", "scale", above=0)


SHARED = metric.SHARED
DEFAULTS = {  # by data set
    "omniglot": Config(),
    "glyphs": Config(iterations=1000, train_queries=None, penalty=1.0, checkpoint_every=100, log_every=10),
    "mini-imagenet": Config(train_ways=16),
    "cifar-fs": Config(),
    "folder": replace(Config(), train_ways=None, train_queries=None),
}


class R2D2(EmbeddingNetwork):
    """A ridge regression for each task."""

    def __init__(self, encoder: nn.Module, batch_norm: BatchNormMode, penalty: float, scale: float) -> None:
        super().__init__(encoder, batch_norm)
        self.log_penalty = nn.Parameter(torch.tensor(math.log(penalty)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Log-probabilities `(T, R, N)`; see `EmbeddingNetwork.compare`."""
        logits = torch.stack([self._logits(*task, ways) for task in zip(support, labels, query, strict=True)])
        return logits.log_softmax(-1).to(at_least_single(query).dtype)

    def _logits(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """`(R, N)` of one task: in double precision, features of all tasks could be large."""
        x, q = (F.pad(exact(features), (0, 1), value=1.0) for features in (support, query))
        weights = ridge(x, F.one_hot(labels, ways).to(x.dtype), self.log_penalty.to(x.dtype).exp())
        return self.log_scale.exp() * (q @ weights)


def make(config: Config, source: ImageSource, seed: int, encoder: nn.Module | None = None) -> R2D2:
    """The network before training."""
    if encoder is None:
        encoder = metric.make_encoder(config, source, Key(seed)("r2d2"))
    return R2D2(encoder, config.batch_norm, config.penalty, config.scale)


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
    metric.train(config, source, run, make(config, source, run.seed, encoder), Key(run.seed)("r2d2"))


@plain_torch()
def load(run: Run, source: ImageSource, encoder: nn.Module | None = None) -> TrainedEmbedding:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    encoder = encoder_choice.to_judge(run, source, encoder)
    network = metric.restored(make(run.config, source, run.seed, encoder), run)
    return TrainedEmbedding(network, source, "ridge regression on the support features")
