"""Accuracy and loss of class probabilities, whatever the numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.errors import NonFiniteError


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of rows whose likeliest class is their label; NaN where no class of a row is the likeliest.

    Args:
        logits: `(..., R, N)`, or log-probabilities; those of a row must be neither NaN nor positive infinity.
        labels: `(..., R)`.

    Returns:
        `(...)`.
    """
    right = (logits.argmax(-1) == labels).to(logits.dtype).mean(-1)
    return right.where((logits < torch.inf).flatten(-2).all(-1), torch.nan)


def known(log_probabilities: Tensor) -> Tensor:
    """The log-probabilities; raises NonFiniteError if one is NaN."""
    if log_probabilities.isnan().any():
        raise NonFiniteError("a class probability is nan")
    return log_probabilities


def loss_and_accuracy(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and mean accuracy over all queries of all tasks."""
    log_probabilities, labels = log_probabilities.flatten(0, 1), labels.flatten()
    return F.nll_loss(log_probabilities, labels), accuracy(log_probabilities.detach(), labels)
