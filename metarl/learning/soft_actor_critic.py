"""Soft actor-critic on many tasks that an inferred latent vector tells apart (Rakelly et al. 2019, algorithm 1).

Version 1 of SAC (Haarnoja et al. 2018): twin Q, a state value V with a slow copy V', no temperature but the scale of
the rewards. With z drawn from q(z | context) by its mean and deviation:

    critics, encoder:  sum_i mean (Q_i(s, a, z) - [c r + gamma (1 - terminal) V'(s', z)])^2
                       + w sum_tasks KL(q || N(0, 1))
    value:             mean (V(s, z) - [min_i Q_i(s, a', z) - log pi(a' | s, z)])^2,      a' ~ pi(. | s, z)
    policy:            mean (log pi(a' | s, z) - min_i Q_i(s, a', z)) + 1e-3 (mean mu^2 + mean (log sigma)^2)
    V' <- V' + tau (V - V')

z is differentiated in the first line alone: policy and V see it as data, and so does the target. [.] is data too.
Critics and encoder step first; value and policy then step by the new critics, as in katerakelly/oyster. The sum over
tasks of the KL, which stands beside a mean over transitions, and the penalty on the policy's mean and log-deviation
are that code's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.learning.replay import Batch, Replay
from metarl.learning.settings import check_range
from metarl.nets.context_encoder import Posterior
from metarl.nets.latent_actor_critic import PARTS, LatentActorCritic
from metarl.nets.params import Params, below, device_of
from metarl.ops import finite

PENALTY = 1e-3  # on the mean square of the policy's mean, and of its log-deviation


@dataclass(frozen=True)
class SoftSettings:
    """What soft actor-critic is told. Where no source is named, the value comes from short runs on 2D navigation."""

    gamma: float = 0.9
    """Discount (Rakelly et al. 2019: 0.99)."""
    reward_scale: float = 20.0
    """Rewards are multiplied by this: the larger, the less entropy (Rakelly et al. 2019: 5; on points 100)."""
    kl_weight: float = 0.1
    """Of the KL between what is inferred and the prior (Rakelly et al. 2019; there 1 where rewards are sparse)."""
    step_size: float = 2e-3
    """Of Adam, for all networks (Rakelly et al. 2019: 3e-4)."""
    target_rate: float = 0.05
    """Share of the way that the slow copy of V goes towards V in a step (Rakelly et al. 2019: 0.005)."""
    gradient_steps: int = 200
    """Gradient steps an iteration (Rakelly et al. 2019: 2,000 to 4,000)."""
    meta_batch: int = 8
    """Tasks of a gradient step, all where there are fewer (there 16 on half-cheetah velocity, 4 on directions)."""
    batch: int = 32
    """Transitions of each of them to learn from (there 256)."""
    context: int = 64
    """Transitions of each of them to infer from (there 64 to 256)."""

    def __post_init__(self) -> None:
        check_range(self, "gamma", least=0, most=1)
        check_range(self, "reward_scale", "step_size", above=0)
        check_range(self, "target_rate", above=0, most=1)
        check_range(self, "kl_weight", least=0)
        check_range(self, "gradient_steps", "meta_batch", "batch", "context", least=1)


def bellman_target(rewards: Tensor, terminated: Tensor, next_value: Tensor, settings: SoftSettings) -> Tensor:
    """Targets of Q, c r + gamma (1 - terminal) V'(s'); a time limit is no terminal state."""
    return settings.reward_scale * rewards + settings.gamma * (1 - terminated) * next_value


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Sum over the twins `q (2, N)` of their mean squared distance to `target (N,)`."""
    return ((q - target) ** 2).mean(-1).sum()


def value_target(q: Tensor, log_prob: Tensor) -> Tensor:
    """min_i Q_i - log pi, from `q (2, N)` and `log_prob (N,)`, as data."""
    return (q.amin(0) - log_prob).detach()


def follow(slow: Params, fast: Params, rate: float) -> None:
    """Move parameters towards others by a share of the way, in place."""
    with torch.no_grad():
        for name, value in slow.items():
            value.lerp_(fast[name], rate)


