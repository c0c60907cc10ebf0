"""Pictures of MuJoCo scenes."""

from __future__ import annotations

from functools import cache

PICTURE = (480, 360)  # width, height in pixels
SHADOW = 1024  # pixels of the shadow map; MuJoCo's 4096 take longer than the picture without a graphics card


@cache
def opengl_problem() -> str | None:
    """Why this process cannot draw, or None; tried once, for a second try after a failure kills the process."""
    import mujoco

    try:
        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 1, 1).close()
    except Exception as error:  # each OpenGL platform fails in its own way
        return str(error)
    return None
