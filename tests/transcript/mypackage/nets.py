"""Modules of the user's own: a policy that is skipped around, and what a memory is given."""

import torch
from torch import Tensor, nn


class Policy(nn.Module):
    """A linear policy beside a small network."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.straight = nn.Linear(inputs, outputs)
        self.around = nn.Sequential(nn.Linear(inputs, 8), nn.SiLU(), nn.LayerNorm(8), nn.Linear(8, outputs))

    def forward(self, obs: Tensor) -> Tensor:
        return self.straight(obs) + self.around(obs)


def encoder(inputs: int, outputs: int) -> nn.Module:
    """What RL²'s memory is given of an observation."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU())


class Doubt(nn.Module):
    """A module whose output is not finite, which must be refused."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((inputs, outputs), torch.nan))

    def forward(self, obs: Tensor) -> Tensor:
        return obs @ self.weight
