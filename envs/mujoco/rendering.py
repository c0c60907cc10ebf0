"""Pictures of MuJoCo scenes: the robot, what is wanted in green, what it does in blue, both in words too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from metarl.errors import UserError

PICTURE = (480, 360)  # width, height in pixels
SHADOW = 1024  # pixels of the shadow map; MuJoCo's 4096 take longer than the picture without a graphics card
GREEN, BLUE = (0.17, 0.63, 0.17, 1.0), (0.12, 0.47, 0.71, 1.0)  # the target's colour, and the robot's
WORDS = ("#7fdc7f", "#8cc8f5")  # both, lighter, for words on black
RECENT = 1.0  # s, over which the speed written into pictures is taken
STANDS = 0.05  # m/s; a slower robot gets no arrow
NEAR = 4.5  # m from the camera to a robot that walks in the plane


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        model: the MjModel of this simulation.
        data: its MjData.
        path: `(n, 2)` where the root was at each step so far, oldest first and now last, along x and y in m.
        step_seconds: time between two places of the path.
        in_plane: whether the robot walks in the plane; else along x only.
        caption: the task in words.
        place: `(2,)` the place to be in m, drawn as a post; None where the task names none.
        heading: `(2,)` the wanted velocity or direction along x and y, drawn as an arrow; None likewise.
    """

    model: Any
    data: Any
    path: NDArray[np.float64]
    step_seconds: float
    in_plane: bool
    caption: str
    place: NDArray[np.float64] | None = None
    heading: NDArray[np.float64] | None = None

    @property
    def velocity(self) -> NDArray[np.float64]:
        """Mean velocity of the last second, m/s, of the root's coordinates."""
        steps = min(len(self.path) - 1, round(RECENT / self.step_seconds))
        moved = (self.path[-1] - self.path[-1 - steps])[: 1 + self.in_plane]
        return np.asarray(moved / max(steps * self.step_seconds, self.step_seconds))

    @property
    def achieved(self) -> str:
        """What the robot does of what is wanted, in words."""
        if self.place is not None:
            x, y = self.path[-1]
            return f"now at {x:.2f}, {y:.2f} m, {np.linalg.norm(self.place - self.path[-1]):.2f} m away"
        if not self.in_plane:
            return f"actual {_signed(float(self.velocity[0]))} m/s"
        if self.heading is None or not self.heading.any():
            return f"actual {np.linalg.norm(self.velocity):.2f} m/s"
        along = self.velocity @ self.heading / np.linalg.norm(self.heading)
        return f"actual {_signed(float(along))} m/s that way"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-0.00", "+0.00")


class SceneRenderer:
    """Draws scenes of one robot; holds MuJoCo's renderer until it is closed.

    Args:
        model: the MjModel that all scenes share, but for its numbers.

    Raises:
        UserError: there is no OpenGL to draw with.
    """

    def __init__(self, model: Any) -> None:
        import mujoco

        if problem := opengl_problem():
            raise UserError(
                f"cannot draw: MuJoCo found no OpenGL ({problem}). Without a display, set MUJOCO_GL=egl or "
                "MUJOCO_GL=osmesa and install that library (on Debian: apt install libegl1 libgl1-mesa-dri, or "
                "libosmesa6)"
            )
        model.vis.quality.shadowsize = SHADOW
        self._renderer = mujoco.Renderer(model, PICTURE[1], PICTURE[0])

    def draw(self, scene: Scene) -> NDArray[np.uint8]:
        """The picture, RGB `(height, width, 3)`."""
        import mujoco

        mujoco.mj_forward(scene.model, scene.data)
        self._renderer.update_scene(scene.data, camera=_camera(scene))
        for start, end in pairwise(scene.path if scene.in_plane else []):
            self._add(mujoco.mjtGeom.mjGEOM_LINE, 4.0, (*start, 0.02), (*end, 0.02), BLUE)
        if scene.place is not None:
            post = (*scene.place, 0.0), (*scene.place, 0.7)
            self._add(mujoco.mjtGeom.mjGEOM_CAPSULE, 0.15, *post, GREEN, "goal")
        if scene.heading is not None:
            above = np.array([*scene.path[-1], scene.data.xpos[1, 2] + 0.7])
            self._arrow(above, scene.heading, GREEN)
            if np.linalg.norm(scene.velocity) > STANDS:
                self._arrow(above - (0.0, 0.0, 0.25), scene.velocity, BLUE)
        return _with_words(self._renderer.render(), scene.caption.splitlines(), scene.achieved)

    def _arrow(self, start: Any, velocity: NDArray[np.float64], colour: tuple[float, float, float, float]) -> None:
        """An arrow as long as the robot would go in a second."""
        import mujoco

        end = start + np.pad(velocity, (0, 3 - len(velocity)))
        self._add(mujoco.mjtGeom.mjGEOM_ARROW, 0.07, start, end, colour)

    def _add(
        self, kind: Any, width: float, start: Any, end: Any, colour: tuple[float, float, float, float], label: str = ""
    ) -> None:
        """Put a shape from `start` to `end` `(3,)` into the scene; widths in m, of lines in pixels."""
        import mujoco

        scene = self._renderer.scene
        if scene.ngeom < scene.maxgeom:
            geom = scene.geoms[scene.ngeom]
            mujoco.mjv_initGeom(geom, kind, np.zeros(3), np.zeros(3), np.zeros(9), np.array(colour, np.float32))
            mujoco.mjv_connector(geom, kind, width, np.array(start), np.array(end))
            geom.label, geom.emission = label, 0.4  # so that its dark side has its colour too
            scene.ngeom += 1

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()


def _camera(scene: Scene) -> Any:
    """From the side as the model's file has it; of robots that leave their lane, from above, a place to be in view."""
    import mujoco

    if not scene.in_plane:
        return "track"
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation, camera.distance = 90.0, -40.0, NEAR
    if scene.place is not None:
        middle = scene.place / 2
        reach = np.linalg.norm([scene.place - middle, scene.path[-1] - middle], axis=1).max()
        camera.lookat[:2], camera.elevation, camera.distance = middle, -55.0, max(1.5 * NEAR, 4.5 * reach)
    else:
        camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1
    return camera


def _with_words(frame: NDArray[np.uint8], wanted: Sequence[str], achieved: str) -> NDArray[np.uint8]:
    """The picture with words in its lower left corner, in the colours of what they tell."""
    picture = Image.fromarray(frame)
    pen, size = ImageDraw.Draw(picture, "RGBA"), 20
    lines = [*((words, WORDS[0]) for words in wanted), (achieved, WORDS[1])]
    right = max(pen.textlength(words, font_size=size) for words, _ in lines)
    top = picture.height - 10 - 24 * len(lines)
    pen.rectangle((0, top, 16 + right, picture.height), fill=(0, 0, 0, 215))
    for row, (words, colour) in enumerate(lines):
        pen.text((8, top + 5 + 24 * row), words, fill=colour, font_size=size)
    return np.asarray(picture)


@cache
def opengl_problem() -> str | None:
    """Why this process cannot draw, or None; tried once, for a second try after a failure kills the process."""
    import mujoco

    try:
        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 1, 1).close()
    except Exception as error:  # each OpenGL platform fails in its own way
        return str(error)
    return None
