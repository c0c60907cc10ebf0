"""Networks that an inner loop moves: pure functions of explicit parameters, with their losses and scores.

A task's data is a `Batch` without the task axis. Losses are means over its examples, so an inner step
size means the same whatever the number of ways and shots.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.fewshot import backbones
from metarl.fewshot.backbones import feature_size, initialise
from metarl.fewshot.batch import Batch
from metarl.learner import UserError
from metarl.policies import MLP, Params

Data = tuple[Tensor, Tensor]  # inputs and targets of one task
OURS = (backbones.Conv4, backbones.ResNet12, backbones.MLP)  # encoders whose second argument is a `basis`


class Network(Protocol):
    """What a gradient-based learner needs of its network."""

    @property
    def metric(self) -> str:
        """The name of its score in the log."""

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""

    def support_loss(self, params: Params, data: Data) -> Tensor:
        """Mean loss over a task's support data."""

    def query_loss(self, params: Params, task: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss and mean score over a task's query data."""


@dataclass(frozen=True)
class Regressor:
    """A multilayer perceptron with squared errors."""

    mlp: MLP
    metric: str = "query_mse"

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""
        return self.mlp.init(generator)

    def support_loss(self, params: Params, data: Data) -> Tensor:
        """Mean squared error over the points of one task."""
        x, y = data
        return ((self.mlp(params, x) - y) ** 2).mean()

    def query_loss(self, params: Params, task: Batch) -> tuple[Tensor, Tensor]:
        """Mean squared error, twice: it is the score too."""
        loss = self.support_loss(params, (task.query_x, task.query_y))
        return loss, loss.detach()


def features(encoder: nn.Module, x: Tensor, basis: int | None = None) -> Tensor:
    """Images `(B, C, H, W)` to features `(B, F)`; only our own backbones know what a `basis` is."""
    found: Tensor = encoder(x, basis) if isinstance(encoder, OURS) else encoder(x)
    return found


class EncoderAndHead(nn.Module):
    """An encoder and a linear layer with an output a class; parameters `encoder.*` and `head.*`."""

    def __init__(self, encoder: nn.Module, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(feature_size(encoder, image_shape), classes)

    def forward(self, x: Tensor, basis: int | None = None) -> Tensor:
        """Logits `(B, classes)`."""
        logits: Tensor = self.head(features(self.encoder, x, basis))
        return logits


class _Skeleton(threading.local):
    """A module without data, one for each thread: calling it with given parameters changes it for a while."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).to("meta")

    def __reduce__(self) -> tuple[type[_Skeleton], tuple[nn.Module]]:
        """Copies and pickles begin with this thread's module."""
        return _Skeleton, (self.module,)


class Classifier:
    """An encoder and a linear head for N classes, with mean cross-entropy.

    Args:
        encoder: any module from images `(B, C, H, W)` to features `(B, F)`. Its buffers stay as they
            are: with running batch-norm statistics, use it in evaluation mode.
        image_shape: (channels, height, width).
        ways: N.
        batch_norm: what the query images are normalised with: `transductive`, themselves;
            `support`, the support images. See `metarl.fewshot.backbones`.
    """

    metric = "query_accuracy"

    def __init__(
        self,
        encoder: nn.Module,
        image_shape: tuple[int, int, int],
        ways: int,
        batch_norm: Literal["transductive", "support"] = "transductive",
    ) -> None:
        self.ways = ways
        self.batch_norm = batch_norm
        module = EncoderAndHead(encoder, image_shape, ways)
        self._encoder = {f"encoder.{name}": value.detach().clone() for name, value in encoder.named_parameters()}
        self._buffers = dict(module.named_buffers())
        self._head = copy.deepcopy(module.head)
        self._skeleton = _Skeleton(module)

    def init(self, generator: torch.Generator) -> Params:
        """The encoder's parameters as they were given, and a fresh head."""
        initialise(self._head, generator)
        head = {f"head.{name}": value.detach().clone() for name, value in self._head.named_parameters()}
        return {name: value.clone() for name, value in self._encoder.items()} | head

    def logits(self, params: Params, x: Tensor, basis: int | None = None) -> Tensor:
        """`(B, N)` from images `(B, C, H, W)`."""
        held: Tensor = torch.func.functional_call(
            self._skeleton.module, {**self._buffers, **params}, (x, basis), strict=True
        )
        return held

    def query_logits(self, params: Params, task: Batch) -> Tensor:
        """`(R, N)` for a task's query images."""
        if self.batch_norm == "transductive":
            return self.logits(params, task.query_x)
        basis = task.support_x.shape[0]
        return self.logits(params, torch.cat([task.support_x, task.query_x]), basis)[basis:]

    def support_loss(self, params: Params, data: Data) -> Tensor:
        """Mean cross-entropy over the support images, normalised with themselves."""
        x, y = data
        return F.cross_entropy(self.logits(params, x), y)

    def query_loss(self, params: Params, task: Batch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and accuracy over the query images."""
        logits = self.query_logits(params, task)
        accuracy = (logits.argmax(-1) == task.query_y).to(logits.dtype).mean()
        return F.cross_entropy(logits, task.query_y), accuracy.detach()


def check_ways(ways: int, known: int) -> None:
    """Check that a head of `known` outputs can tell `ways` classes apart.

    Raises:
        UserError: there are more classes.
    """
    if ways > known:
        raise UserError(
            f"this learner's head tells {known} classes apart and was given {ways}: give at most {known}, train one "
            f"with --ways {ways}, or use a learner that takes any number of classes (protonet, centroid)"
        )
