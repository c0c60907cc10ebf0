"""A belief about the task as a memory: the encoder of VariBAD (Zintgraf et al. 2020), and what a policy sees of it.

    h_t = GRU(h_{t-1}, [relu E_s s_t, relu E_a a_{t-1}, relu E_r r_{t-1}, end_t])
    q_t = q(m | s_0, a_0, r_0, ..., s_t) = N(mean(h_t), diag exp(log_variance(h_t)))
    features_t = [tanh W s_t, tanh V (mean_t, log_variance_t)], of standardised numbers

m is what the task is, in a few numbers. A policy on these features acts on the state and on how sure it is of the task.
Its gradient ends at the features, unless it is let through: the encoder learns from the evidence lower bound alone
(`metarl.learning.belief_bound`).

What standardises is a parameter that no gradient moves: `norm.mean` and `norm.deviation`, of the state, the mean and
the log-variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metarl.nets.distributions import Gaussian
from metarl.nets.mlp import MLP
from metarl.nets.params import Params, below
from metarl.nets.recurrent import GRU

ENCODER = ("state", "action", "reward", "gru", "mean", "log_variance")  # whose parameters make the belief


@dataclass(frozen=True)
class Belief:
    """A `Memory` of trials, whose inputs are `[state, previous action, previous reward, 1 if an episode has ended]`.

    Its state is that of the recurrent layer, `(N, hidden)`, zero at the start.

    Attributes:
        observed: D, numbers of the state.
        acted: A, numbers that describe an action.
        latent: K, numbers of m.
        hidden: width of the recurrent layer.
        state_embedding: outputs of the relu layer between the state and the recurrent layer; 0 for none.
        action_embedding: the same for the previous action.
        reward_embedding: the same for the previous reward.
        policy_embedding: outputs of the tanh layers between state and policy, and belief and policy; 0 for none.
        through: whether a gradient of the features reaches the encoder.
    """

    observed: int
    acted: int
    latent: int = 5
    hidden: int = 128
    state_embedding: int = 32
    action_embedding: int = 16
    reward_embedding: int = 16
    policy_embedding: int = 64
    through: bool = False

    @property
    def features(self) -> int:
        """Numbers it gives at a moment."""
        return 2 * self.policy_embedding or self.shown

    @property
    def shown(self) -> int:
        """Numbers that are standardised: the state, the mean and the log-variance, D + 2 K."""
        return self.observed + 2 * self.latent

    @cached_property
    def _embeddings(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the layers before the recurrent one, in the order of the inputs."""
        return {
            "state": (self.observed, self.state_embedding),
            "action": (self.acted, self.action_embedding),
            "reward": (1, self.reward_embedding),
        }

    @cached_property
    def _gru(self) -> GRU:
        return GRU(sum(outputs or inputs for inputs, outputs in self._embeddings.values()) + 1, self.hidden)

    @cached_property
    def _layers(self) -> dict[str, MLP]:
        layers = {name: MLP(sizes) for name, sizes in self._embeddings.items() if sizes[1]}
        layers |= dict.fromkeys(("mean", "log_variance"), MLP((self.hidden, self.latent)))
        if self.policy_embedding:
            layers["policy_state"] = MLP((self.observed, self.policy_embedding))
            layers["policy_belief"] = MLP((2 * self.latent, self.policy_embedding))
        return layers

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: Glorot-uniform weights, orthogonal recurrent ones, zero biases."""
        params = {f"gru.{key}": value for key, value in self._gru.init(generator).items()}
        for name, layer in self._layers.items():
            params |= {f"{name}.{key}": value for key, value in layer.init(generator).items()}
        return params | {"norm.mean": torch.zeros(self.shown), "norm.deviation": torch.ones(self.shown)}

    def encoder(self, params: Params) -> Params:
        """Those of the parameters that make the belief."""
        return {name: value for name, value in params.items() if name.partition(".")[0] in ENCODER}

    def start(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The state of n rows before their first moment."""
        return self._gru.start(n, device)

    def step(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One moment; see `Memory.step`."""
        out, state = self.sequence(params, x.unsqueeze(0), state)
        return out.squeeze(0), state

    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """L moments in a row; see `Memory.sequence`."""
        with nullcontext() if self.through else torch.no_grad():
            belief, state = self.posterior(params, x, state)
            shown = self.show(x, belief)
        shown = (shown - params["norm.mean"].detach()) / params["norm.deviation"].detach()
        if not self.policy_embedding:
            return shown, state
        seen, believed = torch.split(shown, [self.observed, 2 * self.latent], -1)
        parts = {"policy_state": seen, "policy_belief": believed}
        return torch.cat([torch.tanh(self._apply(params, name, part)) for name, part in parts.items()], -1), state

    def posterior(self, params: Params, x: Tensor, state: Tensor, cut: int = 0) -> tuple[Gaussian, Tensor]:
        """q_t at each of L moments, `(L, N, K)`, and the state after the last.

        Args:
            params: the encoder's at least.
            x: `(L, N, D + A + 2)`.
            state: `(N, hidden)`, before the first.
            cut: steps gradients flow back (truncated back-propagation through time); 0 for all.
        """
        out: list[Tensor] = []
        for part in torch.split(self._embedded(params, x), cut or len(x)):
            hidden, state = self._gru.sequence(below(params, "gru"), part, state.detach() if out else state)
            out.append(hidden)
        hidden = torch.cat(out)
        mean, log_variance = (self._apply(params, name, hidden) for name in ("mean", "log_variance"))
        return Gaussian(mean, 0.5 * log_variance), state

    def show(self, x: Tensor, belief: Gaussian) -> Tensor:
        """What the policy sees before it is standardised, `(L, N, D + 2 K)`."""
        return torch.cat([x[..., : self.observed], belief.mean, 2 * belief.log_std], -1)

    def _embedded(self, params: Params, x: Tensor) -> Tensor:
        *parts, ended = torch.split(x, [self.observed, self.acted, 1, 1], -1)
        for i, (name, (_, outputs)) in enumerate(self._embeddings.items()):
            if outputs:
                parts[i] = torch.relu(self._apply(params, name, parts[i]))
        return torch.cat([*parts, ended], -1)

    def _apply(self, params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        return self._layers[name](below(params, name), x)
