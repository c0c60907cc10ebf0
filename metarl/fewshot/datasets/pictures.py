"""From a picture file to the numbers that are learned from: what a person sees, in 8 bits a channel.

`render` is the only way in, for data sets and for a classifier's pictures: the first frame, turned upright as its
EXIF says, on white paper where it is transparent, 16-bit grey scaled to 8 bits, every colour space turned to sRGB by
Pillow (an embedded colour profile is not applied).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from metarl.errors import UserError
from metarl.fewshot.datasets.archives import Store
from metarl.fewshot.datasets.picture_files import ADVICE, FRAMES, check_size, has_frames, opened
from metarl.fewshot.datasets.reading import Remarks, some

ORIENTATION = 0x0112  # EXIF's tag
BLANK = "pictures of a single colour when prepared"
Resample = Literal["lanczos", "bicubic", "bilinear"]
GREY = ("1", "L", "LA", "La", "I", "F")  # and I;16 in any byte order


def decode(data: bytes, what: str, mode: str) -> NDArray[np.uint8]:
    """A picture's pixels.

    Args:
        data: the file's bytes.
        what: its name, for the error; its ending says the format where the content does not.
        mode: "L" or "RGB".

    Returns:
        `(channels, height, width)` uint8.

    Raises:
        UserError: it is not a readable picture.
    """
    with opened(data, what) as picture:
        return render(picture, mode)


def is_grey(picture: Image.Image) -> bool:
    """Whether a picture has no colours."""
    return picture.mode in GREY or picture.mode.startswith("I;16")


def render(picture: Image.Image, mode: str) -> NDArray[np.uint8]:
    """A picture as a person sees it.

    Args:
        picture: of any of Pillow's modes. Whole numbers are 0..255 or, in mode I;16, in 16-bit files and where one
            exceeds 255, 0..65535; mode F also 0..1 where none exceeds 1.
        mode: "L" or "RGB".

    Returns:
        `(channels, height, width)` uint8, height and width being those of the upright picture.

    Raises:
        ValueError: numbers outside of these ranges.
    """
    picture.load()
    check_size(picture)  # some formats hold a picture of another size than they say
    upright = _upright(picture)
    deep = is_grey(picture) and picture.mode not in ("1", "L", "LA", "La")
    shown = _eight_bits(upright, picture) if deep else _on_paper(upright)
    pixels = np.asarray(shown if shown.mode == mode else shown.convert(mode), dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF says; EXIF that cannot be read says nothing."""
    try:
        turned = picture.getexif().get(ORIENTATION, 1) != 1
    except (SyntaxError, ValueError, KeyError, TypeError, IndexError, EOFError, OSError):
        return picture
    return ImageOps.exif_transpose(picture) if turned else picture  # which copies a picture that stands upright


def _on_paper(picture: Image.Image) -> Image.Image:
    """In mode L or RGB, on white where it is transparent."""
    clear = picture.info.get("transparency")
    if picture.mode == "La":
        picture = picture.convert("LA")
    if clear is None and picture.mode not in ("LA", "PA", "RGBA", "RGBa"):
        return picture if picture.mode == "L" else picture.convert("L" if picture.mode == "1" else "RGB")
    if isinstance(clear, tuple) and max(clear) > 255:  # of a file with 16 bits a channel, which Pillow cuts to 8
        picture = picture.copy()
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    colours = picture.convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, colours).convert("L" if is_grey(picture) else "RGB")


