"""Features centred and scaled before they are compared (Wang et al. 2019, "SimpleShot").

    l2    x / |x|
    cl2n  (x - m) / |x - m|,  m being the mean feature of the images trained on

They change what a trained encoder's features are compared by, not its training. In a new domain m is far from the
support images' mean, and CL2N may hurt.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from metarl.fewshot.networks.distances import at_least_single, exact, unit

FeatureNorm = Literal["none", "l2", "cl2n"]


class Normalised(nn.Module):
    """Features of length 1, centred first where there is a centre.

    Args:
        centre: the mean training feature `(F,)`; None: not centred (l2).
    """

    centre: Tensor | None

    def __init__(self, centre: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("centre", None if centre is None else exact(centre))

    def forward(self, features: Tensor) -> Tensor:
        """Features `(..., F)` to features of the same shape; one that lies on the centre becomes zeros."""
        values = exact(features)
        return unit(values if self.centre is None else values - self.centre).to(at_least_single(features).dtype)
