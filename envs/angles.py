"""Directions in the plane as tasks, with a sector that training can be made to leave out.

The sources train on the whole circle, and so do these families; nothing is then out of distribution.
The option `held_out` takes a sector of that many degrees around straight backwards (180 degrees) out
of training, validation and test, and makes it the ood split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarl.envs.batched_mujoco import MujocoFamily
from metarl.tasks import SPLITS, Array, Task, Tasks, Uniform


@dataclass(frozen=True)
class AngleFamily(MujocoFamily):
    """A robot that must run in a direction; a task is `{"angle": ()}`, radians from the x axis.

    Attributes:
        held_out: degrees of the sector around 180 that only the ood split has; 0 for none.
    """

    held_out: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.held_out < 360.0:
            raise ValueError(f"held_out is a sector in degrees, at least 0 and less than 360; got {self.held_out}")

    @property
    def splits(self) -> tuple[str, ...]:
        """The ood split exists where a sector is held out."""
        return SPLITS if self.held_out else SPLITS[:3]

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Angles `(n,)` in [0, 2 pi)."""
        sector = np.deg2rad(self.held_out)
        if split == "ood":
            return Tasks({"angle": np.pi - sector / 2 + sector * uniform((n,))})
        angle = np.pi + sector / 2 + (2 * np.pi - sector) * uniform((n,))
        return Tasks({"angle": angle % (2 * np.pi)})

    def caption(self, task: Task) -> str:
        """The wanted direction, in degrees from the x axis."""
        return f"wanted: towards {np.rad2deg(task['angle']):.0f}°"

    def heading(self, task: Task) -> NDArray[np.float64]:
        """The wanted direction."""
        return np.array([np.cos(task["angle"]), np.sin(task["angle"])])


def along(task: Mapping[str, Array], velocity: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part `(N,)` of the velocities `(N, 2)` that points in the tasks' directions."""
    angle: NDArray[np.float64] = task["angle"]
    return np.cos(angle) * velocity[:, 0] + np.sin(angle) * velocity[:, 1]
