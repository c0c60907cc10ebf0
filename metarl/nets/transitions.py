"""Tokens that are whole transitions: what is seen at a moment, and the same of the moment before.

    token_t = [x_t, x_{t-1}],   x_{-1} = 0

For RL² x_t is an observation with the previous action, reward and end, so that in a token a state stands beside the
action and the reward that it led to, and nothing has to be remembered to compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl.nets.params import Params
from metarl.nets.recurrent import Recurrent

Token = Literal["moment", "transition"]


def paired(x: Tensor, last: Tensor, time: int = 0) -> Tensor:
    """Each moment's input beside that of the moment before, in the last axis.

    Args:
        x: `(..., M)` with an axis of L moments.
        last: the input before the first of them, with an axis of length 1 in its place.
        time: which axis.

    Returns:
        `(..., 2 M)`.
    """
    before = torch.cat([last, x.narrow(time, 0, max(x.shape[time] - 1, 0))], time)
    return torch.cat([x, before], -1)


@dataclass(frozen=True)
class Transitions:
    """A recurrent memory of whole transitions; a `Memory` whose state is the layer's, then the last input.

    Attributes:
        memory: of twice as many inputs.
    """

    memory: Recurrent

    @property
    def features(self) -> int:
        """Numbers it gives at a moment."""
        return self.memory.features

    @property
    def inputs(self) -> int:
        """Numbers it is given at a moment."""
        return self.memory.inputs // 2

    def init(self, generator: torch.Generator) -> Params:
        """The memory's."""
        return self.memory.init(generator)

    def start(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The state of n rows before their first moment: the memory's, and zeros where an input was."""
        return torch.cat([self.memory.start(n, device), torch.zeros(n, self.inputs, device=device)], 1)

    def step(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One moment; see `Memory.step`."""
        out, state = self.sequence(params, x.unsqueeze(0), state)
        return out.squeeze(0), state

    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """L moments in a row; see `Memory.sequence`."""
        own, last = state.tensor_split((-self.inputs,), 1)
        out, own = self.memory.sequence(params, paired(x, last.unsqueeze(0)), own)
        return out, torch.cat([own, x[-1]], 1)
