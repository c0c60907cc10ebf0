"""Episodes as moving pictures: before and after adaptation, side by side.

A `Recorder` watches a rollout and gives a `Recording`; what can be filmed has a method `film`
(`learning.contract.Filmable`) that returns the recordings to be shown beside one another.

    write(agent.film(family.fixed("test", 1), Budget(steps=3), seed=0), Path("adaptation.mp4"))
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from metarl.errors import UserError
from metarl.sampling.recording import Recording

FORMATS = (".mp4", ".gif")
FPS = 20.0  # pictures a second: real time where a step is .05 s
SHORTEST, SLOWEST = 5.0, 2.0  # a film lasts this many seconds unless that were fewer pictures a second
HOLD = 1.0  # s, how long the last picture stays
STRIP, MARGIN, GAP = 52, 8, 4  # pixels: the writing above a picture, around it, and between two pictures
SMALL = 300  # pixels: lower pictures are shown twice as large
GIF_FPS, GIF_WIDTH, GIF_COLOURS = 10.0, 640, 64  # a GIF hardly compresses: fewer pictures, smaller and plainer ones


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


def write(recordings: Sequence[Recording], path: Path, fps: float | None = None) -> None:
    """Encode recordings side by side, the shorter ones resting on their last picture.

    Args:
        recordings: of one environment.
        path: ends in .mp4, or in .gif (at most 10 pictures a second, 640 pixels wide).
        fps: pictures a second; by default 20, or fewer so that the film lasts five seconds.

    Raises:
        UserError: the suffix is another, or nothing here encodes it.
    """
    check_film(path)
    length = max(len(recording.frames) for recording in recordings)
    fps = fps or min(FPS, max(SLOWEST, length / SHORTEST))
    encode = _write_mp4 if path.suffix.lower() == ".mp4" else _write_gif
    unfinished = path.with_name(f"{path.stem}.tmp{path.suffix}")  # the suffix tells encoders the format
    try:
        encode(side_by_side(recordings, round(HOLD * fps)), unfinished, fps)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def side_by_side(recordings: Sequence[Recording], hold: int = 0) -> Iterator[Image.Image]:
    """Pictures of all recordings at each step, then the last one `hold` more times; even sizes, as encoders want."""
    length = max(len(recording.frames) for recording in recordings)
    for i in [*range(length), *[length - 1] * hold]:
        panels = [_panel(recording, min(i, len(recording.frames) - 1)) for recording in recordings]
        width = sum(panel.width + GAP for panel in panels) - GAP
        height = max(panel.height for panel in panels)
        frame = Image.new("RGB", (width + width % 2, height + height % 2), "white")
        left = 0
        for panel in panels:
            frame.paste(panel, (left, 0))
            left += panel.width + GAP
        yield frame


def _panel(recording: Recording, i: int) -> Image.Image:
    picture = Image.fromarray(recording.frames[i])
    if picture.height < SMALL:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC)
    panel = Image.new("RGB", (picture.width, picture.height + STRIP), "white")
    pen = ImageDraw.Draw(panel)
    pen.text((MARGIN, MARGIN), recording.title, fill="black", font_size=17)
    so_far = f"step {i} of {len(recording.rewards)}, return so far {sum(recording.rewards[:i]):.1f}"
    pen.text((MARGIN, MARGIN + 21), so_far, fill="#555555", font_size=15)
    panel.paste(picture, (0, STRIP))
    return panel


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
    writer = _encoder().write_frames(str(path), first.size, fps=fps, quality=7, macro_block_size=2)
    writer.send(None)
    for picture in [first, *pictures]:
        writer.send(picture.tobytes())
    writer.close()


def _write_gif(pictures: Iterator[Image.Image], path: Path, fps: float) -> None:
    every = max(1, round(fps / GIF_FPS))
    kept = [_smaller(picture) for i, picture in enumerate(pictures) if i % every == 0]
    palette = kept[len(kept) // 2].quantize(GIF_COLOURS)  # one for all, and no dithering: what rests costs nothing
    plain = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in kept]
    plain[0].save(path, save_all=True, append_images=plain[1:], duration=round(1000 * every / fps), loop=0)


def _smaller(picture: Image.Image) -> Image.Image:
    scale = min(1.0, GIF_WIDTH / picture.width)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
