"""Features compared: class means, distances, lengths, and the precision that they need."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_means(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean features of each class `(T, N, F)`; see `EmbeddingNetwork.compare`."""
    members = F.one_hot(labels, ways).to(support.dtype)
    return members.transpose(1, 2) @ support / members.sum(1)[..., None]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Between all rows of `a (T, R, F)` and `b (T, N, F)`: `(T, R, N)`, wherever their origin is."""
    centre = b.mean(1, keepdim=True)
    a, b = a - centre, b - centre
    return (a * a).sum(-1)[..., None] - 2 * a @ b.transpose(1, 2) + (b * b).sum(-1)[:, None]


def exact(values: Tensor) -> Tensor:
    """In double precision, where the device has it: differences of large features are small."""
    return values.float() if values.device.type == "mps" else values.double()


def at_least_single(values: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def unit(values: Tensor) -> Tensor:
    """Rows of length 1, however short or long they were; a row of zeros stays one."""
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return values / torch.where(length > 0, length, torch.ones_like(length))
