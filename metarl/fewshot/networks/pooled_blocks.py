"""Convolution, joint batch normalisation, pooling and rectifier of many images, a few at a time: exact, in less memory.

One batch norm spans all images of an episode, so an image's features wait for all others. But with a scale that is not
negative, normalising is increasing, so

    max over a window of  scale (z - mean) / sd + shift  =  scale (max over the window of z  -  mean) / sd + shift

and one pass over the images gives the moments of z = x * kernel + bias and its maxima, a quarter of the numbers, which
are normalised when the moments are known. (Where a scale is negative, kernel, bias and scale change their signs.) Going
back, with g the gradient at the maxima behind the rectifier, n the numbers behind a moment and h = (z - mean) / sd,

    d shift = sum g,  d scale = sum g h,  dz = scale / sd ((g where z is a maximum, else 0) - (d shift + h d scale) / n)

so that a second pass, which convolves anew where z was too large to keep, gives the gradients of kernel and images. The
numbers are those of torch's own layers but for rounding, in a third of their memory.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.fewshot.networks import chunks

PART = 1 << 22  # bytes of what a convolution makes of the images that go through together: they stay in a cache


def convolved(
    x: Tensor, kernel: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`relu(max_pool2d(batch_norm(conv2d(x))))`, the batch norm by the moments of all images.

    Differentiable once.

    Args:
        x: images `(B, C, H, W)`.
        kernel: `(D, C, 3, 3)`, at stride 1 and padding 1.
        bias: `(D,)`.
        scale: `(D,)` of the batch norm.
        shift: `(D,)` of the batch norm.
        eps: of the batch norm.

    Returns:
        `(B, D, H // 2, W // 2)`, and the mean and the unbiased variance `(D,)` that a running average follows.
    """
    sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale)
    signed = kernel * sign.view(-1, 1, 1, 1), bias * sign, scale * sign
    pooled, mean, var = _Block.apply(x, *signed, shift, eps)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return pooled, mean * sign, var


class _Block(torch.autograd.Function):
    """Of scales that are not negative."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        per_image = kernel.shape[0] * x.shape[2] * x.shape[3] * x.element_size()
        size = max(1, PART // per_image)
        keeps = len(x) * per_image <= chunks.BYTES // 2
        moments, kept, pooled = [], [], None
        for start in range(0, len(x), size):
            z = F.conv2d(x[start : start + size], kernel, bias, padding=1)
            moments.append(torch.stack(torch.batch_norm_update_stats(z, None, None, 0.0)).double())
            maxima, where = F.max_pool2d(z, 2, return_indices=True)
            if pooled is None:
                shape = (len(x), *maxima.shape[1:])
                pooled = torch.empty(shape, dtype=z.dtype, device=z.device, memory_format=torch.channels_last)
            pooled[start : start + size] = maxima
            if keeps:
                kept += [z, where]
        assert pooled is not None
        counts = [min(size, len(x) - start) for start in range(0, len(x), size)]
        weights = torch.tensor(counts, dtype=torch.float64, device=x.device)[:, None] / len(x)
        means, variances = torch.stack(moments).unbind(1)
        mean = (weights * means).sum(0)
        var = (weights * (variances + (means - mean).square())).sum(0)
        count = len(x) * x.shape[2] * x.shape[3]
        unbiased = (var * (count / (count - 1))).to(x)
        mean, var = mean.to(x), var.to(x)
        out = F.batch_norm(pooled, mean, var, scale, shift, False, 0.0, eps).relu_()
        ctx.save_for_backward(x, kernel, bias, scale, mean, var, pooled, out, *kept)
        ctx.eps, ctx.count, ctx.size = eps, count, size
        ctx.mark_non_differentiable(mean, unbiased)
        return out, mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, kernel, bias, scale, mean, var, pooled, out, *kept = ctx.saved_tensors
        by_out, shape = gradients[0], (-1, 1, 1)
        inverse = torch.rsqrt(var + ctx.eps)
        parts = [slice(start, start + ctx.size) for start in range(0, len(x), ctx.size)]
        by_scale, by_shift = torch.zeros_like(scale), torch.zeros_like(scale)
        for part in parts:
            passed, mask = _behind(by_out[part], out[part]), [False, True, True]
            _, of_scale, of_shift = torch.ops.aten.native_batch_norm_backward(
                passed, pooled[part], scale, mean, var, None, None, False, ctx.eps, mask
            )
            by_scale += of_scale
            by_shift += of_shift
        factor = scale * inverse
        slope = factor * inverse * by_scale / ctx.count
        offset = factor * by_shift / ctx.count - slope * mean
        by_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        by_kernel, by_bias = torch.zeros_like(kernel), torch.zeros_like(bias)
        for i, part in enumerate(parts):
            if kept:
                z, where = kept[2 * i : 2 * i + 2]
            else:
                z = F.conv2d(x[part], kernel, bias, padding=1)
                where = F.max_pool2d(z, 2, return_indices=True)[1]
            at_maxima = _behind(by_out[part], out[part]).mul_(factor.view(shape))
            by_z = torch.ops.aten.max_pool2d_with_indices_backward(
                at_maxima, z, [2, 2], [2, 2], [0, 0], [1, 1], False, where
            )
            by_z.addcmul_(z, slope.view(shape), value=-1).sub_(offset.view(shape))
            mask = [by_x is not None, True, True]
            ones = [1, 1]
            of_x, of_kernel, of_bias = torch.ops.aten.convolution_backward(
                by_z, x[part], kernel, [len(bias)], ones, ones, ones, False, [0, 0], 1, mask
            )
            by_kernel += of_kernel
            by_bias += of_bias
            if by_x is not None:
                by_x[part] = of_x
        return by_x, by_kernel, by_bias, by_scale, by_shift, None


def _behind(gradient: Tensor, out: Tensor) -> Tensor:
    """The gradient in front of a rectifier, of that behind it and what it gave."""
    passed: Tensor = torch.ops.aten.threshold_backward(gradient, out, 0)
    return passed
