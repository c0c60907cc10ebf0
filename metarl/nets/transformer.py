"""A causal transformer as a memory: what it attends to is kept in a cache, so that acting costs a token a moment.

    token_t = W [x_t, x_{t-1}] + position_t,  h = token + attention(norm(token)),  h + feed-forward(norm(h)), ...

A token is a whole transition (`metarl.nets.transitions`), so that one layer suffices to compare transitions; or, with
`token` "moment", x_t alone. Layers are pre-norm (Xiong et al. 2020) with learned positions, as
in GPT-2 (Radford et al. 2019), over several heads (Vaswani et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metarl.errors import UserError
from metarl.nets.params import Params
from metarl.nets.transitions import Token, paired

POSITION_STD = 0.02  # of positions at the start, as in GPT-2
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # what a layer's queries get, given its new keys and values


@dataclass(frozen=True)
class Transformer:
    """Causal self-attention over the moments of a trial; a `Memory`.

    Its state is `(N, S)`, all zero at first: how many moments there were, the last one's input, and then room for
    the keys and values of every layer at every moment, `(layers, 2, heads, length, width / heads)`. So the trials of
    a batch may be at different moments, and a sequence may begin in the middle of a trial (gradients stop there, as
    in Transformer-XL).

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
        """The state of n rows before their first moment: zeros `(n, S)`."""
        return torch.zeros(n, 1 + self.inputs + 2 * self.layers * self.width * self.length, device=device)

    def step(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One moment; see `Memory.step`."""
        out, state = self.sequence(params, x.unsqueeze(0), state)
        return out.squeeze(0), state

    def act(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One moment, without gradients, written into the state that is given; see `metarl.nets.memory.InPlace`.

        A step copies all that a trial may ever hold. Here a moment costs what is attended to, and no more.

        Raises:
            UserError: as in `sequence`.
        """
        count, seen, cache = self._parts(state)
        at = count.long()[:, None]
        least, end = self._span(at)
        together = least + 1 == end  # all rows at the same moment, so that all of them see all that is filled
        visible = None if together else self._visible(at, end)
        rows = torch.arange(len(x), device=x.device)

        def attend(layer: int, query: Tensor, *fresh: Tensor) -> Tensor:
            for i, new in enumerate(fresh):  # keys, then values
                if together:
                    cache[:, layer, i, :, least:end] = new
                else:
                    cache[rows, layer, i, :, at[:, 0]] = new.squeeze(2)
            keys, values = cache[:, layer, :, :, :end].unbind(1)
            return F.scaled_dot_product_attention(query, keys, values, attn_mask=visible)

        out = self._features(params, x[:, None], seen[:, None], params["position"][at], attend)
        count += 1
        seen.copy_(x)
        return out.squeeze(1), state

    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """L moments in a row; see `Memory.sequence`.

        Raises:
            UserError: a trial is longer than `length`. On an accelerator an assertion of torch's says so, since
                asking would mean waiting for it. Nor does it ask there whether all trials are at their start, where
                no mask `(N, 1, L, L)` is needed.
        """
        x = x.transpose(0, 1)  # (N, L, inputs)
        count, seen, cache = self._parts(state)
        at = count.long()[:, None] + torch.arange(x.shape[1], device=x.device)  # (N, L), the moments
        _, end = self._span(at)
        empty = x.device.type == "cpu" and x.shape[1] > 1 and not bool(count.any())  # as a rule, when learning
        visible = None if empty else self._visible(at, end)
        after: list[Tensor] = []

        def attend(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            if empty:
                after.extend(F.pad(fresh, (0, 0, 0, self.length - fresh.shape[2])) for fresh in (keys, values))
                return F.scaled_dot_product_attention(query, keys, values, is_causal=True)
            index = at[:, None, :, None].expand_as(keys)
            filled = [cache[:, layer, i].scatter(2, index, fresh) for i, fresh in enumerate((keys, values))]
            after.extend(filled)
            keys, values = (each[:, :, :end] for each in filled)
            return F.scaled_dot_product_attention(query, keys, values, attn_mask=visible)

        position = params["position"][: x.shape[1]] if empty else params["position"][at]
        out = self._features(params, x, seen[:, None], position, attend)
        last = x[:, -1] if x.shape[1] else seen
        parts = [(count + x.shape[1])[:, None], last, *(each.flatten(1) for each in after)]
        return out.transpose(0, 1), torch.cat(parts, 1)

    def _features(self, params: Params, x: Tensor, seen: Tensor, position: Tensor, attend: Attend) -> Tensor:
        """What the layers make of inputs `(N, L, inputs)` after an earlier one `(N, 1, inputs)`, `(N, L, width)`."""
        token = paired(x, seen[:, : x.shape[1]], 1) if self.token == "transition" else x
        h = _affine(params, "token", token) + position
        for i in range(self.layers):
            y = _affine(params, f"{i}.attention", _normalised(params, f"{i}.before_attention", h))
            y = y.view(*y.shape[:2], 3, self.heads, self.width // self.heads).permute(0, 2, 3, 1, 4)
            attended = attend(i, *y.unbind(1)).transpose(1, 2).flatten(2)
            h = h + _affine(params, f"{i}.join", attended)
            y = _affine(params, f"{i}.feedforward.0", _normalised(params, f"{i}.before_feedforward", h))
            h = h + _affine(params, f"{i}.feedforward.1", F.gelu(y))
        return _normalised(params, "leave", h)

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views of a state: moments so far `(N,)`, the last input, `(N, layers, 2, heads, length, width / heads)`."""
        count, seen, cache = state[:, 0], state[:, 1 : 1 + self.inputs], state[:, 1 + self.inputs :]
        return count, seen, cache.view(-1, self.layers, 2, self.heads, self.length, self.width // self.heads)

    def _span(self, at: Tensor) -> tuple[int, int]:
        """The first of some moments, and the one after the last of them; all there may be on an accelerator."""
        if at.device.type != "cpu" or not at.numel():
            return 0, self.length
        least, most = at.aminmax()
        end = int(most) + 1
        if end > self.length:
            raise UserError(
                f"step {end} of a trial is beyond the {self.length} positions of this transformer: begin a new "
                "trial, or train it on longer ones"
            )
        return int(least), end

    def _visible(self, at: Tensor, end: int) -> Tensor:
        """Which of the first `end` moments those at `(N, L)` see: themselves and those before, `(N, 1, L, end)`."""
        return torch.arange(end, device=at.device) <= at[:, None, :, None]


def _affine(params: Params, name: str, x: Tensor) -> Tensor:
    return F.linear(x, params[f"{name}.weight"].T, params[f"{name}.bias"])


def _normalised(params: Params, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])
