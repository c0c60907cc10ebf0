"""Episodes as moving pictures: before and after adaptation, side by side.

A `Recorder` watches a rollout and gives a `Recording`; what can be filmed has a method `film`
(`learning.contract.Filmable`) that returns the recordings to be shown beside one another.

    write(agent.film(family.fixed("test", 1), Budget(steps=3), seed=0), Path("adaptation.mp4"))
"""

from __future__ import annotations

import ctypes.util
import importlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from metarl.errors import UserError, one_line
from metarl.files import replacing
from metarl.sampling.recording import Recording

FORMATS = (".mp4", ".gif")
FPS = 20.0  # pictures a second: real time where a step is .05 s
SHORTEST, SLOWEST = 5.0, 2.0  # a film lasts this many seconds unless that were fewer pictures a second
HOLD = 1.0  # s, how long the last picture stays
PANE = 480  # pixels: an episode's width; its pictures are scaled to it, or to this height where they are taller
MARGIN, GAP = 8, 4  # pixels: around the writing above a picture, and between two panes
BETWEEN = "#c9ced4"  # the colour of the gap
TITLE, SMALL = 17, 15  # pixels: heights of the letters
LINE = 1.3  # distance of lines in letters
GIF_FPS, GIF_COLOURS = 10.0, 64  # a GIF hardly compresses: fewer pictures, and plainer ones


