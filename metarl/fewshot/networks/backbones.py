"""The backbones of the literature: from images `(B, C, H, W)` to features `(B, F)`.

They take a `basis` beside the images, see `batch_norm`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.fewshot.networks import chunks
from metarl.fewshot.networks.batch_norm import EPSILON, BatchNorm, BatchNormMode
from metarl.fewshot.networks.pooled_blocks import convolved

Backbone = Literal["conv4", "conv4-strided", "resnet12", "mlp"]


class Conv4(nn.Module):
    """Four 3x3 convolutions, each normalised and rectified.

    Pooled (Vinyals et al. 2016): stride 1, 2x2 max-pooling after each, features flattened: 64 from 28x28,
    25 x width from 84x84. Strided (MAML's Omniglot network): stride 2, no pooling, features averaged over space.

    Args:
        channels: of the images.
        size: (height, width) of the images.
        width: filters a layer.
        strided: the second form.
        batch_norm: see `batch_norm`.
        scale: see `BatchNorm`.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        width: int = 64,
        strided: bool = False,
        batch_norm: BatchNormMode = "transductive",
        scale: bool = True,
    ) -> None:
        super().__init__()
        if not strided and min(size) < 16:
            raise UserError(f"conv4 halves its images four times: {size} is too small; use mlp or conv4-strided")
        self.strided = strided
        self.first_order = False  # whether nothing differentiates its gradient: large batches then take less memory
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels if i == 0 else width, width, 3, stride=2 if strided else 1, padding=1) for i in range(4)
        )
        self.norms = nn.ModuleList(BatchNorm(width, batch_norm, scale) for _ in range(4))
        self.features = width if strided else width * (size[0] // 16) * (size[1] // 16)

    def forward(self, x: Tensor, basis: int | None = None) -> Tensor:
        """Images `(B, C, H, W)` to features `(B, F)`."""
        if self.first_order and self._is_large(x):
            return self._in_parts(x)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x), basis)
            if not self.strided:
                x = F.max_pool2d(x, 2)  # before rectifying, which comes to the same on a quarter of the numbers
            x = F.relu(x)
        return x.mean((2, 3)) if self.strided else x.flatten(1)

    def _is_large(self, x: Tensor) -> bool:
        """Whether images to learn from as one batch take so much memory that they go through a few at a time.

        On the CPU alone, and where one process has all of them.
        """
        if self.strided or not torch.is_grad_enabled() or x.device.type != "cpu":
            return False
        norms = all(type(n) is BatchNorm and n.mode == "running" and n.training for n in self.norms)
        first = self.convolutions[0]
        assert isinstance(first, nn.Conv2d)
        return norms and len(x) * first.out_channels * x[0, 0].numel() * x.element_size() > chunks.BYTES

    def _in_parts(self, x: Tensor) -> Tensor:
        """`forward` of a batch normalised with itself, in less memory."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            assert isinstance(norm, BatchNorm)
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            scale = torch.ones_like(norm.bias) if norm.weight is None else norm.weight
            x, mean, var = convolved(x, convolution.weight, convolution.bias, scale, norm.bias, EPSILON)
            norm.follow(mean, var)
        return x.flatten(1)


class ResNetBlock(nn.Module):
    """Three 3x3 convolutions beside a 1x1 shortcut, then 2x2 max-pooling."""

    def __init__(self, channels: int, width: int, batch_norm: BatchNormMode) -> None:
        super().__init__()
        widths = [channels, width, width]
        self.convolutions = nn.ModuleList(nn.Conv2d(w, width, 3, padding=1, bias=False) for w in widths)
        self.norms = nn.ModuleList(BatchNorm(width, batch_norm) for _ in range(3))
        self.shortcut = nn.Conv2d(channels, width, 1, bias=False)
        self.shortcut_norm = BatchNorm(width, batch_norm)

    def forward(self, x: Tensor, basis: int | None = None) -> Tensor:
        """`(B, channels, H, W)` to `(B, width, H // 2, W // 2)`."""
        y = x
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            y = norm(convolution(y), basis)
            if i < 2:
                y = F.leaky_relu(y, 0.1)
        y = F.leaky_relu(y + self.shortcut_norm(self.shortcut(x), basis), 0.1)
        return F.max_pool2d(y, 2)


class ResNet12(nn.Module):
    """Four residual blocks of three convolutions, averaged over space.

    The widths are those of Oreshkin et al. 2018 (ElementAI/TADAM), the rest follows Lee et al. 2019
    (kjunelee/MetaOptNet): leaky rectifiers in place of swish, pooling after all four blocks in place of three;
    without its DropBlock.

    Args:
        channels: of the images.
        size: (height, width) of the images, at least 16.
        widths: filters of each block.
        batch_norm: see `batch_norm`.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        widths: tuple[int, ...] = (64, 128, 256, 512),
        batch_norm: BatchNormMode = "transductive",
    ) -> None:
        super().__init__()
        if min(size) < 2 ** len(widths):
            raise UserError(f"resnet12 halves its images {len(widths)} times: {size} is too small")
        inputs = (channels, *widths[:-1])
        self.blocks = nn.ModuleList(ResNetBlock(a, b, batch_norm) for a, b in zip(inputs, widths, strict=True))
        self.features = widths[-1]

    def forward(self, x: Tensor, basis: int | None = None) -> Tensor:
        """Images `(B, C, H, W)` to features `(B, F)`."""
        for block in self.blocks:
            x = block(x, basis)
        return x.mean((2, 3))


