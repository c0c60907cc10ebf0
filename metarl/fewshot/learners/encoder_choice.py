"""Which encoder a run is trained with: the config's backbone, or a module that the user brings."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from metarl.errors import UserError
from metarl.fewshot import LEARNERS
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.user_encoders import COMPARED, describe, own
from metarl.runs.run import Run

CHOICE = "encoder"  # what config.json calls the description


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
