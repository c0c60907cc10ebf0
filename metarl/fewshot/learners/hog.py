"""Histograms of oriented gradients (Dalal and Triggs 2005) under a simple head: what needs no training at all.

As scikit-image's `feature.hog` with 9 orientations, 2 x 2 cells a block and L2-Hys, for all images at once: central
differences (0 at the rim), of the channel with the steepest; a cell's votes are its magnitudes by orientation, in bins
of 20 degrees; a block is divided by its length, clipped at 0.2 and divided again. Cells are an eighth of the shorter
side, for images here are small.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.fewshot.datasets.image_source import ImageSource, check_images
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.logistic import Logistic
from metarl.fewshot.learners.protonet import ProtoNet

CELLS, BLOCK, BINS = 8, 2, 9  # cells along the shorter side, cells along a block, orientations
CLIP, EPS = 0.2, 1e-5
C = 1.0  # inverse strength of the regression's L2 penalty, as the learner `logistic` has it


class Hog(nn.Module):
    """Images `(B, C, H, W)` in [0, 1] to their histograms `(B, F)`; nothing in it learns."""

    def forward(self, images: Tensor) -> Tensor:
        """The histograms: rows of blocks, columns of blocks, cells of a block, orientations."""
        return hog(images, max(2, min(images.shape[2:]) // CELLS))


def hog(images: Tensor, cell: int) -> Tensor:
    """Histograms of oriented gradients.

    Args:
        images: `(B, C, H, W)`, at least two cells high and wide.
        cell: pixels along a cell; what is left over at the right and below is left out.

    Returns:
        `(B, F)`, F being 4 * 9 times the blocks of 2 x 2 cells, which overlap.
    """
    rows, columns = torch.zeros_like(images), torch.zeros_like(images)
    rows[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    columns[..., 1:-1] = images[..., 2:] - images[..., :-2]
    magnitude, channel = torch.hypot(rows, columns).max(1, keepdim=True)
    rows, columns = rows.gather(1, channel), columns.gather(1, channel)
    angle = torch.rad2deg(torch.atan2(rows, columns)) % 180
    index = (angle * (BINS / 180)).long().clamp(max=BINS - 1)  # the remainder of a tiny negative angle rounds to 180
    votes = torch.zeros(len(images), BINS, *images.shape[2:], dtype=images.dtype, device=images.device)
    cells = F.avg_pool2d(votes.scatter_(1, index, magnitude), cell)
    blocks = cells.unfold(2, BLOCK, 1).unfold(3, BLOCK, 1).permute(0, 2, 3, 4, 5, 1).flatten(3)
    for clip in (CLIP, None):
        blocks = blocks / (blocks.square().sum(-1, keepdim=True) + EPS**2).sqrt()
        blocks = blocks if clip is None else blocks.clamp(max=clip)
    return blocks.flatten(1)


def centroid(source: ImageSource) -> TrainedEmbedding:
    """Nearest class mean of histograms."""
    check_images(source, "hog-centroid")
    return TrainedEmbedding(ProtoNet(Hog(), "running"), source, "nearest class mean of gradient histograms")


def logistic(source: ImageSource) -> TrainedEmbedding:
    """Logistic regression on histograms of length 1."""
    check_images(source, "hog-logistic")
    return TrainedEmbedding(Logistic(Hog(), "running", C), source, "logistic regression on gradient histograms")
