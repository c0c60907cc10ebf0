"""Batch normalisation with an explicit choice of what it normalises with.

- `transductive`: the statistics of the images in the call (MAML: a query set is normalised with itself,
  so a prediction depends on the other queries: say so beside the number);
- `support`: the statistics of the first `basis` images of the call. Give support and query images
  together, support first, and nothing about the queries is used;
- `running`: averages over training, as `torch.nn.BatchNorm2d`; in training mode it updates them in
  place, which `vmap` does not allow.

In the first two modes there is no hidden state, so networks run under `torch.func.vmap`.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.errors import UserError

BatchNormMode = Literal["transductive", "support", "running"]
EPSILON = 1e-5
MOMENTUM = 0.1


class BatchNorm(nn.Module):
    """Batch normalisation of `(B, C)` or `(B, C, H, W)` in one of the three modes.

    Args:
        channels: C.
        mode: see the module.
        scale: learn a scale beside the shift (MAML's original code has none).
    """

    def __init__(self, channels: int, mode: BatchNormMode, scale: bool = True) -> None:
        super().__init__()
        if mode not in get_args(BatchNormMode):
            raise UserError(f"batch-norm mode {mode!r}: choose from {', '.join(get_args(BatchNormMode))}")
        self.mode = mode
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels))
        if mode == "running":
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, basis: int | None = None) -> Tensor:
        """Normalise `x`; `basis` images give the statistics in `support` mode (None: all of them)."""
        shape = [-1, *[1] * (x.dim() - 2)]
        if self.mode == "running":
            mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
            weight = torch.ones_like(self.bias) if self.weight is None else self.weight
            return F.batch_norm(x, mean, var, weight, self.bias, self.training, MOMENTUM, EPSILON)
        if self.mode == "transductive" or basis is None:
            if self.weight is not None:
                return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, EPSILON)
            # The shift apart: torch's second derivative fails where it is given a shift without a scale.
            return F.batch_norm(x, None, None, None, None, True, 0.0, EPSILON) + self.bias.view(shape)
        axes = [0, *range(2, x.dim())]
        var, mean = torch.var_mean(x[:basis], axes, correction=0, keepdim=True)
        scale = torch.rsqrt(var + EPSILON)  # written out: torch's own takes no gradient to given statistics
        if self.weight is not None:
            scale = scale * self.weight.view(shape)
        return (x - mean) * scale + self.bias.view(shape)

    def follow(self, mean: Tensor, var: Tensor) -> None:
        """Let the running averages follow moments of a batch: its mean and unbiased variance `(C,)`."""
        with torch.no_grad():
            self.get_buffer("running_mean").lerp_(mean, MOMENTUM)
            self.get_buffer("running_var").lerp_(var, MOMENTUM)
