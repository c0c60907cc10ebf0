"""A hypernetwork as an actor: from what a memory holds come all weights of a small policy that sees the present alone.

    z_t = V m_t + v,   theta_t = theta + sum_k z_tk Theta_k,   action_t = policy(theta_t, observation_t)

Beck et al. 2023, "Recurrent Hypernetworks are Surprisingly Strong in Meta-RL": a latent z of 25 numbers, a policy with
two layers of 32. At the start theta is an ordinary initialisation of the policy and the directions Theta_k are 0
(Bias-HyperInit, Beck et al. 2022), so that whatever is remembered the first policy is the same well-conditioned one.

A layer's output is linear in z, so no theta_t is written down: what each direction makes of an input is summed instead,
which is as much arithmetic and a third less time.

Deviations: layers of the policy are tanh (there relu); only the actor is generated (there the critic as well, which
here is an ordinary head of the memory); V is linear, with nothing after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.nets.mlp import ACTIVATIONS, MLP
from metarl.nets.params import Params


@dataclass(frozen=True)
class Hypernetwork:
    """A policy whose weights are linear in a latent that is linear in the memory's features.

    Parameters: `latent.0.weight (features, latent)` and `latent.0.bias`; `policy.*`, the policy's own at z = 0, named
    as `MLP` does; and for each of its layers the directions `0.weight (latent, in, out)`, `0.bias (latent, out)`, ...

    Attributes:
        features: numbers that the memory gives at a moment.
        policy: whose weights are generated.
        latent: numbers in between.
    """

    features: int
    policy: MLP
    latent: int = 25

    @property
    def seen(self) -> int:
        """Numbers that the policy sees."""
        return self.policy.sizes[0]

    @property
    def _latent(self) -> MLP:
        return MLP((self.features, self.latent))

    def init(self, generator: torch.Generator, gain: float = 1.0) -> Params:
        """Fresh parameters by Bias-HyperInit; `gain` is that of the policy's last layer."""
        policy = self.policy.init(generator)
        policy[f"{len(self.policy.sizes) - 2}.weight"] *= gain
        params = {f"latent.{name}": value for name, value in self._latent.init(generator).items()}
        params |= {f"policy.{name}": value for name, value in policy.items()}
        return params | {name: torch.zeros(self.latent, *value.shape) for name, value in policy.items()}

    def __call__(self, params: Params, features: Tensor, obs: Tensor) -> Tensor:
        """Outputs `(..., A)` of each moment's policy, made of `features (..., F)`, for its `obs (..., seen)`."""
        lead = obs.shape[:-1]
        named = {name: params[f"latent.{name}"] for name in ("0.weight", "0.bias")}
        latent = self._latent(named, features.reshape(-1, self.features))  # (M, latent)
        x = obs.reshape(-1, self.seen)
        last = len(self.policy.sizes) - 2
        for i in range(last + 1):
            directions = params[f"{i}.weight"].transpose(0, 1).flatten(1)  # (in, latent * out)
            each = (x @ directions).view(len(x), self.latent, -1)  # (M, latent, out)
            own = torch.addmm(params[f"policy.{i}.bias"], x, params[f"policy.{i}.weight"])
            own = torch.addmm(own, latent, params[f"{i}.bias"])
            x = torch.baddbmm(own.unsqueeze(1), latent.unsqueeze(1), each).squeeze(1)
            if i < last:
                x = ACTIVATIONS[self.policy.activation](x)
        return x.reshape(*lead, self.policy.sizes[-1])
