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
from typing import Any, Protocol

import gymnasium
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from metarl.errors import UserError
from metarl.nets.distributions import Categorical, Gaussian
from metarl.nets.mlp import MLP, Activation
from metarl.nets.params import Params
from metarl.seeding import Key
from metarl.tasks import Array

MIN_STD = 1e-6  # of a Gaussian policy, unless told otherwise


class Network(Protocol):
    """A function of explicit parameters, from `(..., inputs)` to `(..., outputs)`: an `MLP`, or a `ModuleNetwork`."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths, the first that of the input and the last that of the output."""

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, one set."""

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Outputs `(..., outputs)`; stacked parameters `(T, ...)` want `x: (T, ..., inputs)`."""


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
class GaussianPolicy:
    """A normal around a network's output, its log-standard-deviation a parameter of its own.

    Actions are in units in which 1 is the action bound, so `init_std=1` explores the whole range.

    Attributes:
        network: from observation to mean.
        init_std: initial standard deviation.
        min_std: the least standard deviation that `project` leaves.
    """

    network: Network
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
    """A softmax over a network's outputs."""

    network: Network

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


def make_policy(
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    network: Callable[[int, int], Network],
    init_std: float = 1.0,
    min_std: float = MIN_STD,
) -> GaussianPolicy | CategoricalPolicy:
    """The policy for a pair of spaces: Gaussian for Box actions, categorical for Discrete.

    Args:
        observation_space: what it sees.
        action_space: what it does.
        network: `(inputs, outputs)` to a network of as many.
        init_std: initial standard deviation of Box actions.
        min_std: their least standard deviation.

    Raises:
        UserError: the observation is not a flat Box, or the action neither a flat Box nor Discrete; or the network
            has a parameter that the policy has too.
    """
    if not isinstance(observation_space, Box) or len(observation_space.shape) != 1:
        raise UserError(f"a policy without memory needs a flat Box observation, got {observation_space}")
    inputs = observation_space.shape[0]
    if isinstance(action_space, Discrete):
        return CategoricalPolicy(network(inputs, int(action_space.n)))
    if isinstance(action_space, Box) and len(action_space.shape) == 1:
        made = network(inputs, action_space.shape[0])
        if "log_std" in made.init(Key(0).torch()):
            raise UserError("the network has a parameter log_std, as the policy has: give it another name")
        return GaussianPolicy(made, init_std, min_std)
    raise UserError(f"a policy without memory needs a flat Box or a Discrete action space, got {action_space}")


def mlp_policy(
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    hidden: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    init_std: float = 1.0,
    min_std: float = MIN_STD,
) -> GaussianPolicy | CategoricalPolicy:
    """The policy for a pair of spaces, around a multilayer perceptron; see `make_policy`."""

    def network(inputs: int, outputs: int) -> MLP:
        return MLP((inputs, *hidden, outputs), activation)

    return make_policy(observation_space, action_space, network, init_std, min_std)
