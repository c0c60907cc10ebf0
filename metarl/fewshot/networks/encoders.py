"""What learners ask of any encoder: its features, what it normalises with, whether it draws random numbers.

Any `torch.nn.Module` from images `(B, C, H, W)` to features `(B, F)` is an encoder: learners call it through
`torch.func.functional_call` with explicit parameters.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.fewshot.networks.backbones import OURS
from metarl.fewshot.networks.batch_norm import BatchNorm, BatchNormMode
from metarl.seeding import Key, draws, keyed_globals

NORMS = (BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def feature_size(encoder: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """F, the features of any encoder; of one that is not ours, by encoding two blank images with a copy of it.

    Raises:
        UserError: it does not turn `(B, C, H, W)` into `(B, F)`.
    """
    if isinstance(encoder, OURS):
        return encoder.features
    trial = copy.deepcopy(encoder).eval()
    like = next((p for p in trial.parameters() if p.is_floating_point()), torch.zeros(()))
    try:
        with torch.no_grad(), keyed_globals(Key(0)("feature size")):
            features = trial(torch.zeros(2, *image_shape, dtype=like.dtype, device=like.device))
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the encoder does not take images of shape {image_shape}: {first_line(error)}") from error
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != 2:
        raise UserError("an encoder turns (B, C, H, W) into (B, F); this one returns something else")
    return int(features.shape[1])


def first_line(error: Exception) -> str:
    """What an error says, as far as it fits into a line."""
    return str(error).partition("\n")[0]


def batch_dependent(encoder: nn.Module) -> bool:
    """Whether an image's features depend, in evaluation mode too, on the images beside it: by batch normalisation."""
    return any(
        module.mode != "running" if isinstance(module, BatchNorm) else module.running_mean is None
        for module in encoder.modules()
        if isinstance(module, NORMS)
    )


def normalised_by(encoder: nn.Module, mode: BatchNormMode) -> str:
    """What images are normalised with when judged, for the protocol: the mode of ours, the nature of any other."""
    if not any(isinstance(module, NORMS) for module in encoder.modules()):
        return "none"
    if isinstance(encoder, OURS):
        return mode
    return "transductive" if batch_dependent(encoder) else "running"


def check_basis(encoder: nn.Module, mode: BatchNormMode) -> None:
    """Check that an encoder can be told which images are support images, where the mode needs it.

    Raises:
        UserError: it cannot: it is not one of ours, and it normalises.
    """
    if mode == "support" and normalised_by(encoder, mode) != "none" and not isinstance(encoder, OURS):
        raise UserError(
            "batch norm 'support' needs a backbone of metarl: another encoder is not told which images those are; "
            "choose 'transductive' or 'running'"
        )


def features(encoder: nn.Module, x: Tensor, basis: int | None = None) -> Tensor:
    """Images `(B, C, H, W)` to features `(B, F)`; only our own backbones know what a `basis` is."""
    encoded: Tensor = encoder(x, basis) if isinstance(encoder, OURS) else encoder(x)
    return encoded


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


def channels_last(encoder: nn.Module) -> nn.Module:
    """The encoder with its filters laid out channels last: convolutions take 1.4x less time on a CPU."""
    moved: nn.Module = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return moved


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, a tied one under each of its names."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
