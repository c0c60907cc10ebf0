"""Recurrent layers as memories; those of `torch.nn.GRU` and `torch.nn.LSTM` among them, as pure functions.

Torch's fused kernels are called with weights from a dict: over whole sequences (training), or one moment at a time
(acting). Parameters are torch's, without the layer's number: `weight_ih (gates * hidden, inputs)`,
`weight_hh (gates * hidden, hidden)`, `bias_ih` and `bias_hh (gates * hidden,)`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarl.nets.params import Params

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class Recurrent(ABC):
    """A recurrent memory: a `Memory` whose state is `(N, state_size)`, zero at the start.

    Attributes:
        inputs: numbers it is given at a moment.
        hidden: its width, and so the numbers it gives.
    """

    inputs: int
    hidden: int = 128

    @property
    def features(self) -> int:
        """Numbers it gives at a moment."""
        return self.hidden

    @property
    def state_size(self) -> int:
        """Numbers in its state."""
        return self.hidden

    def start(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The state of n rows before their first moment: zeros."""
        return torch.zeros(n, self.state_size, device=device)

    def step(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One moment; see `Memory.step`."""
        out, state = self.sequence(params, x.unsqueeze(0), state)
        return out.squeeze(0), state

    @abstractmethod
    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters; see `Memory.init`."""

    @abstractmethod
    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """L moments in a row; see `Memory.sequence`."""


class Fused(Recurrent):
    """One layer that torch has a fused kernel for."""

    gates: ClassVar[int]

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: Glorot-uniform weights, orthogonal recurrent ones a gate, zero biases."""
        bound = math.sqrt(6 / (self.inputs + self.hidden))
        recurrent = [
            torch.nn.init.orthogonal_(torch.empty(self.hidden, self.hidden), generator=generator)
            for _ in range(self.gates)
        ]
        rows = self.gates * self.hidden
        return {
            "weight_ih": bound * (2 * torch.rand(rows, self.inputs, generator=generator) - 1),
            "weight_hh": torch.cat(recurrent),
            "bias_ih": torch.zeros(rows),
            "bias_hh": torch.zeros(rows),
        }

    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """L moments in a row; see `Memory.sequence`."""
        # biases, layers, dropout, training, both directions, batch first
        flags = (True, 1, 0.0, torch.is_grad_enabled(), False, False)
        return self._kernel(x, state, [params[name] for name in WEIGHTS], flags)

    @abstractmethod
    def _kernel(
        self, x: Tensor, state: Tensor, weights: list[Tensor], flags: tuple[bool, int, float, bool, bool, bool]
    ) -> tuple[Tensor, Tensor]:
        """Torch's fused kernel."""


class GRU(Fused):
    """A gated recurrent unit (Cho et al. 2014); its state is the hidden state."""

    gates = 3

    def _kernel(
        self, x: Tensor, state: Tensor, weights: list[Tensor], flags: tuple[bool, int, float, bool, bool, bool]
    ) -> tuple[Tensor, Tensor]:
        out, last = torch.gru(x, state.unsqueeze(0), weights, *flags)
        return out, last.squeeze(0)


class LSTM(Fused):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); its state is the hidden state, then the cell state."""

    gates = 4

    @property
    def state_size(self) -> int:
        """Numbers in its state."""
        return 2 * self.hidden

    def init(self, generator: torch.Generator) -> Params:
        """As every recurrent layer's, but the forget gate's biases are 1 in sum (Jozefowicz et al. 2015)."""
        params = super().init(generator)
        params["bias_ih"][self.hidden : 2 * self.hidden] = 1.0
        return params

    def _kernel(
        self, x: Tensor, state: Tensor, weights: list[Tensor], flags: tuple[bool, int, float, bool, bool, bool]
    ) -> tuple[Tensor, Tensor]:
        h, c = (part.unsqueeze(0).contiguous() for part in state.chunk(2, -1))
        out, h, c = torch.lstm(x, (h, c), weights, *flags)
        return out, torch.cat([h, c], -1).squeeze(0)
