"""Which encoder a run is trained with: the config's backbone, or a module that the user brings."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

from torch import nn

from metarl.errors import UserError
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.networks.batch_norm import BatchNormMode
from metarl.fewshot.networks.user_encoders import COMPARED, describe, own
from metarl.naming import is_name, resolve
from metarl.nets.module import failing
from metarl.runs.run import Run
from metarl.seeding import Key, keyed_globals

CHOICE = "encoder"  # what config.json calls the description
_FORM = {"class": str, "tensors": str, "layers": str, "frozen": [str]}  # of it


class Settings(Protocol):
    """The part of a config that says which encoder."""

    @property
    def encoder(self) -> str | None:
        """One of the user's own, as `module:Name`; None for the backbone."""

    @property
    def batch_norm(self) -> BatchNormMode:
        """What images are normalised with."""


def check_encoder_name(name: str | None) -> None:
    """Raise UserError unless a name has the form `module:Name`, or is None."""
    if name is not None and name.startswith(("timm:", "file:")):
        raise UserError(
            f"--encoder is {name}: a pre-trained encoder stays frozen, so there is nothing to train; metarl evaluate "
            "centroid --dataset NAME --encoder ... judges it, metarl predict --encoder ... uses it"
        )
    if name is not None and not is_name(name):
        raise UserError(f"--encoder is {name!r}; name your own as mypackage.module:Name, or leave it out")


def named_encoder(name: str, source: Any, seed: int) -> nn.Module:
    """A user's encoder by name.

    Args:
        name: `module:Name`, called with the keyword `image_shape`, (channels, height, width); it gives a
            `torch.nn.Module` from images `(B, C, H, W)` to features `(B, F)`. Or such a module itself.
        source: of images.
        seed: of the run; names the stream of what is drawn while it is made.

    Raises:
        UserError: there is no such thing, or it gives no module.
    """
    if not isinstance(source, ImageSource):
        raise UserError(f"--encoder is {name}; {source.name} has no images, so nothing for an encoder: leave it out")
    kind, what = resolve(name, "--encoder"), f"--encoder is {name}"
    if isinstance(kind, nn.Module):
        return kind
    with failing(f"{what}; calling it with image_shape failed"), keyed_globals(Key(seed)("encoder", "made")):
        made = kind(image_shape=source.image_shape)
    if not isinstance(made, nn.Module):
        raise UserError(f"{what}; it must give a torch.nn.Module, and gives a {type(made).__name__}")
    return made


def _brought(run: Run, config: Settings, source: Any, encoder: nn.Module | None) -> nn.Module | None:
    """The encoder given as a module, or named in the config."""
    if config.encoder is None:
        return encoder
    if encoder is not None:
        raise UserError(f"--encoder is {config.encoder}, and `encoder=` is another: give one of them")
    return named_encoder(config.encoder, source, run.seed)


def to_train(run: Run, config: Settings, source: Any, encoder: nn.Module | None) -> nn.Module | None:
    """A copy to train in this run, which config.json then describes; None where the config's backbone is trained.

    Args:
        run: begun with this encoder, or new.
        config: says what images are normalised with, and may name the encoder.
        source: of images.
        encoder: what the user brought as a module.

    Raises:
        UserError: the run has another encoder, or this one cannot be honoured; the line says why.
    """
    known, encoder = run.recall(CHOICE, _FORM), _brought(run, config, source, encoder)
    if encoder is None:
        if known is not None:
            raise UserError(_missing(run, known, "resume it in Python with the same `encoder=` in `train`"))
        return None
    mine = own(encoder, source, config.batch_norm)
    described = describe(mine)
    if known is not None:
        differing = [what for name, what in COMPARED.items() if known.get(name) != described[name]]
        if differing:
            raise UserError(f"{run.folder} was trained with another encoder: the {'; the '.join(differing)} differ")
    elif run.restore() is None:  # else begun before encoders were described: its checkpoint's names are compared
        run.remember(CHOICE, described)
    return mine


def to_judge(run: Run, source: Any, encoder: nn.Module | None) -> nn.Module | None:
    """A copy that takes the tensors of this run's checkpoint, frozen where the run's is; in evaluation mode.

    Args:
        run: trained with such an encoder.
        source: of images.
        encoder: with any weights; None for a run of the config's backbone, or of an encoder that its config names.

    Raises:
        UserError: the run has another encoder or needs one, or this one cannot be honoured.
    """
    known, encoder = run.recall(CHOICE, _FORM), _brought(run, run.config, source, encoder)
    if encoder is None:
        if known is not None:
            where = f"{type(run.config).__module__}.load(run, source, encoder=...)"
            python = f"load it in Python with {where}, which FewShotClassifier takes too"
            raise UserError(_missing(run, known, python))
        return None
    mine = own(encoder, source, run.config.batch_norm).eval()
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
