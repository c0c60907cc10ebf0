"""Training of metric learners: episodes through the network, cross-entropy of the queries, Adam."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.fewshot.datasets.image_source import ImageSource, check_images
from metarl.fewshot.learners import encoder_choice, training
from metarl.fewshot.learners.trained_classes import remember_classes
from metarl.fewshot.learners.training import halving
from metarl.fewshot.networks.backbones import Backbone, make_backbone
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.fewshot.networks.encoders import named_tensors
from metarl.fewshot.networks.footprint import encoder_footprint
from metarl.fewshot.networks.joint_norm import share_images
from metarl.fewshot.networks.scores import loss_and_accuracy
from metarl.learning.footprint import Footprint
from metarl.learning.settings import check_range
from metarl.learning.shared_gradient import add_gradients
from metarl.runs.run import Run
from metarl.seeding import Key, keyed_globals
from metarl.tasks import Tasks

SHARED = "tasks"


@dataclass(frozen=True)
class Config:
    """Settings of a metric learner; the defaults are those of ProtoNet on Omniglot (Snell et al. 2017)."""

    iterations: int = 20_000
    """Meta-iterations (Snell et al. 2017's code: until the validation loss has not fallen for 20,000 episodes)."""
    tasks: int = 1
    """Tasks a meta-batch (Snell et al. 2017: 1)."""
    train_ways: int | None = 60
    """Classes of a training task; None: as many as in a test task (Snell et al. 2017: Omniglot 60)."""
    train_queries: int | None = 5
    """Query images a class in training; None: as in a test task (Snell et al. 2017: Omniglot 5)."""
    step_size: float = 1e-3
    """Learning rate of Adam at first (Snell et al. 2017: 0.001)."""
    halve_every: int | None = 2000
    """Iterations after which the learning rate halves, again and again (Snell et al. 2017: 2,000 episodes)."""
    backbone: Backbone = "conv4"
    """The encoder (Snell et al. 2017: four convolutions, pooled)."""
    width: int = 64
    """Filters a layer (Snell et al. 2017: 64)."""
    encoder: str | None = None
    """An encoder of your own in place of the backbone, as mypackage.module:Name; called with `image_shape`,
    (channels, height, width), it gives a torch.nn.Module from images (B, C, H, W) to features (B, F)."""
    batch_norm: BatchNormMode = "running"
    """What images are normalised with at test time (Snell et al. 2017: running averages)."""
    checkpoint_every: int = 500
    """Iterations between checkpoints."""
    log_every: int = 100
    """Iterations between lines of metrics.jsonl, which hold means over them."""

    def __post_init__(self) -> None:
        encoder_choice.check_encoder_name(self.encoder)
        counts = ("iterations", "tasks", "train_queries", "halve_every", "width", "checkpoint_every", "log_every")
        check_range(self, *counts, least=1)
        check_range(self, "step_size", above=0)
        check_range(self, "train_ways", least=2)

    def footprint(self, source: ImageSource) -> Footprint:
        """What a training needs at least: the encoder, and the images of a meta-batch."""
        check_images(source, "this learner")
        episode = training_source(self, source)
        images = self.tasks * (episode.min_ways or episode.ways) * (1 + episode.queries)
        backbone = "" if self.encoder is not None else self.backbone
        return encoder_footprint(backbone, self.width, source.image_shape, images)


def training_source(config: Config, source: ImageSource) -> ImageSource:
    """The source with the ways and queries of training tasks."""
    ways = config.train_ways or source.ways
    smallest = source.min_ways if config.train_ways is None else None
    return replace(source, ways=ways, min_ways=smallest, queries=config.train_queries or source.queries)


def make_encoder(config: Config, source: ImageSource, key: Key) -> nn.Module:
    """The config's backbone with fresh weights."""
    return make_backbone(config.backbone, source.image_shape, key("encoder").torch(), config.width, config.batch_norm)


def train(config: Config, source: ImageSource, run: Run, network: EmbeddingNetwork, key: Key) -> None:
    """Train a network on episodes until `config.iterations`, from the run's last checkpoint if there is one.

    Raises:
        UserError: none of its parameters learns.
    """
    remember_classes(run, source)
    share_images(network.encoder, source.image_shape, run.ranks, together=config.batch_norm == "running")
    network.to(run.device)
    source = training_source(config, source)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(
            "every parameter of the encoder is frozen, so nothing would learn; FewShotClassifier(encoder) needs no run"
        )
    adam = torch.optim.Adam(network.parameters(), lr=config.step_size)

    def draw(iteration: int) -> Tasks:
        return source.sample(config.tasks, key("tasks", iteration).numpy())

    def step(iteration: int, tasks: Tasks) -> dict[str, Tensor]:
        mine, weight = training.shared(tasks, run.ranks)
        batch = source.batch(mine, run.device)
        ways = tasks.arrays["classes"].shape[1]
        with keyed_globals(key("draws", iteration)):
            loss, accuracy = loss_and_accuracy(network(batch, ways), batch.query_y)
            adam.zero_grad()
            torch.autograd.backward(weight * loss)
        scalars = {"loss/query": weight * loss, "score/query_accuracy": weight * accuracy}
        return add_gradients(run.ranks, network.parameters(), scalars)

    what = training.Learnable(lambda: named_tensors(network), adam, halving(config.step_size, config.halve_every))
    training.fit(run, config, what, draw, step)


def restored(network: EmbeddingNetwork, run: Run) -> EmbeddingNetwork:
    """The network with the tensors of the run's last checkpoint, in evaluation mode, on the run's device.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit.
    """
    training.put_back(named_tensors(network), training.saved(run), run)
    return network.eval().to(run.device)
