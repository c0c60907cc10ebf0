"""A chart to draw a state on: a picture of 480 x 360 pixels, axes with numbers, and words beside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIZE = (480, 360)  # width, height in pixels: as MuJoCo's pictures
SQUARE = (48, 24, 348, 324)  # left, top, right, bottom of a square plot, in pixels
BESIDE = 362  # where words beside a square plot begin
FINE = 2  # drawn so many times as large and then shrunk, which smooths the edges
GREEN, BLUE, INK, SOFT, RULE, PATH = "#2ca02c", "#1f77b4", "#1d2127", "#4d565f", "#dddddd", "#888888"

Point = Any  # (x, y), in units of the axes
Place = tuple[float, float]  # in pixels of the picture


class Chart:
    """A plot in a part of a picture.

    Args:
        across: the least and the greatest value from left to right.
        up: the same from bottom to top.
        box: left, top, right and bottom of the plot, in pixels.
        on: the chart whose picture this one shares.
    """

    def __init__(
        self, across: Place, up: Place, box: tuple[int, int, int, int] = SQUARE, on: Chart | None = None
    ) -> None:
        self.across, self.up, self.box = across, up, box
        self._image: Image.Image = on._image if on else Image.new("RGB", (FINE * SIZE[0], FINE * SIZE[1]), "white")
        self._pen = ImageDraw.Draw(self._image)
        self._words: list[dict[str, Any]] = on._words if on else []  # are written last, upon everything

    def picture(self) -> NDArray[np.uint8]:
        """What was drawn, `(360, 480, 3)`."""
        picture = self._image.reduce(FINE)
        pen = ImageDraw.Draw(picture)
        for words in self._words:
            pen.text(**words)
        return np.asarray(picture)

    def at(self, point: Point) -> Place:
        """Where a point lies, in pixels."""
        (left, top, right, bottom), (low, high), (least, most) = self.box, self.across, self.up
        x = left + (right - left) * (float(point[0]) - low) / (high - low)
        return x, bottom - (bottom - top) * (float(point[1]) - least) / (most - least)

    def axes(
        self, across: str = "", up: str = "", *, numbers: bool = True, grid: bool = True, whole: bool = False
    ) -> None:
        """A frame with round numbers and the axes' names.

        Args:
            across: the name below.
            up: the name above the left edge.
            numbers: whether the lower edge has numbers too.
            grid: whether lines go on from the numbers.
            whole: have whole numbers only.
        """
        left, top, right, bottom = self.box
        for value in round_numbers(*self.up, most=max(2, (bottom - top) // 40), whole=whole):
            _, y = self.at((0, value))
            self._line([(left - 4, y), (right if grid else left, y)], RULE)
            self.text((left - 6, y), f"{value:g}", SOFT, "rm", 13)
        for value in round_numbers(*self.across, most=(right - left) // 40, whole=whole) if numbers else []:
            x, _ = self.at((value, 0))
            self._line([(x, top if grid else bottom), (x, bottom + 4)], RULE)
            self.text((x, bottom + 5), f"{value:g}", SOFT, "ma", 13)
        self._line([(left, top), (left, bottom), (right, bottom), (right, top), (left, top)], SOFT)
        self.text(((left + right) / 2, bottom + 18), across, INK, "ma")
        self.text((left, top - 4), up, INK, "lb")

    def line(self, points: Sequence[Point], colour: str, width: float = 2) -> None:
        """A line through points; one point is none."""
        self._line([self.at(point) for point in points], colour, width)

    def arrow(self, start: Point, end: Point, colour: str, short: float) -> None:
        """An arrow that begins and ends `short` pixels from its points; none between points nearer than that."""
        tail, tip = np.array(self.at(start)), np.array(self.at(end))
        length = float(np.hypot(*(tip - tail)))
        if length <= 2 * short:
            return
        along = (tip - tail) / length
        tail, tip, side = tail + short * along, tip - short * along, np.array([-along[1], along[0]])
        self._line([tail, tip - 6 * along], colour, 2)
        corners = [tip, tip - 9 * along + 5 * side, tip - 9 * along - 5 * side]
        self._pen.polygon([tuple(FINE * corner) for corner in corners], fill=colour)

    def dot(self, point: Point, radius: float, colour: str, rim: str | None = None) -> None:
        """A disc whose radius is in pixels."""
        x, y = self.at(point)
        self._pen.ellipse(_fine(x - radius, y - radius, x + radius, y + radius), fill=colour, outline=rim, width=FINE)

    def circle(self, point: Point, radius: float, colour: str) -> None:
        """A line around a point, whose radius is in units of the axis across."""
        reach = np.array([radius, -radius])
        (left, top), (right, bottom) = self.at(point - reach), self.at(point + reach)
        self._pen.ellipse(_fine(left, top, right, bottom), outline=colour, width=FINE)

    def bar(self, corner: Point, other: Point, colour: str) -> None:
        """A rectangle between two corners."""
        (x, y), (u, v) = self.at(corner), self.at(other)
        self._pen.rectangle(_fine(min(x, u), min(y, v), max(x, u), max(y, v)), fill=colour)

    def text(
        self, place: Place, words: str, colour: str = INK, anchor: str = "la", size: int = 15, rim: int = 0
    ) -> None:
        """Words at a place, with a white rim of some pixels around them; for the anchor see Pillow."""
        style: dict[str, Any] = {"fill": colour, "anchor": anchor, "font": _letters(size)}
        if rim:
            style |= {"stroke_width": rim, "stroke_fill": "white"}
        self._words.append({"xy": place, "text": words, **style})

    def label(self, point: Point, words: str, colour: str = INK) -> None:
        """Words beside a point, on the side where there is room."""
        x, y = self.at(point)
        right = x + 12 + self.width(words) < self.box[2]
        self.text((x + 12 if right else x - 12, y), words, colour, "lm" if right else "rm", rim=2)

    def width(self, words: str, size: int = 15) -> float:
        """How many pixels words take."""
        return float(_letters(size).getlength(words))

    def key(self, entries: Sequence[tuple[str, str, str]]) -> None:
        """Beside a square plot: names, each with a dot of its colour (none where it is empty) and its value below."""
        for row, (name, value, colour) in enumerate(entries):
            x, y = BESIDE, 34 + 52 * row
            if colour:
                self._pen.ellipse(_fine(x, y - 5, x + 10, y + 5), fill=colour, outline=PATH)
            self.text((x + 15 if colour else x, y), name, SOFT, "lm")
            self.text((x, y + 20), value, INK, "lm")

    def _line(self, places: Sequence[Any], colour: str, width: float = 1) -> None:
        if len(places) > 1:
            fine = [tuple(_fine(*place)) for place in places]
            self._pen.line(fine, fill=colour, width=round(FINE * width), joint="curve")


@cache
def _letters(size: int) -> Any:
    return ImageFont.load_default(size)


def _fine(*pixels: float) -> list[float]:
    return [FINE * float(value) for value in pixels]


def bar_scale(values: Any) -> tuple[float, float]:
    """The ends of an axis for bars from 0 to some values, with room for numbers beyond the bars."""
    low, high = min(0.0, float(np.min(values))), max(0.0, float(np.max(values)))
    room = 0.2 * (high - low)
    return low - room * (low < 0), high + room


def round_numbers(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """At most `most` (2 or more) numbers from low to high, a power of ten apart, or 2 or 5 of it."""
    power = 10.0 ** np.floor(np.log10((high - low) / most))
    power = max(power, 1.0) if whole else power
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
        if last - first < most:
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    return []
