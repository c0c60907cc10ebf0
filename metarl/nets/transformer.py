"""A causal transformer as a memory: what it attends to is kept in a cache, so that acting costs a token a moment.

    token_t = W [x_t, x_{t-1}] + position_t,  h = token + attention(norm(token)),  h + feed-forward(norm(h)), ...

A token is a whole transition (`metarl.nets.transitions`), so that one layer suffices to compare transitions; or, with
`token` "moment", x_t alone. Layers are pre-norm (Xiong et al. 2020) with learned positions, as
in GPT-2 (Radford et al. 2019), over several heads (Vaswani et al. 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metarl.errors import UserError
from metarl.nets.params import Params
from metarl.nets.transitions import Token, paired

POSITION_STD = 0.02  # of positions at the start, as in GPT-2


@dataclass(frozen=True)
class Transformer:
    """Causal self-attention over the moments of a trial; a `Memory`.

    Its state is `(N, length, C)`: a line for every moment, all zero until then. A line holds a 1 that says it is
    filled, the moment's input, and the keys and values of every layer. So the trials of a batch may be at different
    moments, and a sequence may begin in the middle of a trial (gradients stop there, as in Transformer-XL).

    Attributes:
        inputs: numbers it is given at a moment.
        length: the most moments of a trial: there are as many positions, and none is made up for a longer one.
        width: of a token.
        layers: attention layers.
        heads: of each layer; they share its width.
        feedforward: width of the hidden layer after each attention; 0 stands for twice the width.
        token: what a token is made of.
    """

    inputs: int
    length: int
    width: int = 64
    layers: int = 1
    heads: int = 4
    feedforward: int = 0
    token: Token = "transition"

    def __post_init__(self) -> None:
        if min(self.inputs, self.length, self.width, self.layers, self.heads) < 1:
            raise ValueError(f"inputs, length, width, layers and heads must be at least 1: {self}")
        if self.width % self.heads:
            raise UserError(
                f"a transformer's {self.heads} heads share its width evenly, and {self.width} is no multiple"
            )

    @property
    def features(self) -> int:
        """Numbers it gives at a moment."""
        return self.width

    @property
    def _hidden(self) -> int:
        return self.feedforward or 2 * self.width

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: Glorot-uniform weights, those that end a branch divided by sqrt(2 layers); zero biases."""

        def weight(fan_in: int, fan_out: int, scale: float = 1.0) -> Tensor:
            bound = scale * math.sqrt(6 / (fan_in + fan_out))
            return bound * (2 * torch.rand(fan_in, fan_out, generator=generator) - 1)

        width, hidden, branch = self.width, self._hidden, (2 * self.layers) ** -0.5
        params = {
            "token.weight": weight((1 + (self.token == "transition")) * self.inputs, width),
            "token.bias": torch.zeros(width),
            "position": POSITION_STD * torch.randn(self.length, width, generator=generator),
        }
        for i in range(self.layers):
            params |= {
                f"{i}.before_attention.weight": torch.ones(width),
                f"{i}.before_attention.bias": torch.zeros(width),
                f"{i}.attention.weight": torch.cat([weight(width, width) for _ in "qkv"], 1),
                f"{i}.attention.bias": torch.zeros(3 * width),
                f"{i}.join.weight": weight(width, width, branch),
                f"{i}.join.bias": torch.zeros(width),
                f"{i}.before_feedforward.weight": torch.ones(width),
                f"{i}.before_feedforward.bias": torch.zeros(width),
                f"{i}.feedforward.0.weight": weight(width, hidden),
                f"{i}.feedforward.0.bias": torch.zeros(hidden),
                f"{i}.feedforward.1.weight": weight(hidden, width, branch),
                f"{i}.feedforward.1.bias": torch.zeros(width),
            }
        return params | {"leave.weight": torch.ones(width), "leave.bias": torch.zeros(width)}

    def start(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The state of n rows before their first moment: zeros `(n, length, C)`."""
        return torch.zeros(n, self.length, 1 + self.inputs + 2 * self.width * self.layers, device=device)

    def step(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One moment; see `Memory.step`."""
        out, state = self.sequence(params, x.unsqueeze(0), state)
        return out.squeeze(0), state

    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """L moments in a row; see `Memory.sequence`.

        Raises:
            UserError: a trial is longer than `length`. On an accelerator an assertion of torch's says so, since
                asking would mean waiting for it.
        """
        x = x.transpose(0, 1)  # (N, L, inputs)
        filled, seen = state[..., 0], state[..., 1 : 1 + self.inputs]
        at = filled.sum(1).long()[:, None] + torch.arange(x.shape[1], device=x.device)  # (N, L), the moments
        end = self.length
        if x.device.type == "cpu" and at.numel():
            end = int(at.max()) + 1
            if end > self.length:
                raise UserError(
                    f"step {end} of a trial is beyond the {self.length} positions of this transformer: begin a new "
                    "trial, or train it on longer ones"
                )
        token = x
        if self.token == "transition":
            last = seen.gather(1, _columns((at[:, :1] - 1).clamp(min=0), self.inputs))  # zeros where nothing was seen
            token = paired(x, last, 1)
        h = _affine(params, "token", token) + params["position"][at]
        visible = torch.arange(end, device=x.device) <= at[:, None, :, None]  # (N, 1, L, end)
        fresh, column = [torch.ones_like(x[..., :1]), x], 0
        for i in range(self.layers):
            y = _affine(params, f"{i}.attention", _normalised(params, f"{i}.before_attention", h))
            fresh.append(y[..., self.width :])
            state, column = _written(state, torch.cat(fresh, -1), at, column)
            fresh = []
            keys, values = state[:, :end, column - 2 * self.width : column].chunk(2, -1)
            query, keys, values = map(self._by_head, (y[..., : self.width], keys, values))
            attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible)
            attended = attended.transpose(1, 2).flatten(2)
            h = h + _affine(params, f"{i}.join", attended)
            y = _affine(params, f"{i}.feedforward.0", _normalised(params, f"{i}.before_feedforward", h))
            h = h + _affine(params, f"{i}.feedforward.1", F.gelu(y))
        return _normalised(params, "leave", h).transpose(0, 1), state

    def _by_head(self, x: Tensor) -> Tensor:
        """`(N, L, width)` as `(N, heads, L, width / heads)`."""
        return x.view(*x.shape[:-1], self.heads, self.width // self.heads).transpose(1, 2)


def _written(state: Tensor, fresh: Tensor, at: Tensor, column: int) -> tuple[Tensor, int]:
    """A copy of the state with `fresh (N, L, c)` in its lines `at (N, L)` from a column on, and the column after."""
    end = column + fresh.shape[-1]
    state = state.clone()
    state[..., column:end].scatter_(1, _columns(at, fresh.shape[-1]), fresh)
    return state, end


def _columns(index: Tensor, size: int) -> Tensor:
    """`(N, L)` as an index of `size` columns."""
    return index.unsqueeze(-1).expand(-1, -1, size)


def _affine(params: Params, name: str, x: Tensor) -> Tensor:
    return F.linear(x, params[f"{name}.weight"].T, params[f"{name}.bias"])


def _normalised(params: Params, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])
