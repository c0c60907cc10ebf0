"""Picture files, of formats and within limits that a stranger's file may have; `pictures` makes numbers of them."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from metarl.fewshot.datasets.reading import reading

MAX_PIXELS = 1 << 26  # 67 million a picture
SLOW, MAX_SLOW_PIXELS = ("BLP", "DDS", "MSP", "QOI", "XPM"), 1 << 22  # Pillow decodes these in Python
MAX_PIECES, MAX_PIECE_BYTES = 2_000_000, 1 << 24  # that are read of a file: chunks, markers, tags
# Recognised by what they begin with, whatever the file is called.
SIGNED = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
# Recognised by the file's name. Left out of all that Pillow knows: EPS and WMF, which run other programs; FITS, whose
# decompression has no bound; and what holds no picture that Pillow itself decodes (BUFR, GRIB, HDF5, IPTC, MPEG).
NAMED = (
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "IMT", "MCIDAS", "MPO", "MSP"),
    *("PCD", "PCX", "PIXAR", "PSD", "QOI", "SGI", "SPIDER", "SUN", "TGA", "XBM", "XPM", "XVTHUMB"),
)
# First bytes that make a picture of a file whose name does not.
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
# A progressive JPEG may go over all its pixels again and again, in a few bytes each time.
JPEG, SCAN, MAX_SCANNED = b"\xff\xd8", b"\xff\xda", 1 << 30  # pixels in all scans
ADVICE = "replace or remove this picture"
FRAMES = "pictures with several frames, of which the first is used"


@cache
def _formats() -> dict[str, str]:
    """The format of each file name's ending, as far as this Pillow reads it."""
    Image.init()
    known = {*SIGNED, *NAMED} & set(Image.OPEN)
    return {suffix: name for suffix, name in Image.registered_extensions().items() if name in known}


def suffixes() -> tuple[str, ...]:
    """Endings of the names of pictures, in lower case, the usual ones first."""
    usual = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
    return tuple(dict.fromkeys([*usual, *sorted(_formats())]))


def is_picture(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a file is a picture: by the ending of its name, else by its first 12 bytes, which `head` gives."""
    if PurePosixPath(name).suffix.lower() in _formats():
        return True
    first = head()
    return first.startswith(MAGIC) or (first[:4] == b"RIFF" and first[8:12] == b"WEBP")


@contextlib.contextmanager
def opened(data: bytes, what: str) -> Iterator[Image.Image]:
    """A picture file's bytes as a PIL image; see `decode`."""
    by_name = _formats().get(PurePosixPath(what).suffix.lower())
    formats = dict.fromkeys(name for name in (*SIGNED, by_name) if name in Image.OPEN)
    with reading(what, ADVICE), _pillow_silent():
        try:
            picture = Image.open(_Pieces(data), formats=list(formats))
        except UnidentifiedImageError:
            raise ValueError("no picture in a format that is read here") from None
    with reading(what, ADVICE), _pillow_silent(), picture:
        check_size(picture)
        scans = data.count(SCAN) if data.startswith(JPEG) else 1
        if scans * picture.width * picture.height > MAX_SCANNED:
            raise ValueError(f"{scans} scans of {picture.width}x{picture.height} pixels are more than {MAX_SCANNED}")
        yield picture


def check_size(picture: Image.Image) -> None:
    """Refuse a picture of too many pixels.

    Raises:
        ValueError: it has more than `MAX_PIXELS`, or, in a format that is decoded in Python, `MAX_SLOW_PIXELS`.
    """
    plain = any(tile[0] == "ppm_plain" for tile in getattr(picture, "tile", ()))
    most = MAX_SLOW_PIXELS if plain or picture.format in SLOW else MAX_PIXELS
    if picture.width * picture.height > most:
        raise ValueError(f"{picture.width}x{picture.height} is more than {most} pixels")


class _Pieces(io.BytesIO):
    """A file's bytes, read in not too many pieces, none of them very large: pictures may say that they have both."""

    _left = MAX_PIECES

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes.

        Raises:
            ValueError: they are too many, or it is asked too often.
        """
        self._left -= 1
        if self._left < 0 or (size or 0) > MAX_PIECE_BYTES:
            raise ValueError(f"more than {MAX_PIECES} pieces, or one of more than {MAX_PIECE_BYTES} bytes")
        return super().read(size)


@contextlib.contextmanager
def _pillow_silent() -> Iterator[None]:
    """Without Pillow's warnings of what it makes the best of: what cannot be read is an error of ours."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def has_frames(picture: Image.Image) -> bool:
    """Whether a picture has more frames or pages than the one that is read."""
    return picture.format not in ("MPO", "PSD") and bool(getattr(picture, "is_animated", False))


def head_of(path: Path) -> bytes:
    """The first bytes of a file, for `is_picture`; none of one that cannot be read."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(12)
    return b""
