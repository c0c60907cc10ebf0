"""What transitions say of a task: a product of Gaussians (Rakelly et al. 2019, equation 2).

    q(z | c_1, ..., c_N) = prod_n N(z; mu(c_n), sigma^2(c_n)),    normalised: a Gaussian with
    1 / sigma^2 = sum_n 1 / sigma_n^2,    mu = sigma^2 sum_n mu_n / sigma_n^2

A transition c_n is an observation, the action and the reward it brought. Their order does not matter, and what was
seen later multiplies what is known already. With nothing seen, q is the prior N(0, 1), which is no factor of the
product: the KL to it keeps the two near one another. Variances are softplus(.) of a network, at least 1e-7
(katerakelly/oyster).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from metarl.nets.mlp import MLP
from metarl.nets.params import Params

MIN_VARIANCE = 1e-7


@dataclass(frozen=True)
class Posterior:
    """What is known of L latent numbers of some tasks, as a product of Gaussians.

    Attributes:
        precision: `(..., L)`, the sum of 1 / sigma_n^2 over its factors; 0 where nothing has been seen.
        weighted: `(..., L)`, the sum of mu_n / sigma_n^2.
    """

    precision: Tensor
    weighted: Tensor

    @staticmethod
    def empty(shape: tuple[int, ...], device: torch.device | str = "cpu") -> Posterior:
        """Nothing seen."""
        return Posterior(torch.zeros(shape, device=device), torch.zeros(shape, device=device))

    def times(self, other: Posterior) -> Posterior:
        """The product of both."""
        return Posterior(self.precision + other.precision, self.weighted + other.weighted)

    @property
    def mean(self) -> Tensor:
        """`(..., L)`; 0 where nothing has been seen."""
        return self.weighted * self.variance

    @property
    def variance(self) -> Tensor:
        """`(..., L)`; 1 where nothing has been seen."""
        return torch.where(self.precision > 0, self.precision, 1.0).reciprocal()

    def sample(self, noise: Tensor) -> Tensor:
        """Draws from standard normal `noise: (..., L)`."""
        return self.mean + self.variance.sqrt() * noise

    def kl_from_prior(self) -> Tensor:
        """KL(q || N(0, 1)) `(...)`, summed over the latent numbers."""
        variance = self.variance
        return 0.5 * (variance + self.mean**2 - 1 - variance.log()).sum(-1)


@dataclass(frozen=True)
class ContextEncoder:
    """A network that makes a Gaussian factor of every transition.

    Attributes:
        network: from a transition to 2 L numbers, a mean and what softplus makes a variance of.
    """

    network: MLP

    def __call__(self, params: Params, context: Tensor, seen: Tensor | None = None) -> Posterior:
        """The product over the transitions `(..., N, C)`; those where `seen` `(..., N)` is false are left out."""
        mean, spread = self.network(params, context).chunk(2, -1)
        precision = softplus(spread).clamp(min=MIN_VARIANCE).reciprocal()
        if seen is not None:
            precision = precision * seen[..., None]
        return Posterior(precision.sum(-2), (precision * mean).sum(-2))
