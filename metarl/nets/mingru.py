"""The minimal gated recurrent unit, whose gates see only the inputs (Feng et al. 2024, "Were RNNs All We Needed?").

    z_t = sigmoid(W_z x_t + b_z),   c_t = W_c x_t + b_c,   h_t = (1 - z_t) h_{t-1} + z_t c_t

All gates and candidates of a sequence are one matrix product; what is left to do moment by moment is the last equation,
element by element. Its gradient is written out here: with g_t = dL/dh_t through everything after t,

    g_t = dL/dh_t + (1 - z_{t+1}) g_{t+1},   dL/dc_t = g_t z_t,   dL/dz_t = g_t (c_t - h_{t-1}).

On CPUs these loops in place are faster than a parallel scan, which computes more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from metarl.nets.params import Params
from metarl.nets.recurrent import Recurrent


@dataclass(frozen=True)
class MinGRU(Recurrent):
    """Layers of minimal gated units; a `Memory` whose state is the hidden state of every layer, zero at the start.

    Parameters: of each layer `0.weight (2 hidden, in)` and `0.bias (2 hidden,)`, gates first, then candidates.

    Attributes:
        layers: stacked; each sees the hidden state of the one below.
    """

    layers: int = 1

    @property
    def state_size(self) -> int:
        """Numbers in its state."""
        return self.layers * self.hidden

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: Glorot-uniform weights, zero biases."""
        params = {}
        for i in range(self.layers):
            fan_in = self.hidden if i else self.inputs
            bound = math.sqrt(6 / (fan_in + self.hidden))
            params[f"{i}.weight"] = bound * (2 * torch.rand(2 * self.hidden, fan_in, generator=generator) - 1)
            params[f"{i}.bias"] = torch.zeros(2 * self.hidden)
        return params

    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """L moments in a row; see `Memory.sequence`."""
        after = []
        for i, start in enumerate(state.chunk(self.layers, 1)):
            mixed = F.linear(x, params[f"{i}.weight"], params[f"{i}.bias"])
            x = Mixing.apply(mixed, start)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            after.append(x[-1])
        return x, torch.cat(after, 1)


class Mixing(torch.autograd.Function):
    """The recurrence above: hidden states `(L, N, H)` from what the gates are made of, and the candidates.

    Called with `mixed (L, N, 2 H)`, the gates before their sigmoid and the candidates, and `start (N, H)`.
    """

    @staticmethod
    def forward(ctx: Any, mixed: Tensor, start: Tensor) -> Tensor:
        """Hidden states after each moment."""
        gates, candidates = mixed.chunk(2, -1)
        gates = gates.sigmoid()
        out = torch.empty_like(gates)
        h = start
        for gate, candidate, after in zip(gates.unbind(), candidates.unbind(), out.unbind(), strict=True):
            h = torch.lerp(h, candidate, gate, out=after)
        ctx.save_for_backward(mixed, gates, start, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of `mixed` and `start`."""
        mixed, gates, start, out = ctx.saved_tensors
        keep = 1 - gates
        flow = above[0].clone(memory_format=torch.contiguous_format)
        later, *earlier = reversed(flow.unbind())
        for kept, here in zip(reversed(keep.unbind()), earlier, strict=False):
            later = here.addcmul_(kept, later)
        gradient = torch.empty_like(mixed)
        of_gates, of_candidates = gradient.chunk(2, -1)
        candidates = mixed[..., gates.shape[-1] :]
        torch.mul(flow, gates, out=of_candidates)
        torch.sub(candidates[1:], out[:-1], out=of_gates[1:])
        torch.sub(candidates[0], start, out=of_gates[0])
        of_gates.mul_(of_candidates).mul_(keep)
        return gradient, flow[0] * keep[0]
