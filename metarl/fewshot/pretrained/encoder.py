"""A frozen encoder with its own preprocessing: images of any size and colour in, features out.

An image is resized to the encoder's size (aspect is not kept, nothing is cropped, as everywhere in this package;
timm's evaluation crops), gets three channels, and is normalised with the encoder's mean and deviation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.fewshot.datasets.pictures import Preparation
from metarl.fewshot.networks.encoders import named_tensors
from metarl.fewshot.pretrained.cache import FeatureCache

TOGETHER = 32  # images that go through the encoder at a time
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """What an encoder was trained to see.

    Attributes:
        size: height and width.
        mean: of each channel (red, green, blue), in units where 1 is white.
        std: of each channel.
        interpolation: how images are resized, antialiased.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bicubic"


class Pretrained(nn.Module):
    """A frozen encoder, in evaluation mode for ever.

    Args:
        body: from normalised images `(B, 3, H, W)` to features `(B, F)`, or maps `(B, F, h, w)`, which are averaged.
        preprocessing: what it was trained to see.
        name: for people.
        cache: where features are remembered; None: nowhere.
    """

    def __init__(
        self, body: nn.Module, preprocessing: Preprocessing, name: str = "", cache: FeatureCache | None = None
    ) -> None:
        super().__init__()
        self.body = body.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        self.name = name
        self.cache = cache
        self.digest = digest(body, preprocessing)

    def train(self, mode: bool = True) -> Pretrained:
        """Stays in evaluation mode."""
        return super().train(False)

    @property
    def preparation(self) -> Preparation:
        """How pictures become its images."""
        return Preparation("RGB", self.preprocessing.size, resample=self.preprocessing.interpolation)

    def forward(self, images: Tensor) -> Tensor:
        """Features `(B, F)` float32 of images `(B, 1 or 3, H, W)` in [0, 1]."""
        if self.cache is None:
            return self._computed(images)
        return self.cache.features(self.digest, images, self._computed)

    @torch.no_grad()
    def _computed(self, images: Tensor) -> Tensor:
        return torch.cat([self._some(part) for part in torch.split(images, TOGETHER)])

    def _some(self, images: Tensor) -> Tensor:
        wanted = self.preprocessing
        x = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        if x.shape[2:] != wanted.size:
            x = F.interpolate(x, wanted.size, mode=wanted.interpolation, antialias=True).clamp(0, 1)
        mean, std = (x.new_tensor(values)[:, None, None] for values in (wanted.mean, wanted.std))
        features: Tensor = self.body((x - mean) / std)
        return features.mean((2, 3)) if features.dim() == 4 else features


def digest(body: nn.Module, preprocessing: Preprocessing) -> bytes:
    """32 bytes that another network, other weights or another preprocessing has not."""
    made = hashlib.sha256(f"{type(body).__qualname__} {preprocessing} {body!r}".encode())
    for name, tensor in named_tensors(body).items():
        made.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        made.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return made.digest()