def check_film(path: Path) -> Path:
    """The path of a film that can be written.

    Raises:
        UserError: its suffix is none of `FORMATS`, or nothing here encodes it.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"cannot film {path}: the name must end in {' or '.join(FORMATS)}")
    if path.suffix.lower() == ".mp4":
        _encoder()
    return path


def draw_without_display() -> None:
    """Where there is no display, have MuJoCo draw into memory, if a library for that is installed.

    MuJoCo reads `MUJOCO_GL` when it is imported; so call this before. A value that is set stays.
    """
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"))
    if shown or sys.platform != "linux" or "mujoco" in sys.modules:
        return
    for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = name
            return


def write(recordings: Sequence[Recording], path: Path, fps: float | None = None, columns: int | None = None) -> None:
    """Encode recordings side by side, the shorter ones resting on their last picture.

    Args:
        recordings: of one family.
        path: ends in .mp4, or in .gif (at most 10 pictures a second, 64 colours).
        fps: pictures a second; by default 20, or fewer so that the film lasts five seconds.
        columns: how many stand side by side; the others follow in rows below. By default all.

    Raises:
        UserError: the suffix is another, nothing here encodes it, or it cannot be written there.
    """
    check_film(path)
    length = max(len(recording.frames) for recording in recordings)
    fps = fps or min(FPS, max(SLOWEST, length / SHORTEST))
    encode = _write_mp4 if path.suffix.lower() == ".mp4" else _write_gif
    try:
        with replacing(path) as temporary:
            encode(side_by_side(recordings, round(HOLD * fps), columns), temporary, fps)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or one_line(error)}") from None


def side_by_side(recordings: Sequence[Recording], hold: int = 0, columns: int | None = None) -> Iterator[Image.Image]:
    """Pictures of all recordings at each step, then the last one `hold` more times; even sizes, as encoders want."""
    columns = columns or len(recordings)
    panes = [_Pane(recording) for recording in recordings]
    strip, below = max(pane.strip for pane in panes), max(pane.size[1] for pane in panes)
    rows = -(-len(panes) // columns)
    width, height = columns * (PANE + GAP) - GAP, rows * (strip + below + GAP) - GAP
    length = max(len(recording.frames) for recording in recordings)
    for i in [*range(length), *[length - 1] * hold]:
        frame = Image.new("RGB", (width + width % 2, height + height % 2), BETWEEN)
        for place, pane in enumerate(panes):
            row, column = divmod(place, columns)
            pane.draw(frame, i, column * (PANE + GAP), row * (strip + below + GAP), strip)
        yield frame


class _Pane:
    """Where one recording is drawn: writing in a strip, and the picture below.

    Attributes:
        size: width and height of its pictures in a frame.
        strip: the height that its writing needs.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._reward = [0.0, *itertools.accumulate(recording.rewards)]
        height, width, _ = recording.frames[0].shape
        scale = min(PANE / width, PANE / height)
        self.size = max(1, round(scale * width)), max(1, round(scale * height))
        self._title = wrapped(recording.title, font(TITLE, bold=True), PANE - 2 * MARGIN)
        self._task = wrapped(f"task: {recording.task}" * bool(recording.task), font(SMALL), PANE - 2 * MARGIN)
        lines = LINE * (TITLE * len(self._title) + SMALL * (1 + len(self._task)))
        self.strip = round(2 * MARGIN + lines)

    def draw(self, frame: Image.Image, i: int, left: int, top: int, strip: int) -> None:
        """Draw step i, or the last there is, with the picture `strip` pixels below the top."""
        i = min(i, len(self._recording.frames) - 1)
        so_far = f"step {i} of {len(self._recording.rewards)}, reward so far {_number(self._reward[i])}"
        lines = [(words, TITLE, "black") for words in self._title]
        lines += [(words, SMALL, "#444444") for words in (so_far, *self._task)]
        pen, y = ImageDraw.Draw(frame), float(top + MARGIN)
        pen.rectangle((left, top, left + PANE - 1, top + strip + self.size[1] - 1), fill="white")
        for words, size, colour in lines:
            pen.text((left + MARGIN, y), words, fill=colour, font=font(size, bold=size == TITLE))
            y += LINE * size
        picture = Image.fromarray(self._recording.frames[i])
        if picture.size != self.size:
            larger = self.size[0] > picture.width
            picture = picture.resize(self.size, Image.Resampling.BICUBIC if larger else Image.Resampling.LANCZOS)
        frame.paste(picture, (left + (PANE - picture.width) // 2, top + strip))


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1e9 else f"{value:.4g}"


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along; it has Greek letters and superscripts."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def wrapped(words: str, letters: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Text in lines that are at most so many pixels wide; a longer word is broken, and nothing is left out."""
    lines: list[str] = []
    for word in words.split():
        if lines and letters.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for letter in word:
            if lines[-1] and letters.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _encoder() -> Any:
    """The module imageio_ffmpeg with a working ffmpeg."""
    try:
        module = importlib.import_module("imageio_ffmpeg")
        module.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"an MP4 needs an encoder ({error}): pip install 'metarl-suite[video]', or give a name that ends in .gif"
        ) from error
    return module


def _write_mp4(pictures: Iterator[Image.Image], path: Path, fps: float) -> None:
    first = next(pictures)
    writer = _encoder().write_frames(
        str(path), first.size, fps=fps, quality=7, macro_block_size=2, output_params=["-f", "mp4"]
    )
    writer.send(None)
    for picture in [first, *pictures]:
        writer.send(picture.tobytes())
    writer.close()


def _write_gif(pictures: Iterator[Image.Image], path: Path, fps: float) -> None:
    every = max(1, round(fps / GIF_FPS))
    kept = list(itertools.islice(pictures, 0, None, every))
    palette = _palette([kept[0], kept[len(kept) // 2], kept[-1]])  # and no dithering: what rests costs nothing
    plain = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in kept]
    plain[0].save(
        path, format="GIF", save_all=True, append_images=plain[1:], duration=round(1000 * every / fps), loop=0
    )


def _palette(pictures: Sequence[Image.Image]) -> Image.Image:
    """The colours of pictures of one size, one palette for all."""
    width, height = pictures[0].size
    together = Image.new("RGB", (width, height * len(pictures)))
    for i, picture in enumerate(pictures):
        together.paste(picture, (0, i * height))
    return together.quantize(GIF_COLOURS)