class SoftActorCritic:
    """The networks and their optimisers.

    Args:
        networks: to be trained.
        params: fresh ones, on the device where everything is computed.
        settings: of the learning.
    """

    def __init__(self, networks: LatentActorCritic, params: Params, settings: SoftSettings) -> None:
        self.networks, self.params, self.settings = networks, params, settings
        self.parts = {part: below(params, part) for part in PARTS}
        for part, own in self.parts.items():
            for value in own.values():
                value.requires_grad_(part != "target")
        self.optimisers = {
            "critic": self._adam("critics", "encoder"),
            "actor": self._adam("policy", "value"),
        }

    def _adam(self, *parts: str) -> torch.optim.Optimizer:
        leaves = [value for part in parts for value in self.parts[part].values()]
        return torch.optim.Adam(leaves, self.settings.step_size, fused=True)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        optimisers = {name: each.state_dict() for name, each in self.optimisers.items()}
        return {"params": {name: value.detach() for name, value in self.params.items()}, "optimisers": optimisers}

    def like(self) -> dict[str, Any]:
        """What a checkpoint's entries must look like (`Run.restore`)."""
        return {**self.state(), "optimisers": self.optimisers}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        with torch.no_grad():
            for name, value in self.params.items():
                value.copy_(state["params"][name])
        for name, each in self.optimisers.items():
            each.load_state_dict(state["optimisers"][name])

    def infer(self, context: Tensor) -> Posterior:
        """What `context (M, N, C)` says of M tasks, differentiable in the encoder."""
        return self.networks.encoder(self.parts["encoder"], context)

    def critic_objective(
        self, batch: Batch, context: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The first line of the module's docstring, z for every transition `(M * n, L)`, and diagnostics.

        Args:
            batch: M tasks, n transitions each.
            context: `(M, N, C)`.
            noise: `(M, L)` standard normal, one z a task.
        """
        posterior = self.infer(context)
        z = posterior.sample(noise).repeat_interleave(batch.rewards.shape[1], 0)
        kl = posterior.kl_from_prior().sum()
        with torch.no_grad():
            following = self.networks.v(self.parts["target"], batch.next_obs.flatten(0, 1), z)
            target = bellman_target(batch.rewards.flatten(), batch.terminated.flatten(), following, self.settings)
        q = self.networks.q(self.parts["critics"], batch.obs.flatten(0, 1), batch.actions.flatten(0, 1), z)
        loss = critic_loss(q, target)
        diagnostics = {
            "critic/loss": loss.detach(),
            "critic/q": q.detach().mean(),
            "latent/kl": kl.detach() / len(noise),
            "latent/spread": posterior.mean.detach().std(0, correction=0).mean(),
        }
        return loss + self.settings.kl_weight * kl, z, diagnostics

    def actor_objective(self, obs: Tensor, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The losses of policy and value, and diagnostics.

        Args:
            obs: `(N, O)`.
            z: `(N, L)`; its gradient ends here.
            noise: `(N, A)` standard normal.
        """
        z = z.detach()
        distribution = self.networks.act(self.parts["policy"], obs, z)
        actions, log_prob = distribution.sample_with_log_prob(noise)
        q = self.networks.q(self.parts["critics"], obs, actions, z)
        penalty = PENALTY * ((distribution.mean**2).mean() + (distribution.log_std**2).mean())
        policy_loss = (log_prob - q.amin(0)).mean() + penalty
        value_loss = ((self.networks.v(self.parts["value"], obs, z) - value_target(q, log_prob)) ** 2).mean()
        diagnostics = {
            "policy/loss": policy_loss.detach(),
            "policy/entropy": -log_prob.detach().mean(),
            "value/loss": value_loss.detach(),
        }
        return policy_loss, value_loss, diagnostics

    def learn(self, replay: Replay, rng: np.random.Generator) -> dict[str, float]:
        """Many steps, each on the transitions and the context of a few tasks. Returns diagnostics, means over them.

        Raises:
            NonFiniteError: as `step` does.
        """
        total: dict[str, Tensor] = {}
        device = device_of(self.params)
        for _ in range(self.settings.gradient_steps):
            rows = rng.permutation(len(replay))[: self.settings.meta_batch]
            batch = replay.sample(rows, self.settings.batch, rng).to(device)
            context = replay.context(rows, self.settings.context, rng).to(device)
            for name, value in self.step(batch, context, rng).items():
                total[name] = total.get(name, 0.0) + value
        return {name: float(value) / self.settings.gradient_steps for name, value in total.items()}

    def step(self, batch: Batch, context: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """One step of all networks. Returns diagnostics.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; no step was taken with it.
        """
        m, n = batch.rewards.shape
        device = context.device

        def normals(*shape: int) -> Tensor:
            return torch.from_numpy(rng.standard_normal(shape, dtype="float32")).to(device)

        loss, z, diagnostics = self.critic_objective(batch, context, normals(m, self.networks.latent))
        self._take("critic", loss, "critics", "encoder")
        noise = normals(m * n, self.networks.action)
        policy_loss, value_loss, more = self.actor_objective(batch.obs.flatten(0, 1), z, noise)
        self._take("actor", policy_loss + value_loss, "policy", "value")
        follow(self.parts["target"], self.parts["value"], self.settings.target_rate)
        return diagnostics | more

    def _take(self, optimiser: str, loss: Tensor, *parts: str) -> None:
        """One step down the gradient of a loss in some parts; in others it is not even computed."""
        leaves = {f"{part}.{name}": value for part in parts for name, value in self.parts[part].items()}
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        for value, gradient in zip(leaves.values(), gradients, strict=True):
            value.grad = gradient
        finite.check_gradient(leaves)
        self.optimisers[optimiser].step()
