"""A humanoid that must walk in a direction it has to find out.

Sources, one a preset. All run here on Gymnasium's Humanoid-v5: its model, 5 x .003 s a step, its
start noise, its weights (1.25 velocity, .1 control, 5 survival) and its 270 observations without contact
forces (coordinates without x and y, velocities, body inertias and velocities, actuator forces).

- `pearl`: Rakelly et al. 2019 (katerakelly/oyster). Any angle; over unless 1 <= z <= 2; 200 steps.
- `promp`: Rothfuss et al. 2019 (jonasrothfuss/ProMP). The same, 100 steps (its scripts' default). Deviation:
  there a policy acts in tenths of the bound (its actions are divided by 10, then clipped).
- `varibad`: Zintgraf et al. 2020 (lmzintgraf/varibad). The same as `pearl`.

Deviations from all three: the velocity is the torso's, not the centre of mass's; the cost of
impacts is left out; the observation leaves out contact forces and the entries that are always zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl.envs.directions import AngleFamily, along
from metarl.envs.mujoco.engine import Motion
from metarl.envs.mujoco.robots import HUMANOID
from metarl.tasks import Array

FORWARD = 1.25  # reward per m/s
CONTROL_COST = 0.1  # per squared unit of the model's control, which goes to +-.4
SURVIVE = 5.0  # reward a step
HEIGHT = (1.0, 2.0)  # m, where the torso must stay
HORIZON = {"pearl": 200, "promp": 100, "varibad": 200}  # steps


@dataclass(frozen=True)
class HumanoidDirection2D(AngleFamily):
    """A task is `{"angle": ()}`, the wanted direction in radians; see `AngleFamily` for `held_out`."""

    name: ClassVar[str] = "metarl/HumanoidDirection2D-v0"
    presets: ClassVar[tuple[str, ...]] = tuple(HORIZON)
    robot = HUMANOID

    preset: str = "pearl"

    @property
    def horizon(self) -> int:
        """Steps an episode: 200, or 100 for `promp`."""
        return HORIZON[self.preset]

    def terms(self, task: Mapping[str, Array], motion: Motion) -> dict[str, NDArray[np.float64]]:
        """The velocity in the wanted direction, the control cost, and the reward for survival."""
        return {
            "reward_forward": FORWARD * along(task, motion.velocity),
            "reward_ctrl": -CONTROL_COST * np.square(motion.control).sum(1),
            "reward_survive": np.full(len(motion.qpos), SURVIVE),
        }

    def fallen(self, motion: Motion) -> NDArray[np.bool_]:
        """Whether the torso left its range of heights."""
        height = motion.qpos[:, 2]
        return ~((HEIGHT[0] <= height) & (height <= HEIGHT[1]))
