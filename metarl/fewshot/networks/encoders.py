"""A module that a user brings: parameters, buffers, mode, randomness, frozen parts and ties.

Every learner works on a copy, so the caller's module stays as it is, and honours all of it:

- it is trained in the mode in which it comes, part by part (what is in `eval()` keeps its statistics and drops
  nothing out), and judged in evaluation mode;
- parameters with `requires_grad=False` neither adapt nor learn; tied ones stay one parameter;
- buffers are saved with the parameters; what it draws at random comes from keyed streams;
- config.json describes it, so that another one is refused when the run is resumed or loaded.

What cannot be honoured is refused in one line.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from metarl.errors import UserError
from metarl.fewshot import LEARNERS
from metarl.fewshot.datasets.images import ImageSource
from metarl.fewshot.networks.backbones import (
    BatchNormMode,
    batch_dependent,
    check_basis,
    feature_size,
    first_line,
)
from metarl.runs.run import Run
from metarl.seeding import Key, draws

CHOICE = "encoder"  # what config.json calls the description
COMPARED = {  # entries of a description, and what they describe
    "tensors": "names, shapes and ties of parameters and buffers",
    "layers": "layers as printed",
    "frozen": "frozen parameters",
    "evaluating": "parts in evaluation mode",
}


def to_train(run: Run, source: Any, encoder: nn.Module | None, batch_norm: BatchNormMode) -> nn.Module | None:
    """A copy to train in this run, which config.json then describes; None where the config's backbone is trained.

    Args:
        run: begun with this encoder, or new.
        source: of images.
        encoder: what the user brought.
        batch_norm: the config's mode.

    Raises:
        UserError: the run has another encoder, or this one cannot be honoured; the line says why.
    """
    known = run.recall(CHOICE)
    if encoder is None:
        if known is not None:
            raise UserError(_missing(run, known, "resume it in Python with the same `encoder=` in `train`"))
        return None
    mine = own(encoder, source, batch_norm)
    described = describe(mine)
    if known is not None:
        differing = [what for name, what in COMPARED.items() if known.get(name) != described[name]]
        if differing:
            raise UserError(f"{run.folder} was trained with another encoder: the {'; the '.join(differing)} differ")
    elif run.restore() is None:  # else begun before encoders were described: its checkpoint's names are compared
        run.remember(CHOICE, described)
    return mine


def to_judge(run: Run, source: Any, encoder: nn.Module | None, batch_norm: BatchNormMode) -> nn.Module | None:
    """A copy that takes the tensors of this run's checkpoint, frozen where the run's is; in evaluation mode.

    Args:
        run: trained with such an encoder.
        source: of images.
        encoder: with any weights; None for a run of the config's backbone.
        batch_norm: the config's mode.

    Raises:
        UserError: the run has another encoder or needs one, or this one cannot be honoured.
    """
    known = run.recall(CHOICE)
    if encoder is None:
        if known is not None:
            where = LEARNERS[run.learner][0]
            python = f"load it in Python with {where}.load(run, source, encoder=...), which FewShotClassifier takes too"
            raise UserError(_missing(run, known, python))
        return None
    mine = own(encoder, source, batch_norm).eval()
    if known is not None:
        described = describe(mine)
        if known["tensors"] != described["tensors"]:
            raise UserError(
                f"{run.folder} was trained with another encoder ({known['class']}): the {COMPARED['tensors']} differ"
            )
        if known["layers"] != described["layers"]:
            warnings.warn(
                f"the encoder for {run.folder} prints other layers than the one it was trained with", stacklevel=3
            )
        for name, parameter in mine.named_parameters():
            parameter.requires_grad_(name not in known["frozen"])
    return mine


def _missing(run: Run, known: dict[str, Any], advice: str) -> str:
    return f"{run.folder} was trained with an encoder of its user's own ({known['class']}): {advice}"


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
    for name, tensor in tensors(encoder).items():
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


def draws_in(encoder: nn.Module, image_shape: tuple[int, int, int], *, training: bool) -> bool:
    """Whether an encoder draws random numbers, in the mode it is in or in evaluation mode; it stays as it is.

    Raises:
        UserError: it cannot encode two images in that mode.
    """
    trial = copy.deepcopy(encoder)
    if not training:
        trial.eval()
    device = next((p.device for p in trial.parameters()), torch.device("cpu"))
    images = torch.rand(2, *image_shape, generator=Key(0)("encoder", "trial").torch())
    like = next((p.dtype for p in trial.parameters()), torch.float32)
    try:
        with torch.no_grad():
            return draws(lambda: trial(images.to(device, like)))
    except (RuntimeError, TypeError, ValueError) as error:
        mode = "training" if encoder.training and training else "evaluation"
        raise UserError(f"the encoder does not take images in {mode} mode: {first_line(error)}") from error


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, a tied one under each of its names."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


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
    for name, tensor in tensors(encoder).items():
        yield name, list(tensor.shape), str(tensor.dtype), first.setdefault(id(tensor), name)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
