"""The multilayer perceptron as a pure function of explicit parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl.nets.params import Params

Activation = Literal["tanh", "relu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron; parameters `0.weight (in, out)`, `0.bias (out,)`, `1.weight`, ...

    Attributes:
        sizes: widths from input to output.
        activation: between layers, not after the last.
    """

    sizes: tuple[int, ...]
    activation: Activation = "tanh"

    def init(self, generator: torch.Generator) -> Params:
        """Glorot-uniform weights and zero biases, as Finn et al. 2017 and ProMP initialise them."""
        params = {}
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            bound = math.sqrt(6 / (fan_in + fan_out))
            params[f"{i}.weight"] = bound * (2 * torch.rand(fan_in, fan_out, generator=generator) - 1)
            params[f"{i}.bias"] = torch.zeros(fan_out)
        return params

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Outputs `(..., out)`; stacked parameters `(T, ...)` want `x: (T, ..., in)`."""
        lead = x.shape[:-1]
        stacked = params["0.weight"].ndim == 3
        x = x.reshape(x.shape[0], -1, x.shape[-1]) if stacked else x.reshape(-1, x.shape[-1])
        last = len(self.sizes) - 2
        for i in range(last + 1):
            weight, bias = params[f"{i}.weight"], params[f"{i}.bias"]
            x = torch.baddbmm(bias.unsqueeze(1), x, weight) if stacked else torch.addmm(bias, x, weight)
            if i < last:
                x = ACTIVATIONS[self.activation](x)
        return x.reshape(*lead, self.sizes[-1])
