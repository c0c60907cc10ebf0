"""Walkers and hoppers whose masses, inertias, dampings and frictions differ from task to task.

Source, the one preset: `pearl` (Rakelly et al. 2019, with dennisl88/rand_param_envs). Every entry of
body mass, body inertia and geometry friction is multiplied by its own 1.5^U[-3, 3], every joint's
damping by 1.3^U[-3, 3] (1.3, not 1.5, is what the source's code has); velocity + 1 for survival - .001
times the squared action; 200 steps. Both run here on Gymnasium's Walker2d-v5 and Hopper-v5: models,
4 x .002 s a step, start noise, observations (coordinates without x, velocities clipped to +-10).
Deviations from the source: its MuJoCo 1.31 models, whose steps are of .004 s, so that its 200 steps were
3.2 s and not 1.6 (4 for the walker too, although its file says 5: its base class ignores that), and whose
walker has feet of friction .9 and 1.9, here 1.9 both; and that here the constants MuJoCo derives from masses
and inertias follow the change (`mj_setConst`), where the source kept those of the original robot.

Ood tasks have every scale beyond the range: the exponents' size is U[3, 4].
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl.envs.mujoco.engine import Motion, MujocoFamily
from metarl.envs.mujoco.robots import HOPPER, WALKER
from metarl.tasks import Array, Task, Tasks, Uniform

BASE = {"mass": 1.5, "inertia": 1.5, "damping": 1.3, "friction": 1.5}
FIELDS = {"mass": "body_mass", "inertia": "body_inertia", "damping": "dof_damping", "friction": "geom_friction"}
EXPONENT, OOD_EXPONENT = 3.0, 4.0  # largest sizes
CONTROL_COST = 0.001  # per squared unit of action
SURVIVE = 1.0  # reward a step
HORIZON = 200  # steps
FASTEST = 100.0  # the hopper's episode ends when an angle or velocity is beyond it


@dataclass(frozen=True)
class RandomParams(MujocoFamily):
    """A task holds factors: `mass` `(B,)`, `inertia` `(B, 3)`, `damping` `(nv,)`, `friction` `(G, 3)`.

    B are the bodies without the world, nv the joints' velocities, G the geometries with the floor.
    """

    parts: ClassVar[tuple[int, int]]  # (B, G)

    @property
    def horizon(self) -> int:
        """Steps an episode."""
        return HORIZON

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Factors of n robots, each drawn for itself."""
        bodies, geoms = self.parts
        shapes = {"mass": (bodies,), "inertia": (bodies, 3), "damping": (self.robot.sizes[1],), "friction": (geoms, 3)}
        return Tasks({name: BASE[name] ** _exponents(uniform((n, *shapes[name])), split) for name in BASE})

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """The farthest factors of ood, in both directions."""
        return {name: (base**-OOD_EXPONENT, base**OOD_EXPONENT) for name, base in BASE.items()}

    def physics(self, task: Mapping[str, Array], model: Any) -> Mapping[str, Array]:
        """The scaled fields; the world body has neither mass nor inertia."""
        fields = {}
        for name, field in FIELDS.items():
            values = np.repeat(getattr(model, field)[None], len(task[name]), axis=0)
            values[:, values.shape[1] - task[name].shape[1] :] *= task[name]
            fields[field] = values
        return fields

    def terms(self, task: Mapping[str, Array], motion: Motion) -> dict[str, NDArray[np.float64]]:
        """The velocity, the control cost, and the reward for survival."""
        return {
            "reward_forward": motion.velocity[:, 0].copy(),
            "reward_ctrl": -CONTROL_COST * np.square(motion.action).sum(1),
            "reward_survive": np.full(len(motion.qpos), SURVIVE),
        }

    @abstractmethod
    def fallen(self, motion: Motion) -> NDArray[np.bool_]:
        """Whether the robot fell."""

    def caption(self, task: Task) -> str:
        """The geometric mean of each kind of factor."""
        return "\n".join(f"{name} x{np.exp(np.log(values).mean()):.2f}" for name, values in task.items())


def _exponents(u: NDArray[np.float64], split: str) -> NDArray[np.float64]:
    signed = 2 * u - 1
    if split == "ood":
        return np.where(signed < 0, -1.0, 1.0) * (EXPONENT + (OOD_EXPONENT - EXPONENT) * np.abs(signed))
    return EXPONENT * signed


@dataclass(frozen=True)
class WalkerRandomParams(RandomParams):
    """Walkers with changed dynamics; over unless .8 < z < 2 and the torso leans less than 1 rad."""

    name: ClassVar[str] = "metarl/WalkerRandomParams-v0"
    presets: ClassVar[tuple[str, ...]] = ("pearl",)
    robot = WALKER
    parts = (7, 8)

    preset: str = "pearl"

    def fallen(self, motion: Motion) -> NDArray[np.bool_]:
        """Whether it is too low, too high, or leans too far."""
        height, lean = motion.qpos[:, 1], motion.qpos[:, 2]
        return ~((height > 0.8) & (height < 2.0) & (np.abs(lean) < 1.0))


@dataclass(frozen=True)
class HopperRandomParams(RandomParams):
    """Hoppers with changed dynamics; over unless z > .7, it leans less than .2 rad, and all is below 100."""

    name: ClassVar[str] = "metarl/HopperRandomParams-v0"
    presets: ClassVar[tuple[str, ...]] = ("pearl",)
    robot = HOPPER
    parts = (4, 5)

    preset: str = "pearl"

    def fallen(self, motion: Motion) -> NDArray[np.bool_]:
        """Whether it is too low, leans too far, or flails."""
        height, lean = motion.qpos[:, 1], motion.qpos[:, 2]
        calm = (np.abs(motion.qpos[:, 2:]) < FASTEST).all(1) & (np.abs(motion.qvel) < FASTEST).all(1)
        return ~(calm & (height > 0.7) & (np.abs(lean) < 0.2))
