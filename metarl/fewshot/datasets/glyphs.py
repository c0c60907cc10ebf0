"""Glyphs: letters of five scripts in the twelve DejaVu faces that matplotlib installs.

Nothing to download. A class is a letter that all twelve faces have; its twelve images are the faces,
each with a small affine jitter (rotation, shear, size, place) from a keyed stream, so support and
query images of a class always differ in face. Letters whose outlines are identical in any face (A, Α
and А; the italic т and m) are one class, drawn as the first of them.

Splits are whole scripts: Latin, Greek and letters common to several scripts train, Cyrillic validates,
Georgian and Armenian test.
"""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from fontTools import unicodedata as scripts  # type: ignore[import-untyped]  # fontTools ships no types
from fontTools.pens.recordingPen import DecomposingRecordingPen  # type: ignore[import-untyped]  # as above
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]  # as above
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metarl.fewshot.datasets.cache import Pixels
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.datasets.pictures import Preparation
from metarl.seeding import Key

SIZE = 28
SUPERSAMPLING = 2  # letters are drawn at 56 x 56 and reduced
FONT_PIXELS = 34  # an em at that scale
FACES = tuple(
    f"DejaVu{family}{style}"
    for family, styles in (
        ("Sans", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("SansMono", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("Serif", ("", "-Bold", "-Italic", "-BoldItalic")),
    )
    for style in styles
)
SCRIPTS = {"train": ("Latn", "Grek", "Zyyy"), "validation": ("Cyrl",), "test": ("Geor", "Armn")}
NAMES = {"Latn": "Latin", "Grek": "Greek", "Zyyy": "Common", "Cyrl": "Cyrillic", "Geor": "Georgian", "Armn": "Armenian"}
TURN, SHEAR, SCALE, SHIFT = 8.0, 0.1, 0.1, 1.5  # largest jitter: degrees, ratio, ratio, pixels of 28


@dataclass(frozen=True, kw_only=True)
class Glyphs(ImageSource):
    """Letters, `(1, 28, 28)`, ink 1 on paper 0; groups are scripts.

    Attributes:
        queries: Q, query images a class; 12 faces less the shots at most.
    """

    name: ClassVar[str] = "glyphs"

    queries: int = 7

    @property
    def preparation(self) -> Preparation:
        """A picture of a letter is dark on light paper, as in Omniglot."""
        return Preparation("L", (SIZE, SIZE), inverted=True)

    def load(self) -> Images:
        """All letters in all faces, drawn once a process."""
        return draw()

    def split_classes(self, images: Images) -> Mapping[str, Sequence[int]]:
        """Whole scripts."""
        return {
            split: [i for i, group in enumerate(images.groups) if group in {NAMES[code] for code in codes}]
            for split, codes in SCRIPTS.items()
        }


def face_file(face: str) -> Path:
    """The font file of a face."""
    import matplotlib  # slow, and only its fonts are needed

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"


@cache
def letters() -> tuple[str, ...]:
    """One letter for each class, by script and code point."""
    fonts = [TTFont(face_file(face), lazy=True) for face in FACES]
    maps: list[dict[int, str]] = [font.getBestCmap() for font in fonts]
    shared = sorted(set.intersection(*map(set, maps)))
    points = [point for point in shared if unicodedata.category(chr(point)).startswith("L")]
    outlines: list[tuple[Hashable, int]] = []
    for face, (font, names) in enumerate(zip(fonts, maps, strict=True)):
        glyphs = font.getGlyphSet()
        outlines += [((face, outline(glyphs, names[point])), point) for point in points]
    first = merge(points, outlines)
    kept = [point for point in points if first[point] == point]
    order = [code for codes in SCRIPTS.values() for code in codes]
    return tuple(
        sorted(
            (chr(p) for p in kept if scripts.script(chr(p)) in order),
            key=lambda letter: (order.index(scripts.script(letter)), letter),
        )
    )


def outline(glyphs: Any, name: str) -> str:
    """A glyph's contours, composites resolved, as text: equal texts are identical drawings."""
    pen = DecomposingRecordingPen(glyphs)
    glyphs[name].draw(pen)
    return repr(pen.value)


def merge(points: Iterable[int], marks: Iterable[tuple[Hashable, int]]) -> dict[int, int]:
    """The least point each point is connected to by common marks (union-find)."""
    parent = {point: point for point in points}

    def root(point: int) -> int:
        while parent[point] != point:
            point = parent[point]
        return point

    by_mark: dict[Hashable, list[int]] = defaultdict(list)
    for mark, point in marks:
        by_mark[mark].append(point)
    for members in by_mark.values():
        for point in members[1:]:
            low, high = sorted((root(members[0]), root(point)))
            parent[high] = low
    return {point: root(point) for point in parent}


@cache
def draw() -> Images:
    """Every letter in every face, jittered."""
    drawn = letters()
    fonts = [
        ImageFont.truetype(str(face_file(face)), FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC) for face in FACES
    ]
    jitter = Key(0)("glyphs", "jitter").uniform((len(drawn), len(FACES), 6)) * 2 - 1
    pixels = np.empty((len(drawn), len(FACES), 1, SIZE, SIZE), np.uint8)
    for i, letter in enumerate(drawn):
        for f, font in enumerate(fonts):
            pixels[i, f, 0] = picture(letter, font, jitter[i, f])
    scripts_of = tuple(NAMES[scripts.script(letter)] for letter in drawn)
    classes = tuple(f"{script}/U+{ord(letter):04X}" for script, letter in zip(scripts_of, drawn, strict=True))
    return Images(pixels.reshape(-1, 1, SIZE, SIZE), classes, (len(FACES),) * len(drawn), scripts_of)


def picture(letter: str, font: ImageFont.FreeTypeFont, jitter: NDArray[np.float64]) -> Pixels:
    """One letter `(28, 28)`, its ink centred and then moved by the jitter.

    Args:
        letter: a character.
        font: the face.
        jitter: six numbers in [-1, 1]: rotation, shear, width, height, right, down, in units of the largest.
    """
    side = SIZE * SUPERSAMPLING
    canvas = Image.new("L", (side, side))
    left, top, right, bottom = font.getbbox(letter)
    corner = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(corner, letter, fill=255, font=font)
    angle = math.radians(TURN * jitter[0])
    cos, sin, shear = math.cos(angle), math.sin(angle), SHEAR * jitter[1]
    wide, high = 1 + SCALE * jitter[2], 1 + SCALE * jitter[3]
    # Pillow asks where each output pixel comes from: back through the turn, then the shear and scale
    a, b = (cos + shear / high * sin) / wide, (sin - shear / high * cos) / wide
    c, d = -sin / high, cos / high
    x, y = (side / 2 + SHIFT * SUPERSAMPLING * shift for shift in jitter[4:])
    coefficients = (a, b, side / 2 - a * x - b * y, c, d, side / 2 - c * x - d * y)
    moved = canvas.transform((side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(moved.reduce(SUPERSAMPLING))
