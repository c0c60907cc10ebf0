"""Action distributions, differentiable in their natural description."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

NO_ACTION = torch.iinfo(torch.int64).min  # of a categorical distribution whose logits are NaN: no space has it


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
class TanhGaussian:
    """The hyperbolic tangent of independent normals: actions between -1 and 1 (Haarnoja et al. 2018, appendix C).

    `mean: (..., A)` and `log_std: (..., A)` are those of the normals.
    """

    mean: Tensor
    log_std: Tensor

    def mode(self) -> Tensor:
        """The tangent of the mean `(..., A)`, which is the median."""
        return torch.tanh(self.mean)

    def sample(self, noise: Tensor) -> Tensor:
        """Actions from standard normal `noise: (..., A)`."""
        return torch.tanh(self._normal.sample(noise))

    def sample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions, and their log-densities `(...)`: log N(u) - sum log(1 - tanh(u)^2), u before the tangent."""
        u = self._normal.sample(noise)
        slope = 2 * (math.log(2) - u - softplus(-2 * u))  # log(1 - tanh(u)^2), where that would round to log(0)
        return torch.tanh(u), self._normal.log_prob(u) - slope.sum(-1)

    @property
    def _normal(self) -> Gaussian:
        return Gaussian(self.mean, self.log_std)


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
