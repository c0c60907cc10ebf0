"""Batch normalisation of one batch whose images are shared over processes: normalised with the statistics of all.

What `torch.nn.SyncBatchNorm` does on GPUs, here on any device. Every process computes the same running averages, bit
for bit. A module that a user brings may let images know of one another in ways that cannot be seen from here; it is
tried out, and refused where shared images would teach it something else than one process's.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.fewshot.networks.backbones import OURS
from metarl.fewshot.networks.batch_norm import EPSILON, MOMENTUM, BatchNorm
from metarl.fewshot.networks.encoders import draws_in, features, named_tensors
from metarl.ranks import Ranks
from metarl.seeding import Key, keyed_globals

TOLERANCE = 1e-4  # of features that should be the same but for rounding
IN_ONE = "train it in one process, without torchrun"


class _Normalised(torch.autograd.Function):
    """Images normalised with moments that depend on them, by way of those that all processes share."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
        count: float,
        ranks: Ranks,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count, ctx.ranks = eps, count, ranks
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, mean, var = ctx.saved_tensors
        # As if the moments were constants; the sums behind the gradients of weight and bias serve the moments' too.
        at_rest, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        whole = [each / ctx.count for each in ctx.ranks.sum(by_bias, by_weight)]
        inverse = torch.rsqrt(var + ctx.eps)
        slope = weight * inverse * inverse * whole[1]
        shape = [-1, *[1] * (x.dim() - 2)]
        offset = weight * inverse * whole[0] - slope * mean
        by_x = at_rest.addcmul_(x, slope.view(shape), value=-1).sub_(offset.view(shape))
        return by_x, by_weight, by_bias, None, None, None, None, None


class _Shared(nn.Module):
    """What both kinds have."""

    ranks: Ranks
    weight: Any
    bias: Any

    def _normalised(self, x: Tensor, momentum: float, eps: float) -> Tensor:
        """`x (B, C, ...)`, this process's share of a batch, by the moments of the batch; the averages follow them."""
        own = x.numel() // x.shape[1]
        mean, var = (each.double() for each in torch.batch_norm_update_stats(x.detach(), None, None, 0.0))
        # Sums in double precision: a variance as a difference of squares would lose digits in single.
        total, first, second = self.ranks.sum(mean.new_tensor([own]), own * mean, own * (var + mean * mean))
        count = float(total)
        mean = first / count
        var = (second / count - mean * mean).clamp(min=0)
        with torch.no_grad():
            for name, value in (("running_mean", mean), ("running_var", var * (count / (count - 1)))):
                if (average := getattr(self, name, None)) is not None:
                    average.lerp_(value.to(average), momentum)
        mean, var = mean.to(x), var.to(x)
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        inputs = x, weight, bias, mean, var, eps, count, self.ranks
        normalised: Tensor = _Normalised.apply(*inputs)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return normalised


class JointBatchNorm(_Shared, BatchNorm):
    """Ours."""

    def forward(self, x: Tensor, basis: int | None = None) -> Tensor:
        """As the class above, but in training with the moments of all processes' images."""
        return self._normalised(x, MOMENTUM, EPSILON) if self.training else super().forward(x, basis)


class _JointTorch(_Shared, nn.modules.batchnorm._BatchNorm):
    """Torch's."""

    def forward(self, x: Tensor) -> Tensor:
        """As torch's, but in training with the moments of all processes' images."""
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        return self._normalised(x, momentum or 0.0, self.eps)


class JointBatchNorm1d(_JointTorch, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`."""


class JointBatchNorm2d(_JointTorch, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`."""


class JointBatchNorm3d(_JointTorch, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d`."""


JOINT: dict[type[nn.Module], type[_Shared]] = {
    BatchNorm: JointBatchNorm,
    nn.BatchNorm1d: JointBatchNorm1d,
    nn.BatchNorm2d: JointBatchNorm2d,
    nn.BatchNorm3d: JointBatchNorm3d,
}


def share_images(encoder: nn.Module, image_shape: tuple[int, int, int], ranks: Ranks, *, together: bool) -> None:
    """Prepare an encoder for minibatches that are shared over processes, in place; one process needs nothing.

    Args:
        encoder: ours, or a user's.
        image_shape: (channels, height, width).
        ranks: the processes.
        together: whether all images of a minibatch go through the encoder as one batch; else those of a task do.

    Raises:
        UserError: it would learn something else than in one process.
    """
    if ranks.size == 1:
        return
    if not isinstance(encoder, OURS):
        _check(encoder, image_shape, together=together)
    for module in encoder.modules() if together else ():
        if (joint := JOINT.get(type(module))) is not None:
            module.__class__ = joint  # the class alone, as torch.nn.utils.parametrize does: tensors and hooks stay
            module.__dict__["ranks"] = ranks


class _Skipped(nn.Module):
    """A norm, left out."""

    def forward(self, x: Tensor) -> Tensor:
        """What it is given."""
        return x


def _check(encoder: nn.Module, image_shape: tuple[int, int, int], *, together: bool) -> None:
    """Try an encoder out: what draws, remembers images or mixes them cannot be shared, but for torch's norms."""
    if draws_in(encoder, image_shape, training=True):
        raise UserError(
            "the encoder draws random numbers (dropout) for a whole minibatch, which several processes cannot share: "
            f"{IN_ONE}, or without"
        )
    whole, part = copy.deepcopy(encoder), copy.deepcopy(encoder)
    for module in (*whole.modules(), *part.modules()) if together else ():
        if type(module) in JOINT:
            module.__class__ = _Skipped
    images = torch.rand(6, *image_shape, generator=Key(0)("shared images").torch()).to(next(encoder.parameters()))
    with torch.no_grad(), keyed_globals(Key(0)("shared images")):
        among_others, alone = features(whole, images)[3:], features(part, images[3:])
    after = named_tensors(part)
    if kept := [name for name, value in named_tensors(whole).items() if not torch.equal(value, after[name])]:
        raise UserError(
            f"the encoder's {kept[0]} follows the images it has seen, which several processes cannot share: {IN_ONE}"
            + ("" if together else ", or with batch norm 'running'")
        )
    size = float(among_others.abs().amax().clamp(min=1e-6))
    if together and not torch.allclose(among_others, alone, rtol=0, atol=TOLERANCE * size):
        raise UserError(
            "the encoder's features of an image depend on the images beside it, otherwise than by torch.nn.BatchNorm, "
            f"so several processes cannot share them: {IN_ONE}"
        )
