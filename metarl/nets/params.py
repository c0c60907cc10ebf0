"""Parameters: a plain dict of tensors, one set or one per task, stacked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Params = dict[str, Tensor]


def on(params: Params, device: torch.device | str) -> Params:
    """The parameters on a device."""
    return {name: value.to(device) for name, value in params.items()}


def device_of(params: Params) -> torch.device:
    """Where they lie."""
    return next(iter(params.values())).device


def below(params: Mapping[str, Tensor], name: str) -> Params:
    """The parameters of one part, `name.*`, under its own names."""
    prefix = f"{name}."
    return {key[len(prefix) :]: value for key, value in params.items() if key.startswith(prefix)}


def flatten(params: Params) -> Tensor:
    """All parameters in one vector `(P,)`."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(theta: Tensor, like: Params) -> Params:
    """The inverse of `flatten`, with the names and shapes of `like`."""
    parts = torch.split(theta, [value.numel() for value in like.values()])
    return {name: part.view(like[name].shape) for name, part in zip(like, parts, strict=True)}
