"""Recurrent actor-critics as pure functions of explicit parameters.

The recurrent layer is the one of `torch.nn.GRU` or `torch.nn.LSTM`, its fused kernel called with weights from a
dict: over whole sequences (training), or one moment at a time (acting).

    observation -> [embedding] -> GRU or LSTM -> [layer norm] -> actor head, critic head
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor
from torch.nn import functional as F

from metarl.errors import UserError
from metarl.nets.distributions import Categorical, Gaussian
from metarl.nets.mlp import MLP, Activation
from metarl.nets.params import Params
from metarl.nets.policies import MIN_STD, project_std
from metarl.tasks import Array

Cell = Literal["gru", "lstm"]
GATES = {"gru": 3, "lstm": 4}
ACTOR_GAIN = 0.01  # of the actor's last layer at the start: first actions hardly depend on anything


@dataclass(frozen=True)
class Decision:
    """What a recurrent policy says at one or more moments."""

    distribution: Any  # of actions, batch shape (...)
    value: Tensor  # (...), the critic's estimate of the return that is left
    state: Tensor  # (N, state_size), the memory afterwards


@dataclass(frozen=True)
class RecurrentPolicy:
    """Actor and critic on top of one recurrent layer.

    Attributes:
        inputs: numbers in an observation.
        actions: choices, or dimensions of a continuous action.
        discrete: which of the two.
        cell: the recurrent layer.
        hidden: its width.
        embedding: width of a tanh layer before it; 0 for none.
        head: widths of hidden tanh layers after it, for actor and critic each.
        layer_norm: normalise what enters (where there is an embedding) and what leaves the recurrent layer.
        init_std: initial standard deviation of continuous actions, in units of their bound.
    """

    inputs: int
    actions: int
    discrete: bool
    cell: Cell = "gru"
    hidden: int = 128
    embedding: int = 0
    head: tuple[int, ...] = ()
    layer_norm: bool = False
    init_std: float = 1.0

    @property
    def state_size(self) -> int:
        """Numbers in the memory: the hidden state and, in an LSTM, the cell state after it."""
        return self.hidden * (2 if self.cell == "lstm" else 1)

    @property
    def _networks(self) -> dict[str, MLP]:
        activation: Activation = "tanh"
        networks = {
            "actor": MLP((self.hidden, *self.head, self.actions), activation),
            "critic": MLP((self.hidden, *self.head, 1), activation),
        }
        if self.embedding:
            networks["embedding"] = MLP((self.inputs, self.embedding), activation)
        return networks

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: Glorot-uniform weights, orthogonal recurrent ones a gate, zero biases.

        The biases of an LSTM's forget gate are 1 in sum (Jozefowicz et al. 2015).
        """
        width = self.embedding or self.inputs
        bound = math.sqrt(6 / (width + self.hidden))
        gates = GATES[self.cell]
        recurrent = [
            torch.nn.init.orthogonal_(torch.empty(self.hidden, self.hidden), generator=generator) for _ in range(gates)
        ]
        params = {
            "cell.weight_ih": bound * (2 * torch.rand(gates * self.hidden, width, generator=generator) - 1),
            "cell.weight_hh": torch.cat(recurrent),
            "cell.bias_ih": torch.zeros(gates * self.hidden),
            "cell.bias_hh": torch.zeros(gates * self.hidden),
        }
        if self.cell == "lstm":
            params["cell.bias_ih"][self.hidden : 2 * self.hidden] = 1.0
        for name, network in self._networks.items():
            params |= {f"{name}.{key}": value for key, value in network.init(generator).items()}
        params[f"actor.{len(self.head)}.weight"] *= ACTOR_GAIN
        if self.layer_norm:
            for name, size in {"enter": self.embedding, "leave": self.hidden}.items():
                if size:
                    params |= {f"{name}.weight": torch.ones(size), f"{name}.bias": torch.zeros(size)}
        if not self.discrete:
            params["log_std"] = torch.full((self.actions,), math.log(self.init_std))
        return params

    def project(self, params: Params) -> Params:
        """The nearest parameters whose standard deviations are at least `MIN_STD`; see `Policy.project`."""
        return project_std(params, MIN_STD)

    def start(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The memory at the start of a trial: zeros `(n, state_size)`."""
        return torch.zeros(n, self.state_size, device=device)

    def step(self, params: Params, obs: Tensor, state: Tensor) -> Decision:
        """One moment of N trials: `obs (N, inputs)`, `state (N, state_size)`."""
        out, state = self._recur(params, self._enter(params, obs).unsqueeze(0), state)
        return self._leave(params, out.squeeze(0), state)

    def sequence(self, params: Params, obs: Tensor, state: Tensor) -> Decision:
        """L moments of N trials in a row: `obs (L, N, inputs)`, and `state (N, state_size)` before the first."""
        return self._leave(params, *self._recur(params, self._enter(params, obs), state))

    def noise(self, rng: Any, shape: tuple[int, ...]) -> Array:
        """The random numbers, float32, that `sample` of its distribution consumes: `(*shape, 1)` or `(*shape, A)`."""
        drawn: Array
        if self.discrete:
            drawn = rng.random((*shape, 1), dtype="float32")
        else:
            drawn = rng.standard_normal((*shape, self.actions), dtype="float32")
        return drawn

    def _enter(self, params: Params, obs: Tensor) -> Tensor:
        if not self.embedding:
            return obs
        x = torch.tanh(self._networks["embedding"](_below(params, "embedding"), obs))
        return _normalised(params, "enter", x) if self.layer_norm else x

    def _recur(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """What the recurrent layer says to `x (L, N, ...)`, `(L, N, hidden)`, and the memory afterwards."""
        weights = [params[f"cell.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        # biases, layers, dropout, training, both directions, batch first
        flags = (True, 1, 0.0, torch.is_grad_enabled(), False, False)
        if self.cell == "gru":
            out, last = torch.gru(x, state.unsqueeze(0), weights, *flags)
        else:
            h, c = (part.unsqueeze(0).contiguous() for part in state.chunk(2, -1))
            out, h, c = torch.lstm(x, (h, c), weights, *flags)
            last = torch.cat([h, c], -1)
        return out, last.squeeze(0)

    def _leave(self, params: Params, out: Tensor, state: Tensor) -> Decision:
        if self.layer_norm:
            out = _normalised(params, "leave", out)
        networks = self._networks
        action = networks["actor"](_below(params, "actor"), out)
        value = networks["critic"](_below(params, "critic"), out).squeeze(-1)
        if self.discrete:
            return Decision(Categorical(torch.log_softmax(action, -1)), value, state)
        return Decision(Gaussian(action, params["log_std"]), value, state)


def _below(params: Params, name: str) -> Params:
    prefix = f"{name}."
    return {key[len(prefix) :]: value for key, value in params.items() if key.startswith(prefix)}


def _normalised(params: Params, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])


def recurrent_policy(
    observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], **options: Any
) -> RecurrentPolicy:
    """The recurrent policy for a pair of spaces; `options` are fields of `RecurrentPolicy`.

    Raises:
        UserError: the observation is not a flat Box, or the action neither a flat Box nor Discrete.
    """
    if not isinstance(observation_space, Box) or len(observation_space.shape) != 1:
        raise UserError(f"a recurrent policy needs a flat Box observation, got {observation_space}")
    inputs = observation_space.shape[0]
    if isinstance(action_space, Discrete):
        return RecurrentPolicy(inputs, int(action_space.n), True, **options)
    if isinstance(action_space, Box) and len(action_space.shape) == 1:
        return RecurrentPolicy(inputs, action_space.shape[0], False, **options)
    raise UserError(f"a recurrent policy needs a flat Box or a Discrete action space, got {action_space}")
