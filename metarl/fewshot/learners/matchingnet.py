"""Matching Networks (Vinyals et al. 2016): a vote of the support images, weighted by attention.

    p(class | query) = sum over the class's support images of  softmax over all of them of  s cos(f(query), g(image))

s is learned: a cosine lies in [-1, 1], and without a scale the softmax stays flat and learning is slow.
Full-context embeddings are an option: g reads the support set with a bidirectional LSTM, f reads it with
attention, as the paper's appendix has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.learners import encoder_choice, metric
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.distances import at_least_single, exact, unit
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.fewshot.networks.encoders import feature_size
from metarl.learning.settings import check_range
from metarl.runs.run import Run
from metarl.seeding import Key


@dataclass(frozen=True)
class Config(metric.Config):
    """Settings of Matching Networks; the defaults are those of Omniglot."""

    train_ways: int | None = None
    """Classes of a training task; None: as many as in a test task (Vinyals et al. 2016)."""
    train_queries: int | None = None
    """Query images a class in training; None: as in a test task."""
    tasks: int = 8
    """Tasks a meta-batch (own choice)."""
    scale: float = 10.0
    """The learned scale of the cosine at first (own choice; Chen et al. 2019 fix 100)."""
    full_context: bool = False
    """Full-context embeddings (Vinyals et al. 2016, appendix A)."""
    context_steps: int = 5
    """Attention steps over the support set in the query's full-context embedding (own choice; Chen et al. 2019 take
    as many as support images)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "context_steps", least=1)
        check_range(self, "scale", above=0)


SHARED = metric.SHARED
DEFAULTS = {  # by data set
    "omniglot": Config(),
    "glyphs": Config(iterations=1000, tasks=4, checkpoint_every=100, log_every=10),
    "mini-imagenet": Config(tasks=4),
    "cifar-fs": Config(tasks=4),
    "folder": Config(tasks=4),
}


class FullContext(nn.Module):
    """Support features in the light of the whole support set, query features in that of the former."""

    def __init__(self, size: int, steps: int, generator: torch.Generator) -> None:
        super().__init__()
        self.steps = steps
        self.reads = nn.LSTM(size, size, batch_first=True, bidirectional=True)
        self.attends = nn.LSTMCell(2 * size, size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -1 / math.sqrt(size), 1 / math.sqrt(size), generator=generator)

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Features `(T, S, F)` and `(T, R, F)` to features of the same shapes."""
        both = self.reads(support)[0]
        support = support + both[..., : support.shape[2]] + both[..., support.shape[2] :]
        flat = query.flatten(0, 1)
        hidden, cell = flat, torch.zeros_like(flat)
        for _ in range(self.steps):
            attention = (hidden.view_as(query) @ support.transpose(1, 2)).softmax(-1)
            read = (attention @ support).flatten(0, 1)
            hidden, cell = self.attends(torch.cat([flat, read], 1), (hidden, cell))
            hidden = hidden + flat
        return support, hidden.view_as(query)


class MatchingNet(EmbeddingNetwork):
    """Attention over support images."""

    def __init__(
        self, encoder: nn.Module, batch_norm: BatchNormMode, scale: float, context: FullContext | None = None
    ) -> None:
        super().__init__(encoder, batch_norm)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.context = context

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Log-probabilities `(T, R, N)`; see `EmbeddingNetwork.compare`."""
        kind = at_least_single(query).dtype
        if self.context is not None:
            weights = next(self.context.parameters()).dtype
            support, query = self.context(support.to(weights), query.to(weights))
        cosine = unit(exact(query)) @ unit(exact(support)).transpose(1, 2)
        votes = (self.log_scale.exp() * cosine).log_softmax(-1)  # (T, R, S)
        members = F.one_hot(labels, ways).to(votes.dtype).log()  # (T, S, N), 0 or -inf
        return torch.logsumexp(votes[..., None] + members[:, None], 2).to(kind)


def make(config: Config, source: ImageSource, seed: int, encoder: nn.Module | None = None) -> MatchingNet:
    """The network before training."""
    key = Key(seed)("matchingnet")
    if encoder is None:
        encoder = metric.make_encoder(config, source, key)
    context = None
    if config.full_context:
        context = FullContext(feature_size(encoder, source.image_shape), config.context_steps, key("context").torch())
    return MatchingNet(encoder, config.batch_norm, config.scale, context)


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
    metric.train(config, source, run, make(config, source, run.seed, encoder), Key(run.seed)("matchingnet"))


@plain_torch()
def load(run: Run, source: ImageSource, encoder: nn.Module | None = None) -> TrainedEmbedding:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    encoder = encoder_choice.to_judge(run, source, encoder)
    network = metric.restored(make(run.config, source, run.seed, encoder), run)
    rule = "attention over support images" + (" in full context" if run.config.full_context else "")
    return TrainedEmbedding(network, source, rule)
