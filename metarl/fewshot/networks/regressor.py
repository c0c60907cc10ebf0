"""The network that adapts to regression tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.fewshot.batch import Batch
from metarl.fewshot.networks.network import Data
from metarl.nets.mlp import MLP
from metarl.nets.params import Params


@dataclass(frozen=True)
class Regressor:
    """A multilayer perceptron with squared errors."""

    mlp: MLP
    metric: str = "query_mse"
    draws: bool = False

    @property
    def still(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def to(self, device: str) -> Regressor:
        """Itself."""
        return self

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""
        return self.mlp.init(generator)

    def support_loss(self, params: Params, data: Data) -> Tensor:
        """Mean squared error over the points of one task."""
        x, y = data[:2]
        return ((self.mlp(params, x) - y) ** 2).mean()

    def query_loss(self, params: Params, task: Batch) -> tuple[Tensor, Tensor]:
        """Mean squared error, twice: it is the score too."""
        loss = self.support_loss(params, (task.query_x, task.query_y))
        return loss, loss.detach()

    def judge(self, params: Params, task: Batch, seed: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """As `query_loss`, with the numbers to report."""
        loss, score = self.query_loss(params, task)
        return loss, {"loss/query": loss.detach(), f"score/{self.metric}": score}

    def follow(self, buffers: dict[str, Tensor]) -> None:
        """There are none."""
