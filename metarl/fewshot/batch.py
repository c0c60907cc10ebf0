"""The tensors of a batch of supervised tasks: what a few-shot learner adapts on and is judged on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree


@dataclass(frozen=True)
class Batch:
    """Support and query data of T tasks; without the task axis, of one task.

    Images are `(T, S, C, H, W)` float32 in [0, 1] and labels `(T, S)` int64 in 0..N-1, S = N*K for
    the support set; regression has inputs `(T, S, in)` and targets `(T, S, out)`, float32.

    A torch pytree node: `torch.func.vmap` maps over the task axis of a whole batch.
    """

    support_x: Tensor  # (T, S, ...)
    support_y: Tensor  # (T, S) labels, or (T, S, out) targets
    query_x: Tensor  # (T, R, ...)
    query_y: Tensor  # (T, R) labels, or (T, R, out) targets

    def __len__(self) -> int:
        """T, the number of tasks."""
        return int(self.support_x.shape[0])

    def __getitem__(self, index: int | slice) -> Batch:
        """One task (an integer removes the task axis) or a smaller batch (a slice)."""
        return Batch(self.support_x[index], self.support_y[index], self.query_x[index], self.query_y[index])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return Batch(
            self.support_x.to(device), self.support_y.to(device), self.query_x.to(device), self.query_y.to(device)
        )


_pytree.register_pytree_node(
    Batch,
    lambda batch: ([batch.support_x, batch.support_y, batch.query_x, batch.query_y], None),
    lambda tensors, _: Batch(*tensors),
    serialized_type_name="metarl.fewshot.batch.Batch",
)
