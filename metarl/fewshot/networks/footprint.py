"""How much memory an encoder of images needs at least, by the config that names it."""

from __future__ import annotations

import math

from metarl.learning.footprint import NUMBER, Footprint


def encoder_footprint(backbone: str, width: int, image_shape: tuple[int, int, int], images: int) -> Footprint:
    """Of a backbone that learns from so many images at once.

    Args:
        backbone: its name; of those whose width is their own the images alone are counted.
        width: filters a layer.
        image_shape: channels, height and width.
        images: that an iteration holds.
    """
    channels, height, breadth = image_shape
    if not backbone.startswith("conv4"):
        return Footprint(0, NUMBER * images * math.prod(image_shape))
    first = width * -(-height // 2) * -(-breadth // 2)  # what the first layer makes of an image, at least
    return Footprint(9 * width * (channels + 3 * width), NUMBER * images * (math.prod(image_shape) + first))
