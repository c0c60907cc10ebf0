"""The networks of soft actor-critic on tasks that a latent vector z tells apart (Rakelly et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.nets.context_encoder import ContextEncoder
from metarl.nets.distributions import TanhGaussian
from metarl.nets.mlp import MLP
from metarl.nets.params import Params

LEAST_LOG_STD, MOST_LOG_STD = -20.0, 2.0  # of the policy before the tangent, as in rlkit
FIRST_SCALE = 0.01  # of the policy's last layer: its first actions are around 0, whatever it sees
PARTS = ("policy", "critics", "value", "target", "encoder")


@dataclass(frozen=True)
class LatentActorCritic:
    """A policy, two Q functions, a state value with its slow copy, and an encoder of context; relu networks.

    Attributes:
        observation: numbers of an observation, O.
        action: numbers of an action, A.
        latent: numbers of z, L.
        hidden: widths of the hidden layers of policy, Q and V.
        encoder_hidden: of the encoder's.
    """

    observation: int
    action: int
    latent: int
    hidden: tuple[int, ...]
    encoder_hidden: tuple[int, ...]

    @property
    def policy(self) -> MLP:
        """From observation and z to mean and log-deviation."""
        return MLP((self.observation + self.latent, *self.hidden, 2 * self.action), "relu")

    @property
    def critic(self) -> MLP:
        """From observation, action and z to Q."""
        return MLP((self.observation + self.action + self.latent, *self.hidden, 1), "relu")

    @property
    def value(self) -> MLP:
        """From observation and z to V."""
        return MLP((self.observation + self.latent, *self.hidden, 1), "relu")

    @property
    def encoder(self) -> ContextEncoder:
        """From transitions (observation, action, reward) to a posterior."""
        return ContextEncoder(MLP((self.observation + self.action + 1, *self.encoder_hidden, 2 * self.latent), "relu"))

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: `part.name`, the critics' stacked `(2, ...)`, the target's those of the value."""
        policy = self.policy.init(generator)
        policy[f"{len(self.hidden)}.weight"] *= FIRST_SCALE
        one, other = self.critic.init(generator), self.critic.init(generator)
        value = self.value.init(generator)
        parts: dict[str, Params] = {
            "policy": policy,
            "critics": {name: torch.stack([one[name], other[name]]) for name in one},
            "value": value,
            "target": {name: each.clone() for name, each in value.items()},
            "encoder": self.encoder.network.init(generator),
        }
        return {f"{part}.{name}": each for part in PARTS for name, each in parts[part].items()}

    def project(self, params: Params) -> Params:
        """The same: nothing is bounded."""
        return params

    def act(self, policy: Params, obs: Tensor, z: Tensor) -> TanhGaussian:
        """Actions at `obs: (..., O)` and `z: (..., L)`, by the policy's own parameters."""
        mean, log_std = self.policy(policy, torch.cat([obs, z], -1)).chunk(2, -1)
        return TanhGaussian(mean, log_std.clamp(LEAST_LOG_STD, MOST_LOG_STD))

    def q(self, critics: Params, obs: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        """Both Q functions `(2, N)` at N observations, actions and latent vectors."""
        x = torch.cat([obs, actions, z], -1)
        return self.critic(critics, x.expand(2, *x.shape))[..., 0]

    def v(self, value: Params, obs: Tensor, z: Tensor) -> Tensor:
        """State values `(...)`."""
        return self.value(value, torch.cat([obs, z], -1))[..., 0]
