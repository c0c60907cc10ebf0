"""What an inner loop moves: networks as pure functions of explicit parameters, with their losses and scores.

A task's data is a `Batch` without the task axis. Losses are means over its examples, so an inner step
size means the same whatever the number of ways and shots.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from metarl.fewshot.batch import Batch
from metarl.nets.params import Params

Data = tuple[Tensor, ...]  # inputs and targets of one task; where the network draws, the seed `()` of its draws


class Network(Protocol):
    """What a gradient-based learner needs of its network."""

    @property
    def metric(self) -> str:
        """The name of its score in the log."""

    @property
    def still(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside the parameters, changed in place: frozen parameters and buffers."""

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers in training, so wants a seed with a task's data."""

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""

    def to(self, device: str) -> Network:
        """Itself, what it holds being moved."""

    def support_loss(self, params: Params, data: Data) -> Tensor:
        """Mean loss over a task's support data."""

    def query_loss(self, params: Params, task: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss and mean score over a task's query data."""

    def judge(self, params: Params, task: Batch, seed: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """In training: mean loss over the query data, and what to report: scalars, and `buffer/NAME` afterwards."""

    def follow(self, buffers: dict[str, Tensor]) -> None:
        """Take over what the tasks of a meta-batch made of the buffers, `(T, ...)`."""
