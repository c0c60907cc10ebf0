"""Transfer: an encoder trained to classify the base classes, then frozen; a new task gets a new head.

The baselines of Chen et al. 2019 ("A closer look at few-shot classification"). All train classes are told apart
at once, a rotated class counting as one of its own where the source turns its classes. The learners
differ in the head: see `centroid`, `logistic`, `baseline` and `baseline_plus`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.fewshot.datasets.image_source import ImageSource, check_images
from metarl.fewshot.learners import encoder_choice, training
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.trained_classes import remember_classes
from metarl.fewshot.networks.backbones import Backbone, make_backbone
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.distances import at_least_single, unit
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.fewshot.networks.encoders import channels_last, feature_size, features, named_tensors
from metarl.fewshot.networks.footprint import encoder_footprint
from metarl.fewshot.networks.joint_norm import share_images
from metarl.learning.footprint import Footprint
from metarl.learning.settings import check_range
from metarl.learning.shared_gradient import add_gradients
from metarl.runs.run import Run
from metarl.seeding import Key, keyed_globals

QUARTERS = 4  # rotations of a class
SHARED = "minibatch"


@dataclass(frozen=True)
class Config:
    """Settings of training the encoder on the base classes (Chen et al. 2019)."""

    iterations: int = 20_000
    """Minibatches (Chen et al. 2019: 400 epochs of mini-ImageNet, 5 of Omniglot)."""
    minibatch: int = 64
    """Images a minibatch (Chen et al. 2019: 16)."""
    step_size: float = 1e-3
    """Learning rate of Adam (Chen et al. 2019: 0.001)."""
    backbone: Backbone = "conv4"
    """The encoder (Chen et al. 2019: four convolutions, pooled)."""
    width: int = 64
    """Filters a layer (Chen et al. 2019: 64)."""
    encoder: str | None = None
    """An encoder of your own in place of the backbone, as mypackage.module:Name; called with `image_shape`,
    (channels, height, width), it gives a torch.nn.Module from images (B, C, H, W) to features (B, F)."""
    batch_norm: BatchNormMode = "running"
    """What images are normalised with at test time (Chen et al. 2019: running averages)."""
    checkpoint_every: int = 500
    """Iterations between checkpoints."""
    log_every: int = 100
    """Iterations between lines of metrics.jsonl, which hold means over them."""

    def __post_init__(self) -> None:
        encoder_choice.check_encoder_name(self.encoder)
        counts = ("iterations", "minibatch", "width", "checkpoint_every", "log_every")
        check_range(self, *counts, least=1)
        check_range(self, "step_size", above=0)

    def footprint(self, source: ImageSource) -> Footprint:
        """What a training needs at least: the encoder, and a minibatch of images."""
        check_images(source, "this learner")
        backbone = "" if self.encoder is not None else self.backbone
        return encoder_footprint(backbone, self.width, source.image_shape, self.minibatch)


class Head(nn.Module):
    """A linear layer, or with a scale Baseline++'s: each class's cosine times its learned norm, times the scale.

    The learned norms are those of Chen et al. 2019's code (weight normalisation), not of the paper's equation.
    """

    def __init__(self, size: int, classes: int, generator: torch.Generator, scale: float | None = None) -> None:
        super().__init__()
        bound = size**-0.5
        self.weight = nn.Parameter(torch.empty(classes, size).uniform_(-bound, bound, generator=generator))
        first = torch.zeros(classes) if scale is None else self.weight.detach().norm(dim=1)
        self.bias_or_norm = nn.Parameter(first)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, classes)` of features `(B, F)`."""
        return logits(x, self.weight, self.bias_or_norm, self.scale)


def logits(x: Tensor, weight: Tensor, bias_or_norm: Tensor, scale: float | None) -> Tensor:
    """Of a linear head, or of a cosine head times its norms and its scale.

    Args:
        x: features `(..., B, F)`.
        weight: `(..., N, F)`.
        bias_or_norm: `(N,)` or `(..., 1, N)`; the biases of a linear head, the norms of a cosine head.
        scale: None for a linear head.
    """
    if scale is None:
        return x @ weight.transpose(-1, -2) + bias_or_norm
    return scale * bias_or_norm * (unit(x) @ unit(weight).transpose(-1, -2))


