"""Directions as tasks: forwards or backwards, or any in the plane with a sector that training can leave out.

The sources train on the whole circle, and so do these families; nothing is then out of distribution.
The option `held_out` takes a sector of that many degrees around straight backwards (180 degrees) out
of training, validation and test, and makes it the ood split.

Deviation: the sources toss a coin for each task of a meta-batch (PEARL's half-cheetah has the two as its only
tasks). Here forwards and backwards come in opposite pairs, each as likely as before: a batch with more of one
direction pulls the shared policy that way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs.mujoco.engine import MujocoFamily
from metarl.tasks import SPLITS, Array, Task, Tasks, Uniform


@dataclass(frozen=True)
class ForwardBackFamily(MujocoFamily):
    """A robot that must run along x; a task is `{"direction": ()}`, +1 forwards or -1 backwards. None is unseen."""

    @property
    def splits(self) -> tuple[str, ...]:
        """No ood: there are but two directions."""
        return SPLITS[:3]

    @property
    def unseen(self) -> bool:
        """False: every split holds the same two tasks."""
        return False

    def finite(self, split: str) -> Tasks:
        """Forwards, then backwards."""
        return Tasks({"direction": [1.0, -1.0]}, split=split)

    def check_tasks(self, tasks: Tasks) -> None:
        """As of every family; and a direction is one of the two."""
        super().check_tasks(tasks)
        self._check_listed(tasks)

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Directions `(n,)`; the second, fourth, ... are opposite to the one before."""
        forwards = uniform((n,)) >= 0.5
        forwards[1::2] = ~forwards[: n - 1 : 2]
        return Tasks({"direction": np.where(forwards, 1.0, -1.0)})

    def caption(self, task: Task) -> str:
        """The wanted direction."""
        return "wanted: forwards" if task["direction"] > 0 else "wanted: backwards"

    def heading(self, task: Task) -> NDArray[np.float64]:
        """The wanted direction along x."""
        return np.array([task["direction"], 0.0])


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

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """The whole circle, whatever is held out."""
        return {"angle": (0.0, 2 * np.pi)}

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
