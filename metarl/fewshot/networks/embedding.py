"""A network that compares embeddings: an encoder, and a rule from support features to classes.

Nothing here takes gradient steps on the encoder for a new task, so it takes any number of classes, whatever it was
trained with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from metarl.ambient import plain_torch, usable
from metarl.errors import NonFiniteError
from metarl.fewshot.batch import Batch
from metarl.fewshot.networks import chunks
from metarl.fewshot.networks.backbones import OURS, Conv4
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.encoders import batch_dependent, channels_last, check_basis, features
from metarl.fewshot.networks.feature_norm import Normalised
from metarl.fewshot.networks.scores import known
from metarl.seeding import Key, keyed_globals


class EmbeddingNetwork(nn.Module, ABC):
    """Classifies the query images of tasks by their features and those of the support images.

    Args:
        encoder: any module from images `(B, C, H, W)` to features `(B, F)`.
        batch_norm: in the modes `transductive` and `support` (ours alone) every task goes through the encoder by
            itself; in `running` all images do as one batch.

    Raises:
        UserError: the encoder cannot be told which images are support images.
    """

    def __init__(self, encoder: nn.Module, batch_norm: BatchNormMode) -> None:
        super().__init__()
        check_basis(encoder, batch_norm)
        self._image_bytes: dict[tuple[Any, ...], int] = {}  # of activations, by the kind of image
        self.encoder = channels_last(encoder)
        if isinstance(encoder, Conv4):
            encoder.first_order = True
        self.batch_norm = batch_norm
        self.feature_norm: Normalised | None = None  # of a trained network: what its features are compared by

    @abstractmethod
    def compare(self, support: Tensor, labels: Tensor, query: Tensor, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Log-probabilities of the classes.

        Args:
            support: features `(T, S, F)`.
            labels: `(T, S)` in 0..ways-1, each class at least once.
            query: features `(T, R, F)`.
            ways: N.
            keys: T, a task's own, for rules that draw; without them all tasks draw the same.

        Returns:
            `(T, R, N)`.
        """

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features of the support images `(T, S, F)` and of the query images `(T, R, F)`."""
        shots = batch.support_x.shape[1]
        images = torch.cat([batch.support_x, batch.query_x], 1)
        if self.batch_norm == "running":
            encoded = self.encoded(images.flatten(0, 1)).view(*images.shape[:2], -1)
        elif not isinstance(self.encoder, OURS):  # it may do what vmap cannot, such as changing its buffers
            encoded = torch.stack([features(self.encoder, task) for task in images])
        else:
            basis = shots if self.batch_norm == "support" else None
            encoded = torch.func.vmap(lambda task: features(self.encoder, task, basis))(images)
        if self.feature_norm is not None:
            encoded = self.feature_norm(encoded)
        return encoded[:, :shots], encoded[:, shots:]

    def encoded(self, images: Tensor) -> Tensor:
        """Features `(B, F)` of images `(B, C, H, W)`; where nothing is learned, so many at a time as memory allows."""
        if torch.is_grad_enabled() or batch_dependent(self.encoder):
            return features(self.encoder, images)
        parts = torch.split(images, self.affordable(images[0]))
        return torch.cat([features(self.encoder, part) for part in parts])

    def affordable(self, image: Tensor) -> int:
        """How many such images `(C, H, W)` are encoded together within `chunks.BYTES`."""
        key = (tuple(image.shape), image.dtype, image.device)
        if key not in self._image_bytes:
            encode = partial(features, self.encoder)
            self._image_bytes[key] = chunks.bytes_per_image(encode, image.shape, image)
        return max(1, chunks.BYTES // max(self._image_bytes[key], 1))

    def judge(self, support: Tensor, labels: Tensor, query: Tensor, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """As `compare`, for features that are numbers.

        Raises:
            NonFiniteError: some are NaN or infinite, or so large that the rule's answer is.
        """
        for which, values in (("support", support), ("query", query)):
            if wrong := int((~values.isfinite()).any(-1).sum()):
                images = values.shape[0] * values.shape[1]
                raise NonFiniteError(f"features of {wrong} of {images} {which} images are NaN or infinite")
        return known(self.compare(support, labels, query, ways, keys))

    def forward(self, batch: Batch, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Log-probabilities `(T, R, N)`; `keys` as for `compare`."""
        support, query = self.embed(batch)
        return self.compare(support, batch.support_y, query, ways, keys)

    @plain_torch()
    def log_probabilities(self, batch: Batch, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """The same without a gradient; query labels are not used.

        Raises:
            NonFiniteError: a feature is NaN or infinite, or a probability is NaN.
        """
        with torch.no_grad(), keyed_globals(Key(0)("judged")):
            batch = usable(batch)
            support, query = self.embed(batch)
            return self.judge(support, batch.support_y, query, ways, keys)

    @plain_torch()
    def judged(self, batch: Batch, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """The same, whatever the numbers."""
        with torch.no_grad(), keyed_globals(Key(0)("judged")):
            log_probabilities: Tensor = self(usable(batch), ways, keys)
        return log_probabilities
