"""Half-cheetahs that must run at a speed, or in a direction, they have to find out.

Sources, one a preset. All run here on Gymnasium's HalfCheetah-v5: its model, 5 x .01 s a step, its
start noise, its 17 observations (coordinates without x, velocities).

- `maml2017`: Finn et al. 2017 (cbfinn/maml_rl). Speeds U[0, 2], 200 steps. Deviations from it: rllab's
  physics (frame skip 1 of .01 s, so 200 steps were 2 s and not 10), rllab's start noise (normal, SD .01 and
  .1), the velocity of the robot's centre of mass, and 20 observations (with the place of that).
- `promp`: Rothfuss et al. 2019 (jonasrothfuss/ProMP). Speeds U[0, 3], 100 steps (its scripts' default).
  Deviation: there a policy acts in tenths of the bound (its actions are divided by 10, then clipped).
- `pearl`: Rakelly et al. 2019 (katerakelly/oyster). Speeds U[0, 3], 200 steps. Deviation: 20 observations
  (with the torso's position).
- `varibad`: Zintgraf et al. 2020 (lmzintgraf/varibad). As `pearl`, same deviation.

The reward is minus the distance to the wanted speed (or the velocity in the wanted direction), less
.05 times the squared action. Episodes never end early.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl.envs.directions import ForwardBackFamily
from metarl.envs.mujoco.engine import Motion, MujocoFamily
from metarl.envs.mujoco.robots import HALF_CHEETAH
from metarl.tasks import Array, Task, Tasks, Uniform

CONTROL_COST = 0.05  # per squared unit of action
HORIZON = {"maml2017": 200, "promp": 100, "pearl": 200, "varibad": 200}  # steps
FASTEST = {"maml2017": 2.0, "promp": 3.0, "pearl": 3.0, "varibad": 3.0}  # m/s, of the training speeds
OOD_MARGIN = 1.0  # m/s: ood speeds are up to this much faster than any trained on


@dataclass(frozen=True)
class HalfCheetahVelocity(MujocoFamily):
    """A task is `{"velocity": ()}`, the wanted speed in m/s; ood: faster than any trained on."""

    name: ClassVar[str] = "metarl/HalfCheetahVelocity-v0"
    presets: ClassVar[tuple[str, ...]] = tuple(FASTEST)
    robot = HALF_CHEETAH

    preset: str = "maml2017"

    @property
    def horizon(self) -> int:
        """Steps an episode: 200, or 100 for `promp`."""
        return HORIZON[self.preset]

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """From standing to the fastest of ood."""
        return {"velocity": (0.0, FASTEST[self.preset] + OOD_MARGIN)}

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Speeds `(n,)`."""
        fastest = FASTEST[self.preset]
        low, width = (fastest, OOD_MARGIN) if split == "ood" else (0.0, fastest)
        return Tasks({"velocity": low + width * uniform((n,))})

    def terms(self, task: Mapping[str, Array], motion: Motion) -> dict[str, NDArray[np.float64]]:
        """Minus |v - v*|, and the control cost."""
        return {
            "reward_velocity": -np.abs(motion.velocity[:, 0] - task["velocity"]),
            "reward_ctrl": -CONTROL_COST * np.square(motion.action).sum(1),
        }

    def caption(self, task: Task) -> str:
        """The wanted speed."""
        return f"wanted {task['velocity']:+.2f} m/s"

    def heading(self, task: Task) -> NDArray[np.float64]:
        """The wanted speed along x."""
        return np.array([task["velocity"], 0.0])


@dataclass(frozen=True)
class HalfCheetahDirection(ForwardBackFamily):
    """A task is `{"direction": ()}`, +1 forwards or -1 backwards. Two tasks: none is unseen."""

    name: ClassVar[str] = "metarl/HalfCheetahDirection-v0"
    presets: ClassVar[tuple[str, ...]] = tuple(HORIZON)
    robot = HALF_CHEETAH

    preset: str = "maml2017"

    @property
    def horizon(self) -> int:
        """Steps an episode: 200, or 100 for `promp`."""
        return HORIZON[self.preset]

    def terms(self, task: Mapping[str, Array], motion: Motion) -> dict[str, NDArray[np.float64]]:
        """The velocity in the wanted direction, and the control cost."""
        return {
            "reward_forward": task["direction"] * motion.velocity[:, 0],
            "reward_ctrl": -CONTROL_COST * np.square(motion.action).sum(1),
        }
