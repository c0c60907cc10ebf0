"""MuJoCo models and what is read of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

TOTAL_MASS = {"half_cheetah.xml": 14.0}  # kg, models whose file asks for it; see `load_model`


@dataclass(frozen=True)
class Robot:
    """A Gymnasium v5 model with its timing, start and observation.

    Attributes:
        xml: the model's file among Gymnasium's assets.
        frame_skip: MuJoCo steps per environment step.
        sizes: coordinates, velocities and actuators (nq, nv, nu) of the model.
        root: how many leading coordinates say where it is; their displacement is the velocity.
        noise: start noise, U[-noise, noise] on coordinates.
        normal: whether the noise on velocities is normal with SD `noise`, else uniform too.
        hidden: how many leading coordinates are left out of the observation.
        clip: velocities are clipped to +-this in the observation.
        derived: MjData fields observed after coordinates and velocities, each from an index on
            (its first axis); as in Gymnasium, they describe the last substep's beginning.
        derived_size: how many numbers those are.
    """

    xml: str
    frame_skip: int
    sizes: tuple[int, int, int]
    root: int
    noise: float
    normal: bool
    hidden: int
    clip: float = np.inf
    derived: tuple[tuple[str, int], ...] = ()
    derived_size: int = 0

    @property
    def observation_size(self) -> int:
        """Numbers an observation has."""
        return self.sizes[0] - self.hidden + self.sizes[1] + self.derived_size


HALF_CHEETAH = Robot("half_cheetah.xml", 5, (9, 9, 6), root=1, noise=0.1, normal=True, hidden=1)
ANT = Robot("ant.xml", 5, (15, 14, 8), root=2, noise=0.1, normal=True, hidden=2)
WALKER = Robot("walker2d_v5.xml", 4, (9, 9, 6), root=1, noise=0.005, normal=False, hidden=1, clip=10.0)
HOPPER = Robot("hopper.xml", 4, (6, 6, 3), root=1, noise=0.005, normal=False, hidden=1, clip=10.0)
HUMANOID = Robot(
    "humanoid.xml",
    5,
    (24, 23, 17),
    root=2,
    noise=0.01,
    normal=False,
    hidden=2,
    derived=(("cinert", 1), ("cvel", 1), ("qfrc_actuator", 6)),
    derived_size=13 * 10 + 13 * 6 + 17,
)


@cache
def load_model(xml: str) -> Any:
    """The compiled MjModel of one of Gymnasium's assets.

    A `settotalmass` in the file is carried out here: MuJoCo's compiler still obeys it, with the same
    result bit for bit, but warns on every load that it will not for ever.
    """
    import mujoco

    text = (Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / xml).read_text()
    mass = TOTAL_MASS.get(xml)
    if mass is None:
        return mujoco.MjModel.from_xml_string(text)
    model = mujoco.MjModel.from_xml_string(text.replace(f'settotalmass="{mass:g}"', ""))
    mujoco.mj_setTotalmass(model, mass)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