def base_scale(classes: int) -> float:
    """The scale of a cosine head: 2 up to 200 classes, else 10 (Chen et al. 2019's code)."""
    return 2.0 if classes <= 200 else 10.0


@dataclass(frozen=True)
class BaseClasses:
    """The train images of a source, labelled by class, or by class and rotation.

    Attributes:
        source: where they come from.
        ids: of the train classes among the source's.
    """

    source: ImageSource
    ids: np.ndarray[tuple[int], np.dtype[np.int64]]

    @staticmethod
    def of(source: ImageSource) -> BaseClasses:
        """Those of a source's train split."""
        where = {name: i for i, name in enumerate(source.images.classes)}
        return BaseClasses(source, np.array([where[name] for name in source.classes("train")], np.int64))

    @property
    def count(self) -> int:
        """Labels there are."""
        return len(self.ids) * (QUARTERS if self.source.rotations else 1)

    def draw(self, n: int, rng: np.random.Generator, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Images `(n, C, H, W)` float32 in [0, 1] and labels `(n,)` on a device: a class, then an image of it."""
        images = self.source.images
        label = rng.integers(len(self.ids), size=n)
        ids = self.ids[label]
        index = images.starts[ids] + (rng.random(n) * images.sizes[ids]).astype(np.int64)
        turns = rng.integers(QUARTERS, size=n) if self.source.rotations else np.zeros(n, np.int64)
        label = label + len(self.ids) * turns
        return images.gather(index, turns, device), torch.from_numpy(label).to(device)


def make_encoder(config: Config, source: ImageSource, seed: int) -> nn.Module:
    """The config's backbone with fresh weights."""
    generator = Key(seed)("transfer", "encoder").torch()
    return make_backbone(config.backbone, source.image_shape, generator, config.width, config.batch_norm)


@plain_torch()
def train(
    config: Config, source: ImageSource, run: Run, encoder: nn.Module | None = None, *, cosine: bool = False
) -> None:
    """Train an encoder to tell the base classes apart, from the run's last checkpoint if there is one.

    Args:
        config: the settings.
        source: its train classes are the base classes.
        run: where it is logged and saved.
        encoder: a module to start from, in place of the config's backbone; see `user_encoders`.
        cosine: with a cosine head (Baseline++).
    """
    remember_classes(run, source)
    key, base = Key(run.seed)("transfer"), BaseClasses.of(source)
    encoder = encoder_choice.to_train(run, config, source, encoder)
    if encoder is None:
        encoder = make_encoder(config, source, run.seed)
    share_images(encoder, source.image_shape, run.ranks, together=True)
    size = feature_size(encoder, source.image_shape)
    head = Head(size, base.count, key("head").torch(), base_scale(base.count) if cosine else None)
    network = nn.ModuleDict({"encoder": channels_last(encoder), "head": head})
    network.to(run.device)
    adam = torch.optim.Adam(network.parameters(), lr=config.step_size)

    def draw(iteration: int) -> dict[str, Tensor]:
        images, labels = base.draw(config.minibatch, key("images", iteration).numpy(), run.device)
        return {"images": images, "labels": labels}

    def step(iteration: int, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        mine, weight = training.shared(drawn, run.ranks)
        x, y = mine["images"], mine["labels"]
        with keyed_globals(key("draws", iteration)):
            scores = head(features(encoder, x))
            loss = F.cross_entropy(scores, y)
            adam.zero_grad()
            torch.autograd.backward(weight * loss)
        accuracy = (scores.argmax(-1) == y).float().mean()
        scalars = {"loss/train": weight * loss, "score/train_accuracy": weight * accuracy}
        return add_gradients(run.ranks, network.parameters(), scalars)

    what = training.Learnable(lambda: named_tensors(network), adam, lambda _: config.step_size)
    training.fit(run, config, what, draw, step)


@plain_torch()
def load(
    run: Run,
    source: ImageSource,
    encoder: nn.Module | None,
    network: Callable[[nn.Module, BatchNormMode], EmbeddingNetwork],
    rule: str,
) -> TrainedEmbedding:
    """A run's frozen encoder under a head for new tasks.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    config: Config = run.config
    encoder = encoder_choice.to_judge(run, source, encoder)
    if encoder is None:
        encoder = make_encoder(config, source, run.seed)
    mine = {
        name.removeprefix("encoder."): value
        for name, value in training.saved(run).items()
        if name.startswith("encoder.")
    }
    training.put_back(named_tensors(encoder), mine, run)
    return TrainedEmbedding(network(encoder, config.batch_norm).eval(), source, rule).to(run.device)


@dataclass(frozen=True)
class HeadConfig(Config):
    """Settings of fitting a head to the support images of a task (Chen et al. 2019)."""

    epochs: int = 100
    """Passes over the support images (Chen et al. 2019: 100)."""
    head_minibatch: int = 4
    """Support images a step (Chen et al. 2019: 4)."""
    head_step_size: float = 0.01
    """Step size of SGD (Chen et al. 2019: 0.01)."""
    momentum: float = 0.9
    """Momentum and dampening of SGD (Chen et al. 2019: 0.9)."""
    weight_decay: float = 1e-3
    """Weight decay of SGD (Chen et al. 2019: 0.001)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "epochs", "head_minibatch", least=1)
        check_range(self, "head_step_size", above=0)


class FittedHead(EmbeddingNetwork):
    """A head for each task, fitted to its support features by SGD, all tasks at once.

    The weights a task starts from and the order of its images come from its own key, so the result does not
    depend on which tasks are computed together. Without keys they are the same for every task.
    """

    def __init__(self, encoder: nn.Module, batch_norm: BatchNormMode, config: HeadConfig, scale: float | None) -> None:
        super().__init__(encoder, batch_norm)
        self.config = config
        self.scale = scale

    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Log-probabilities `(T, R, N)`; see `EmbeddingNetwork.compare`."""
        support, query = at_least_single(support), at_least_single(query)
        config, (tasks, images, size) = self.config, support.shape
        keys = keys or [Key(0)("transfer", "task head")] * tasks
        first = [Head(size, ways, key.torch(), self.scale) for key in keys]
        support, device = support.detach(), support.device
        weight = torch.stack([head.weight.detach() for head in first]).to(support).requires_grad_()
        other = torch.stack([head.bias_or_norm.detach() for head in first])[:, None].to(support).requires_grad_()
        sgd = torch.optim.SGD(
            [weight, other],
            lr=config.head_step_size,
            momentum=config.momentum,
            dampening=config.momentum,
            weight_decay=config.weight_decay,
        )
        rngs = [key("order").numpy() for key in keys]
        orders = torch.from_numpy(np.stack([[r.permutation(images) for r in rngs] for _ in range(config.epochs)]))
        with torch.enable_grad():
            for order in orders.to(device):
                for rows in torch.split(order, config.head_minibatch, 1):
                    scores = logits(support.take_along_dim(rows[..., None], 1), weight, other, self.scale)
                    # A sum over tasks: each head sees the mean loss of its own task.
                    loss = F.cross_entropy(scores.flatten(0, 1), labels.gather(1, rows).flatten(), reduction="sum")
                    loss = loss / rows.shape[1]
                    sgd.zero_grad()
                    torch.autograd.backward(loss)
                    sgd.step()
        return logits(query, weight.detach(), other.detach(), self.scale).log_softmax(-1)


def defaults(kind: Callable[..., Config]) -> dict[str, Config]:
    """Named configs by data set."""
    photographs = {name: kind() for name in ("mini-imagenet", "cifar-fs", "folder")}
    return {
        "omniglot": kind(),
        "glyphs": replace(kind(), iterations=1000, checkpoint_every=100, log_every=10),
        **photographs,
    }
