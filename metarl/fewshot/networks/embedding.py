"""Learners that compare embeddings: an encoder, and a rule from support features to classes.

`EmbeddingNetwork` is the module, its `compare` the rule; `Trained` judges it, with a curve over the
shots it was shown. Nothing here takes gradient steps on the encoder for a new task, so a learner takes any number of
classes, whatever it was trained with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.ambient import plain_torch, usable
from metarl.errors import NonFiniteError
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.images import ImageSource
from metarl.fewshot.networks import chunks
from metarl.fewshot.networks.backbones import (
    OURS,
    BatchNormMode,
    batch_dependent,
    check_basis,
    normalised_by,
)
from metarl.fewshot.networks.functional import accuracy, features, known
from metarl.learning.contract import Budget, Scores
from metarl.ops import finite
from metarl.seeding import Key, keyed_globals
from metarl.tasks import Tasks


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
        self.batch_norm = batch_norm

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
            found = self._encoded(images.flatten(0, 1)).view(*images.shape[:2], -1)
        elif not isinstance(self.encoder, OURS):  # it may do what vmap cannot, such as changing its buffers
            found = torch.stack([features(self.encoder, task) for task in images])
        else:
            basis = shots if self.batch_norm == "support" else None
            found = torch.func.vmap(lambda task: features(self.encoder, task, basis))(images)
        return found[:, :shots], found[:, shots:]

    def _encoded(self, images: Tensor) -> Tensor:
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
            found: Tensor = self(usable(batch), ways, keys)
        return found


def channels_last(encoder: nn.Module) -> nn.Module:
    """The encoder with its filters laid out channels last: convolutions take 1.4x less time on a CPU."""
    moved: nn.Module = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return moved


def class_means(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean features of each class `(T, N, F)`; see `EmbeddingNetwork.compare`."""
    members = F.one_hot(labels, ways).to(support.dtype)
    return members.transpose(1, 2) @ support / members.sum(1)[..., None]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Between all rows of `a (T, R, F)` and `b (T, N, F)`: `(T, R, N)`, wherever their origin is."""
    centre = b.mean(1, keepdim=True)
    a, b = a - centre, b - centre
    return (a * a).sum(-1)[..., None] - 2 * a @ b.transpose(1, 2) + (b * b).sum(-1)[:, None]


def exact(values: Tensor) -> Tensor:
    """In double precision, where the device has it: differences of large features are small."""
    return values.float() if values.device.type == "mps" else values.double()


def at_least_single(values: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def unit(values: Tensor) -> Tensor:
    """Rows of length 1, however short or long they were; a row of zeros stays one."""
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return values / torch.where(length > 0, length, torch.ones_like(length))


def loss_and_accuracy(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and mean accuracy over all queries of all tasks."""
    log_probabilities, labels = log_probabilities.flatten(0, 1), labels.flatten()
    return F.nll_loss(log_probabilities, labels), accuracy(log_probabilities.detach(), labels)


@dataclass(frozen=True)
class Trained:
    """A trained encoder and its rule.

    Attributes:
        network: in evaluation mode.
        source: where its tasks come from.
        rule: how it classifies, in words.
    """

    network: EmbeddingNetwork
    source: ImageSource
    rule: str

    @plain_torch()
    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Accuracy with the first 0..K support images of each class, K being all (an unbalanced set: none, and all).

        With none it is chance, 1/N. These learners take no gradient steps, so `budget.steps` has no meaning.

        Raises:
            NonFiniteError: a class probability is NaN: the features overflow.
        """
        ways = int(tasks.arrays["classes"].shape[1])
        norm = normalised_by(self.network.encoder, self.network.batch_norm)
        chunk = self._tasks_together(tasks)
        rows, key = [], Key(seed)("embedding", "evaluate")
        for start in range(0, len(tasks), chunk):
            batch = self.source.batch(some := tasks[start : start + chunk])
            keys = [key(*some.place(t)) for t in range(len(some))]
            shown = shots_shown(batch, ways)
            found = [torch.full((len(batch),), 1 / ways, dtype=torch.float64)]
            found += self._accuracies(batch, ways, shown[1:], keys)
            rows.append(torch.stack(found, 1))
        values = torch.cat(rows)
        finite.check_rows({"accuracy": values}, "a class probability", tasks)
        return Scores(
            values=values.numpy(),
            gradient_steps=None,
            env_steps=None,
            shots=shown,
            kind="accuracy",
            protocol=f"{ways}-way, {self.rule}, without support images chance; batch norm: {norm}",
        )

    def _tasks_together(self, tasks: Tasks) -> int:
        """How many tasks are judged together within `chunks.BYTES`."""
        images = tasks.arrays["support"].shape[1] + tasks.arrays["query"].shape[1]
        like = next((p for p in self.network.encoder.parameters() if p.is_floating_point()), torch.zeros(()))
        image = torch.zeros(self.source.image_shape, device=like.device)
        together = chunks.BYTES // (chunks.COPIES * image.numel() * image.element_size())
        if self.network.batch_norm != "running":  # a task's images go through the encoder together
            together = min(together, self.network.affordable(image))
        return int(max(1, together // images))

    def _accuracies(self, batch: Batch, ways: int, shown: tuple[int, ...], keys: list[Key]) -> list[Tensor]:
        """Of each task `(T,)`, with the first k support images of each class, for every k shown."""

        def score(log_probabilities: Tensor) -> Tensor:
            return accuracy(log_probabilities.double(), batch.query_y)

        def at(k: int) -> list[Key]:
            return [key("shots", k) for key in keys]

        if self.network.batch_norm != "running":
            return [score(self.network.judged(first_shots(batch, ways, k), ways, at(k))) for k in shown]
        with torch.no_grad():  # an image's features do not depend on the other images: encode each once
            support, query = self.network.embed(batch)
            parts = [first_shots(replace(batch, support_x=support), ways, k) for k in shown]
            compared = zip(parts, shown, strict=True)
            return [score(self.network.compare(p.support_x, p.support_y, query, ways, at(k))) for p, k in compared]

    @plain_torch()
    def log_probabilities(self, batch: Batch, ways: int, keys: Sequence[Key] = ()) -> Tensor:
        """Of the classes for the query images, `(T, R, ways)`; query labels are not used. `keys` as for `compare`."""
        return self.network.log_probabilities(batch, ways, keys)


def shots_shown(batch: Batch, ways: int) -> tuple[int, ...]:
    """0..K where every class has K support images; 0 and the mean where they differ."""
    shots = batch.support_y.shape[1] // ways
    balanced = torch.equal(batch.support_y, _balanced(batch, ways, shots))
    return tuple(range(shots + 1)) if balanced else (0, shots)


def first_shots(batch: Batch, ways: int, k: int) -> Batch:
    """The batch with the first k support images of each class; all of an unbalanced set."""
    tasks, images = batch.support_y.shape
    if k == images // ways:
        return batch

    def cut(values: Tensor) -> Tensor:
        return values.view(tasks, ways, images // ways, *values.shape[2:])[:, :, :k].flatten(1, 2)

    return replace(batch, support_x=cut(batch.support_x), support_y=cut(batch.support_y))


def _balanced(batch: Batch, ways: int, shots: int) -> Tensor:
    labels = torch.arange(ways, device=batch.support_y.device).repeat_interleave(shots)
    return labels.expand(len(batch), -1)


Rate = Callable[[int], float]


def halving(step_size: float, every: int | None) -> Rate:
    """A step size that halves every so many iterations; None: never."""
    return lambda iteration: step_size * (0.5 ** (iteration // every) if every else 1.0)
