"""Pictures and labels as people hand them over: files, PIL images or arrays, turned into images."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils.validation import check_array

from metarl.errors import UserError
from metarl.fewshot.datasets.picture_files import ADVICE, FRAMES, has_frames, opened
from metarl.fewshot.datasets.pictures import BLANK, Preparation, blank, check_whole, is_grey
from metarl.fewshot.datasets.reading import read_file, reading, warn

Remarks = dict[str, list[str]]  # what stands out about which pictures


class InputError(UserError, ValueError):
    """A mistake in what the user gave; a ValueError too, as scikit-learn's callers expect."""


def listed(values: Any, what: str) -> Any:
    """Pictures or labels in something that has a length and can be cut: arrays and tables as they are, else a list.

    Raises:
        InputError: it is a single picture, or has no order.
    """
    if isinstance(values, str | bytes | os.PathLike | Image.Image):
        raise InputError(f"{what} come as a list, also where there is only one; got {values!r:.100}")
    if isinstance(values, Mapping | Set) and not hasattr(values, "shape"):
        raise InputError(f"{what} come in an order, which a {type(values).__name__} has not; give a list")
    if hasattr(values, "__array__") and getattr(values, "ndim", None) == 1:  # pandas.Series and its like
        return np.asarray(values)
    if hasattr(values, "shape") or isinstance(values, list | tuple) or not isinstance(values, Iterable):
        return values
    return list(values)


def images(pictures: Any, preparation: Preparation | None) -> NDArray[Any]:
    """Pictures as images `(N, channels, height, width)`; flat rows stay flat where there is no preparation.

    Raises:
        InputError: they are not as `FewShotClassifier` describes them.
        UserError: some cannot be read.
    """
    remarks: Remarks = defaultdict(list)
    made, broken = images_and_errors(pictures, preparation, remarks)
    check_whole(broken, len(pictures))
    warn("the pictures", remarks)
    return made


def images_and_errors(
    pictures: Any, preparation: Preparation | None, remarks: Remarks, first: int = 0
) -> tuple[NDArray[Any], list[str]]:
    """`images`, and what was wrong with pictures that cannot be read (then there may be no images).

    Args:
        pictures: some of all that were given.
        preparation: see `FewShotClassifier`.
        remarks: what stands out is added.
        first: the place of the first of them.
    """
    if named_or_opened(pictures):
        return _read(pictures, preparation or Preparation("RGB", None), remarks, first)
    values = check_array(pictures, dtype="numeric", ensure_2d=False, allow_nd=True)
    if preparation is None:
        return np.array(values if values.ndim == 2 else _with_channels(values).transpose(0, 3, 1, 2)), []
    if values.ndim == 2:
        if preparation.size is None:
            raise InputError("flat pictures have no height and width: give size, or pictures of two dimensions")
        channels, height, width = preparation.image_shape
        if values.shape[1] != channels * height * width:
            raise InputError(
                f"flat pictures for this learner have {height} x {width} x {channels} numbers, not {values.shape[1]}"
            )
        values = values.reshape(-1, height, width, channels)
    values = _with_channels(values)
    if values.shape[3] not in (1, 3):
        raise InputError(f"a picture has 1 or 3 channels, on the last axis; these are {values.shape[1:]}")
    made = np.stack([preparation.of(Image.fromarray(each)) for each in _bytes(values)])
    remarks[BLANK] += [f"picture {first + i}" for i in np.flatnonzero(blank(made))]
    return made, []


def _read(
    pictures: Sequence[Any], preparation: Preparation, remarks: Remarks, first: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """`_images` of files or PIL images."""
    made, names, broken = [], [], []
    for i, picture in enumerate(pictures, first):
        name = picture if isinstance(picture, str) else os.fspath(picture) if _is_file(picture) else f"picture {i}"
        try:
            with _seen(picture, str(name)) as each:
                if has_frames(each):
                    remarks[FRAMES].append(str(name))
                made.append(preparation.of(each))
                names.append(str(name))
        except InputError:
            raise
        except UserError as error:
            broken.append(str(error))
    if broken:
        return np.empty(0, np.uint8), broken
    shapes = sorted({each.shape for each in made})
    if len(shapes) > 1:
        raise InputError(f"pictures of different shapes, {shapes[0]} and {shapes[-1]}: give size=, such as size=84")
    stacked = np.stack(made)
    remarks[BLANK] += [name for name, single in zip(names, blank(stacked), strict=True) if single]
    return stacked, []


def _is_file(picture: Any) -> bool:
    return isinstance(picture, str | os.PathLike)


@contextlib.contextmanager
def _seen(picture: Any, name: str) -> Iterator[Image.Image]:
    """A file or a PIL image, opened; any damage that shows is a `UserError` that names it."""
    if _is_file(picture):
        with reading(name, ADVICE):
            data = read_file(Path(picture))
        with opened(data, name) as file:
            yield file
    elif isinstance(picture, Image.Image):
        with reading(name, ADVICE):
            yield picture
    else:
        raise InputError(f"{name} is a {type(picture).__name__}; give only files, or only PIL images, or one array")


def any_coloured(pictures: Any, size: tuple[int, int] | None) -> bool:
    """Whether any of the pictures has colours; those that cannot be read have none, and are refused elsewhere."""
    if named_or_opened(pictures):
        for i, picture in enumerate(pictures):
            with contextlib.suppress(UserError), _seen(picture, f"picture {i}") as each:
                if not is_grey(each):
                    return True
        return False
    shape = np.shape(pictures)
    if len(shape) == 2 and size is not None:
        return bool(shape[1] == 3 * size[0] * size[1])
    return len(shape) == 4 and shape[3] != 1


def _with_channels(values: NDArray[Any]) -> NDArray[Any]:
    """`(N, height, width, channels)`."""
    return values[..., None] if values.ndim == 3 else values


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pictures as Pillow takes them: `(N, height, width)` grey or `(N, height, width, 3)`, uint8."""
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > 1:
            raise InputError(f"pictures are uint8, or in [0, 1]; these go from {values.min():g} to {values.max():g}")
        values = np.round(values * 255.0).astype(np.uint8)
    return values[..., 0] if values.shape[3] == 1 else values


def named_or_opened(pictures: Any) -> bool:
    """Whether pictures come as files or PIL images rather than as numbers."""
    if not isinstance(pictures, list | tuple | np.ndarray) or len(pictures) == 0:
        return False
    return isinstance(pictures[0], str | os.PathLike | Image.Image)


def is_flat(pictures: Any) -> bool:
    """Whether scikit-learn's rules for tables apply."""
    return not named_or_opened(pictures) and np.asarray(pictures).ndim not in (3, 4)
