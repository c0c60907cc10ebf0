"""Policies as pure functions of explicit parameters.

A policy is a frozen description; its parameters are a plain dict of tensors, either one set
(`weight: (in, out)`) or one per task, stacked (`weight: (T, in, out)`), which run as one batched
matrix product. So the same policy serves the shared parameters, the adapted parameters of all
tasks at once, and differentiation through the adaptation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import gymnasium
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from metarl.errors import UserError
from metarl.tasks import Array

Params = dict[str, Tensor]
Activation = Literal["tanh", "relu"]
NO_ACTION = torch.iinfo(torch.int64).min  # of a categorical distribution whose logits are NaN: no space has it
MIN_STD = 1e-6  # of a Gaussian policy, unless told otherwise
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


class Distribution(Protocol):
    """A batch of action distributions, differentiable in its natural description."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density `(...)`, summed over action dimensions."""

    def kl(self, other: Any) -> Tensor:
        """KL(self || other) `(...)`, summed over action dimensions."""

    def entropy(self) -> Tensor:
        """Entropy in nats `(...)`."""

    def description(self) -> tuple[Tensor, ...]:
        """The tensors that define it; the Fisher matrix is with respect to these."""

    def fisher(self, direction: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The Fisher information of the description times `direction`, element by element of the batch."""


@dataclass(frozen=True)
class Gaussian:
    """Independent normals. `mean: (..., A)`; `log_std` broadcasts against it."""

    mean: Tensor
    log_std: Tensor

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density `(...)`."""
        z = (actions - self.mean) * torch.exp(-self.log_std)
        constant = 0.5 * math.log(2 * math.pi) * self.mean.shape[-1]
        return -0.5 * (z * z).sum(-1) - self.log_std.sum(-1) - constant

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other) `(...)`."""
        z = (self.mean - other.mean) * torch.exp(-other.log_std)
        shift = self.log_std - other.log_std
        return 0.5 * (z * z).sum(-1) + (0.5 * (torch.exp(2 * shift) - 1) - shift).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats `(...)`."""
        each = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        return each.expand_as(self.mean).sum(-1)

    def description(self) -> tuple[Tensor, ...]:
        """Mean and log-standard-deviation, both `(..., A)`."""
        return self.mean, self.log_std.expand_as(self.mean)

    def fisher(self, direction: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Diagonal: 1 / std^2 for the mean, 2 for the log-standard-deviation."""
        mean, log_std = direction
        return mean * torch.exp(-2 * self.log_std), 2 * log_std

    def mode(self) -> Tensor:
        """The most likely action `(..., A)`."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Actions from standard normal `noise: (..., A)`."""
        return self.mean + torch.exp(self.log_std) * noise


@dataclass(frozen=True)
class Categorical:
    """Choices among A actions. `logits: (..., A)`, normalised to log-probabilities."""

    logits: Tensor

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density `(...)`."""
        return self.logits.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)

    def kl(self, other: Categorical) -> Tensor:
        """KL(self || other) `(...)`."""
        return (self.logits.exp() * (self.logits - other.logits)).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats `(...)`."""
        return -(self.logits.exp() * self.logits).sum(-1)

    def description(self) -> tuple[Tensor, ...]:
        """The normalised logits `(..., A)`."""
        return (self.logits,)

    def fisher(self, direction: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(diag(p) - p p') times `direction`."""
        p = self.logits.exp()
        return (p * (direction[0] - (p * direction[0]).sum(-1, keepdim=True)),)

    def mode(self) -> Tensor:
        """The most likely action `(...)`, the first of equals; `NO_ACTION` where the logits are NaN."""
        return self._known(self.logits.argmax(-1))

    def sample(self, noise: Tensor) -> Tensor:
        """Actions from uniform `noise: (..., 1)` by inverting the cumulative distribution; as `mode` where NaN."""
        below = (self.logits.exp().cumsum(-1) < noise).sum(-1)
        return self._known(below.clamp(max=self.logits.shape[-1] - 1))

    def _known(self, actions: Tensor) -> Tensor:
        return actions.where(~self.logits.isnan().any(-1), NO_ACTION)


class Policy(Protocol):
    """What rollouts and agents need of a policy without memory."""

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, one set."""

    def distribution(self, params: Params, obs: Tensor) -> Any:
        """Action distributions at `obs: (..., obs_dim)`; `(T, ..., obs_dim)` for stacked parameters."""

    def project(self, params: Params) -> Params:
        """The nearest parameters within their bounds; whoever changes parameters puts them back with it.

        Pure, differentiable, for single and for stacked parameters. A bound applied where parameters are used
        instead would be a one-way door: beyond it their gradient is zero, and nothing brings them back.
        """

    def noise(self, rng: Any, shape: tuple[int, ...]) -> Array:
        """The random numbers, `(*shape, ...)` float32, that `sample` of its distribution consumes."""


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron; parameters `0.weight (in, out)`, `0.bias (out,)`, `1.weight`, ...

    Attributes:
        sizes: widths from input to output.
        activation: between layers, not after the last.
    """

    sizes: tuple[int, ...]
    activation: Activation = "tanh"

    def init(self, generator: torch.Generator) -> Params:
        """Glorot-uniform weights and zero biases, as Finn et al. 2017 and ProMP initialise them."""
        params = {}
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            bound = math.sqrt(6 / (fan_in + fan_out))
            params[f"{i}.weight"] = bound * (2 * torch.rand(fan_in, fan_out, generator=generator) - 1)
            params[f"{i}.bias"] = torch.zeros(fan_out)
        return params

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Outputs `(..., out)`; stacked parameters `(T, ...)` want `x: (T, ..., in)`."""
        lead = x.shape[:-1]
        stacked = params["0.weight"].ndim == 3
        x = x.reshape(x.shape[0], -1, x.shape[-1]) if stacked else x.reshape(-1, x.shape[-1])
        last = len(self.sizes) - 2
        for i in range(last + 1):
            weight, bias = params[f"{i}.weight"], params[f"{i}.bias"]
            x = torch.baddbmm(bias.unsqueeze(1), x, weight) if stacked else torch.addmm(bias, x, weight)
            if i < last:
                x = ACTIVATIONS[self.activation](x)
        return x.reshape(*lead, self.sizes[-1])


@dataclass(frozen=True)
class GaussianPolicy:
    """A normal around an MLP's output, its log-standard-deviation a parameter of its own.

    Actions are in units in which 1 is the action bound, so `init_std=1` explores the whole range.

    Attributes:
        network: from observation to mean.
        init_std: initial standard deviation.
        min_std: the least standard deviation that `project` leaves.
    """

    network: MLP
    init_std: float = 1.0
    min_std: float = MIN_STD

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: the network's, and `log_std (A,)`."""
        log_std = torch.full((self.network.sizes[-1],), math.log(self.init_std))
        return {**self.network.init(generator), "log_std": log_std}

    def distribution(self, params: Params, obs: Tensor) -> Gaussian:
        """Normals with mean `(..., A)`."""
        mean = self.network(params, obs)
        log_std = params["log_std"]
        if log_std.ndim == 2:
            log_std = log_std.reshape(log_std.shape[0], *[1] * (mean.ndim - 2), -1)
        return Gaussian(mean, log_std)

    def project(self, params: Params) -> Params:
        """The same, with standard deviations of at least `min_std`."""
        return project_std(params, self.min_std)

    def noise(self, rng: Any, shape: tuple[int, ...]) -> Array:
        """Standard normals `(*shape, A)`."""
        drawn: Array = rng.standard_normal((*shape, self.network.sizes[-1]), dtype="float32")
        return drawn


@dataclass(frozen=True)
class CategoricalPolicy:
    """A softmax over an MLP's outputs."""

    network: MLP

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters."""
        return self.network.init(generator)

    def distribution(self, params: Params, obs: Tensor) -> Categorical:
        """Choices with logits `(..., A)`."""
        return Categorical(torch.log_softmax(self.network(params, obs), -1))

    def project(self, params: Params) -> Params:
        """The same: nothing is bounded."""
        return params

    def noise(self, rng: Any, shape: tuple[int, ...]) -> Array:
        """Uniform numbers `(*shape, 1)`."""
        drawn: Array = rng.random((*shape, 1), dtype="float32")
        return drawn


def project_std(params: Params, min_std: float) -> Params:
    """The same parameters, where `log_std` is one of them with deviations of at least `min_std`."""
    if "log_std" not in params:
        return params
    return {**params, "log_std": params["log_std"].clamp(min=math.log(min_std))}


def mlp_policy(
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    hidden: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    init_std: float = 1.0,
    min_std: float = MIN_STD,
) -> GaussianPolicy | CategoricalPolicy:
    """The policy for a pair of spaces: Gaussian for Box actions, categorical for Discrete.

    Raises:
        UserError: the observation is not a flat Box, or the action neither a flat Box nor Discrete.
    """
    if not isinstance(observation_space, Box) or len(observation_space.shape) != 1:
        raise UserError(f"an MLP policy needs a flat Box observation, got {observation_space}")
    n_in = observation_space.shape[0]
    if isinstance(action_space, Discrete):
        return CategoricalPolicy(MLP((n_in, *hidden, int(action_space.n)), activation))
    if isinstance(action_space, Box) and len(action_space.shape) == 1:
        return GaussianPolicy(MLP((n_in, *hidden, action_space.shape[0]), activation), init_std, min_std)
    raise UserError(f"an MLP policy needs a flat Box or a Discrete action space, got {action_space}")


def flatten(params: Params) -> Tensor:
    """All parameters in one vector `(P,)`."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(theta: Tensor, like: Params) -> Params:
    """The inverse of `flatten`, with the names and shapes of `like`."""
    parts = torch.split(theta, [value.numel() for value in like.values()])
    return {name: part.view(like[name].shape) for name, part in zip(like, parts, strict=True)}
