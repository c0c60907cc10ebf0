"""A trained embedding, judged: a curve over the shots it was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarl.ambient import plain_torch
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.networks import chunks
from metarl.fewshot.networks.distances import exact
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.fewshot.networks.encoders import named_tensors, normalised_by
from metarl.fewshot.networks.scores import accuracy
from metarl.learning.contract import Budget, Scores
from metarl.ops import finite
from metarl.seeding import Key
from metarl.tasks import Tasks


@dataclass(frozen=True)
class TrainedEmbedding:
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
            batch = self.source.batch(some := tasks[start : start + chunk], self.device)
            keys = [key(*some.place(t)) for t in range(len(some))]
            shown = shots_shown(batch, ways)
            judged = torch.stack(self._accuracies(batch, ways, shown[1:], keys), 1).cpu().double()
            rows.append(torch.cat([torch.full((len(batch), 1), 1 / ways, dtype=torch.float64), judged], 1))
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

    @property
    def device(self) -> torch.device:
        """Where it computes; the CPU where there are no numbers to learn."""
        return next((value.device for value in named_tensors(self.network).values()), torch.device("cpu"))

    def to(self, device: torch.device | str) -> TrainedEmbedding:
        """The same on a device; its network is moved itself."""
        self.network.to(device)
        return self

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
            return accuracy(exact(log_probabilities), batch.query_y)

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