class MLP(nn.Module):
    """Fully connected layers, each normalised and rectified (MAML's Omniglot variant: 256, 128, 64, 64).

    Args:
        inputs: numbers in an image.
        widths: units of each layer.
        batch_norm: see `batch_norm`.
        scale: see `BatchNorm`.
    """

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, ...] = (256, 128, 64, 64),
        batch_norm: BatchNormMode = "transductive",
        scale: bool = True,
    ) -> None:
        super().__init__()
        sizes = (inputs, *widths)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(BatchNorm(width, batch_norm, scale) for width in widths)
        self.features = widths[-1]

    def forward(self, x: Tensor, basis: int | None = None) -> Tensor:
        """Images `(B, ...)` to features `(B, F)`."""
        x = x.flatten(1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x), basis))
        return x


def make_backbone(
    name: Backbone,
    image_shape: tuple[int, int, int],
    generator: torch.Generator,
    width: int = 64,
    batch_norm: BatchNormMode = "transductive",
    scale: bool = True,
) -> Conv4 | ResNet12 | MLP:
    """A backbone with fresh weights.

    Args:
        name: which.
        image_shape: (channels, height, width) of the images.
        generator: where the weights come from.
        width: filters a layer of Conv4, or of ResNet-12's first block (then 2, 4 and 8 times as many).
        batch_norm: see `batch_norm`.
        scale: see `BatchNorm`; ResNet-12 always has one.

    Raises:
        UserError: no such backbone, or the images are too small for it.
    """
    channels, size = image_shape[0], image_shape[1:]
    made: Conv4 | ResNet12 | MLP
    if name in ("conv4", "conv4-strided"):
        made = Conv4(channels, size, width, name == "conv4-strided", batch_norm, scale)
    elif name == "resnet12":
        made = ResNet12(channels, size, (width, 2 * width, 4 * width, 8 * width), batch_norm)
    elif name == "mlp":
        made = MLP(channels * size[0] * size[1], batch_norm=batch_norm, scale=scale)
    else:
        raise UserError(f"backbone {name!r}: choose from {', '.join(get_args(Backbone))}")
    initialise(made, generator)
    return made


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Xavier-uniform weights and zero biases for every convolution and linear layer.

    As cbfinn/maml has them for convolutions and for the head on mini-ImageNet; its perceptron starts normal, SD .01.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


OURS = (Conv4, ResNet12, MLP)  # encoders whose second argument is a `basis`
