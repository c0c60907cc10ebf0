"""A module that a user brings: parameters, buffers, mode, randomness, frozen parts and ties.

Every learner works on a copy, so the caller's module stays as it is, and honours all of it:

- it is trained in the mode in which it comes, part by part (what is in `eval()` keeps its statistics and drops
  nothing out), and judged in evaluation mode;
- parameters with `requires_grad=False` neither adapt nor learn; tied ones stay one parameter;
- buffers are saved with the parameters; what it draws at random comes from keyed streams;
- config.json describes it (`metarl.fewshot.learners.encoder_choice`), so that another one is refused when the run is
  resumed or loaded.

What cannot be honoured is refused in one line.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from metarl.errors import UserError
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.encoders import (
    batch_dependent,
    check_basis,
    draws_in,
    feature_size,
    first_line,
    named_tensors,
)

COMPARED = {  # entries of a description, and what they describe
    "tensors": "names, shapes and ties of parameters and buffers",
    "layers": "layers as printed",
    "frozen": "frozen parameters",
    "evaluating": "parts in evaluation mode",
}


def own(encoder: nn.Module, source: Any, batch_norm: BatchNormMode) -> nn.Module:
    """A copy of an encoder that a learner can honour.

    Raises:
        UserError: it cannot be honoured; the line says why.
    """
    if not isinstance(source, ImageSource):
        raise UserError(f"{source.name} has no images, so nothing for an encoder; leave it out")
    if not isinstance(encoder, nn.Module):
        raise UserError(f"an encoder is a torch.nn.Module, not a {type(encoder).__name__}")
    if any(map(is_lazy, [*encoder.parameters(), *encoder.buffers()])):
        raise UserError("the encoder has lazy layers without shapes yet: call it once on images before you give it")
    try:
        mine = copy.deepcopy(encoder)
    except Exception as error:  # whatever a module's parts raise
        raise UserError(f"the encoder cannot be copied (copy.deepcopy: {first_line(error)})") from error
    _check_tensors(mine)
    _check_memory(encoder)
    check_basis(mine, batch_norm)
    if batch_norm == "running" and batch_dependent(mine):
        raise UserError(
            "the encoder normalises images by those beside them in evaluation mode too, and the config says batch norm "
            "'running': set 'transductive', or give it running statistics"
        )
    feature_size(mine, source.image_shape)
    if draws_in(mine, source.image_shape, training=False):
        raise UserError(
            "the encoder draws random numbers in evaluation mode too (F.dropout without training=self.training?): "
            "make them depend on its mode"
        )
    return mine


def _check_tensors(encoder: nn.Module) -> None:
    numbers = {str(p.dtype) for p in encoder.parameters() if p.dtype != torch.float32}
    if numbers:
        raise UserError(
            f"the encoder has parameters of {', '.join(sorted(numbers))} and images are float32: give encoder.float()"
        )
    if any(type(module).get_extra_state is not nn.Module.get_extra_state for module in encoder.modules()):
        raise UserError("the encoder has extra state (get_extra_state), which checkpoints do not hold: use buffers")


def _check_memory(encoder: nn.Module) -> None:
    """Refuse tensors that overlap without being one: a copy would tear them apart."""
    spans = []
    for name, tensor in named_tensors(encoder).items():
        last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        if tensor.numel():
            end = tensor.data_ptr() + (last + 1) * tensor.element_size()
            spans.append((str(tensor.device), tensor.data_ptr(), end, id(tensor), name))
    spans.sort(key=lambda span: span[:3])
    for (device, _, end, first, name), (other, start, _, second, twin) in pairwise(spans):
        if device == other and start < end and first != second:
            raise UserError(
                f"the encoder's {name} and {twin} share memory but are two tensors: tie weights by one "
                "torch.nn.Parameter under both names"
            )


def describe(encoder: nn.Module) -> dict[str, Any]:
    """What config.json holds of an encoder: its class, and what tells it from another."""
    kind = type(encoder)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "tensors": _digest(list(_signature(encoder))),
        "layers": _digest(re.sub(r"0x[0-9a-fA-F]+", "", repr(encoder))),
        "frozen": [name for name, p in encoder.named_parameters() if not p.requires_grad],
        "evaluating": [name for name, module in encoder.named_modules() if not module.training],
    }


def _signature(encoder: nn.Module) -> Iterator[tuple[str, list[int], str, str]]:
    """Name, shape, type and the first name of the same tensor, of every tensor."""
    first: dict[int, str] = {}
    for name, tensor in named_tensors(encoder).items():
        yield name, list(tensor.shape), str(tensor.dtype), first.setdefault(id(tensor), name)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