def _eight_bits(picture: Image.Image, original: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, scaled and rounded; `original` is the picture as it was opened."""
    values, clear = np.asarray(picture), picture.info.get("transparency")
    low, high = float(values.min()), float(values.max())
    top = 255.0
    if picture.mode.startswith("I;16") or (picture.mode == "I" and original.format in ("PNG", "PPM")) or high > 255:
        top = 65535.0
    elif picture.mode == "F" and high <= 1:
        top = 1.0
    if not 0 <= low <= high <= top:
        raise ValueError(f"its grey values go from {low:g} to {high:g}; at most 0 to 65535 are read")
    inverted = original.format == "TIFF" and getattr(original, "tag_v2", {}).get(262) == 0  # white is zero
    shown = np.empty(values.shape, np.uint8)
    for row, out in zip(values, shown, strict=True):  # one at a time: as float64 all together are eight times as large
        scaled = row.astype(np.float64) * (255 / top)
        scaled = 255 - scaled if inverted else scaled
        if isinstance(clear, int):  # one of the values is the transparent one
            scaled[row == clear] = 255
        out[:] = np.rint(scaled)
    return Image.fromarray(shown)


def shrink(pixels: NDArray[np.uint8], size: tuple[int, int], resample: Resample = "lanczos") -> NDArray[np.uint8]:
    """Pixels `(channels, height, width)` resized to `size` (height, width) with one of Pillow's filters."""
    if pixels.shape[1:] == size:
        return pixels
    way = Image.Resampling[resample.upper()]
    resized = [np.asarray(Image.fromarray(plane).resize(size[::-1], way)) for plane in pixels]
    return np.stack(resized)


@dataclass(frozen=True)
class Preparation:
    """How a data set turns a picture into one of its images; a classifier does the same to a user's pictures.

    Attributes:
        mode: "L" or "RGB".
        size: (height, width) of the images; None: as large as their pictures.
        inverted: pictures show dark ink on light paper, images have ink 255 on paper 0.
        resample: Pillow's filter that resizes them.
    """

    mode: str
    size: tuple[int, int] | None
    inverted: bool = False
    resample: Resample = "lanczos"

    def __post_init__(self) -> None:
        if self.mode not in ("L", "RGB") or (self.size is not None and min(self.size) < 1):
            raise UserError(f"a preparation has mode L or RGB and a positive size, got {self.mode!r} and {self.size}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images, where they have one size."""
        if self.size is None:
            raise ValueError("these images are as large as their pictures")
        return (1 if self.mode == "L" else 3, *self.size)

    def read(self, data: bytes, what: str) -> NDArray[np.uint8]:
        """The image `(channels, height, width)` of a picture file's bytes; see `decode`."""
        return self.finish(decode(data, what, self.mode))

    def of(self, picture: Image.Image) -> NDArray[np.uint8]:
        """The image `(channels, height, width)` of an open picture."""
        return self.finish(render(picture, self.mode))

    def finish(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pixels `(planes, height, width)` in the right mode to images: shrunk, then inverted."""
        small = pixels if self.size is None else shrink(pixels, self.size, self.resample)
        return 255 - small if self.inverted else small


def prepare_all(
    store: Store, names: Sequence[str], counts: Sequence[int], preparation: Preparation, out: NDArray[np.uint8]
) -> Remarks:
    """Read all pictures of a data set, class by class.

    Args:
        store: where they lie.
        names: their I names; those of a class are consecutive.
        counts: images of each class.
        preparation: how they become images.
        out: `(I, channels, height, width)`, filled.

    Returns:
        What stands out: pictures of several frames, images of a single value, classes of equal images.

    Raises:
        UserError: pictures cannot be read; all of them are named.
    """
    remarks: dict[str, list[str]] = defaultdict(list)
    broken: list[str] = []
    for i, name in enumerate(names):
        try:
            with opened(store.read(name), store.where(name)) as picture:
                if has_frames(picture):
                    remarks[FRAMES].append(name)
                out[i] = preparation.of(picture)
        except UserError as error:
            broken.append(str(error))
    check_whole(broken, len(names))
    flat = blank(out)
    remarks[BLANK] += [name for name, single in zip(names, flat, strict=True) if single]
    start = 0
    for count in counts:
        images = out[start : start + count]
        if count > 1 and not flat[start] and (images == images[0]).all():
            remarks["classes that hold one picture again and again"].append(str(PurePosixPath(names[start]).parent))
        start += count
    return {what: which for what, which in remarks.items() if which}


def check_whole(errors: Sequence[str], count: int) -> None:
    """Check that all of `count` pictures could be read.

    Args:
        errors: what `opened` said of those that could not.
        count: of all pictures.

    Raises:
        UserError: some could not; the first few are named.
    """
    if len(errors) == 1:
        raise UserError(errors[0])
    if errors:
        which = some([error.partition(f"; {ADVICE}")[0] for error in errors])
        raise UserError(f"{len(errors)} of {count} pictures: {which}; replace or remove them")


def blank(images: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Which of `(I, ...)` images hold one value only, channel by channel `(I,)`."""
    flat = np.empty(len(images), np.bool_)
    for i, image in enumerate(images):  # one at a time: they may be mapped from a file larger than memory
        planes = image.reshape(len(image), -1)
        flat[i] = bool((planes == planes[:, :1]).all())
    return flat
