"""What the learners of an initialisation share: the network that adapts, and the draws of each task."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.source import SupervisedSource
from metarl.fewshot.networks.backbones import Backbone, make_backbone
from metarl.fewshot.networks.classifier import Classifier
from metarl.fewshot.networks.footprint import encoder_footprint
from metarl.fewshot.networks.network import Network
from metarl.fewshot.networks.regressor import Regressor
from metarl.learning.footprint import NUMBER, Footprint, dense
from metarl.meta import inner
from metarl.nets.mlp import MLP
from metarl.nets.params import Params
from metarl.seeding import Key
from metarl.tasks import Tasks


def seeds(network: Network, key: Key, tasks: Tasks) -> Tensor | None:
    """A seed for each task `(T,)`, by its index, on the CPU, where it is read; None where the network draws nothing."""
    if not network.draws:
        return None
    return torch.tensor([key(int(index)).integer() for index in tasks.indices])


def learn(network: Network, aux: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars to log, means over the tasks; the buffers among what tasks report go back into the network."""
    network.follow({name.removeprefix("buffer/"): v for name, v in aux.items() if name.startswith("buffer/")})
    return {name: values.mean() for name, values in aux.items() if not name.startswith("buffer/")}


def check_moves(moves: str, params: Params) -> None:
    """Check that some parameter adapts.

    Raises:
        UserError: none does.
    """
    try:
        inner.Rule(0.0, moves=moves).moving(list(params))
    except ValueError as error:
        raise UserError(f"--moves: {error}") from None


class NetworkSettings(Protocol):
    """The part of a config that describes the network."""

    @property
    def hidden(self) -> tuple[int, ...]:
        """Regression: widths of the hidden layers."""

    @property
    def backbone(self) -> Backbone:
        """Images: which encoder."""

    @property
    def encoder(self) -> str | None:
        """Images: one of the user's own in the backbone's place."""

    @property
    def inner_steps(self) -> int:
        """Gradient steps of the inner loop."""

    @property
    def width(self) -> int:
        """Images: filters a layer."""

    @property
    def batch_norm(self) -> Literal["transductive", "support"]:
        """Images: what query images are normalised with."""

    @property
    def norm_scale(self) -> bool:
        """Images: whether batch normalisation has a scale."""


def make_network(
    config: NetworkSettings, source: SupervisedSource, key: Key, encoder: nn.Module | None = None
) -> Network:
    """The network that adapts to the source's tasks."""
    if not isinstance(source, ImageSource):
        return Regressor(MLP((1, *config.hidden, 1), "relu"))
    if encoder is None:
        encoder = make_backbone(
            config.backbone,
            source.image_shape,
            key("encoder").torch(),
            config.width,
            config.batch_norm,
            config.norm_scale,
        )
    return Classifier(encoder, source.image_shape, source.ways, config.batch_norm)


def adapted_footprint(config: NetworkSettings, source: SupervisedSource, images: int) -> Footprint:
    """What a training of an initialisation needs at least: the network, a task's iterates, and a batch of data.

    Args:
        config: describes the network and its inner loop.
        source: of images, or of points `(1,)`.
        images: support and query images, or points, that an iteration holds.
    """
    if isinstance(source, ImageSource):
        backbone = "" if config.encoder is not None else config.backbone
        need = encoder_footprint(backbone, config.width, source.image_shape, images)
    else:
        widths = (1, *config.hidden, 1)
        need = Footprint(dense(widths), NUMBER * images * sum(widths))
    return Footprint(need.parameters, need.data + NUMBER * config.inner_steps * need.parameters)
