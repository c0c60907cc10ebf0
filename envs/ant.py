"""Ants that must run at a speed, in a direction, or to a place, and have to find out which.

Sources, one a preset. All run here on Gymnasium's Ant-v5: its model, 5 x .01 s a step, its start
noise, and its 27 observations without contact forces (coordinates without x and y, velocities; the
goal family observes x and y too, 29).

- `maml2017`: Finn et al. 2017 (cbfinn/maml_rl). Control cost .005, survival .05, over unless
  .2 <= z <= 1, 200 steps. Speeds U[0, 3], paid 1 - |v - v*|; directions forwards or backwards; goals
  U[-3, 3]^2, paid 4 - L1 distance. Deviations: rllab's physics (.02 s a step), start pose and start noise,
  velocity and distance of the robot's centre of mass, not of its torso, and 125 observations (with position,
  rotation matrix, contacts).
- `promp`: Rothfuss et al. 2019 (jonasrothfuss/ProMP). Directions (forwards or backwards; any angle): control
  cost .5, survival 1, over unless 0 <= z <= 1. Goals in a disc of 3 m, minus the L1 distance, control cost .1,
  never over. 100 steps (its scripts' default). Deviations: there a policy acts in tenths of the bound (its
  actions are divided by 10, then clipped), and observes contacts.
- `pearl`: Rakelly et al. 2019 (katerakelly/oyster). As `promp`, but over unless .2 <= z <= 1, and 200 steps.
  Deviations: forwards and backwards are an option of its code (`forward_backward`) that its released
  configuration does not set, which therefore draws two random angles; its goal family observes contacts.
- `varibad`: Zintgraf et al. 2020 (lmzintgraf/varibad). As `pearl`. Deviations: its directions mean forwards and
  backwards, but its code takes the cosine and sine of +1 and -1 radians; here they are forwards and backwards.
  Its goal family observes contacts.

Everywhere the contact cost is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl.envs.directions import AngleFamily, ForwardBackFamily, along
from metarl.envs.mujoco.engine import Motion, MujocoFamily
from metarl.envs.mujoco.robots import ANT
from metarl.tasks import Array, Task, Tasks, Uniform


@dataclass(frozen=True)
class Definition:
    """What a preset fixes."""

    horizon: int  # steps
    control: float  # cost per squared unit of action
    survive: float  # reward a step
    height: tuple[float, float] | None  # m, where the torso must stay; None: episodes never end early


RUNNING = {
    "maml2017": Definition(horizon=200, control=0.005, survive=0.05, height=(0.2, 1.0)),
    "promp": Definition(horizon=100, control=0.5, survive=1.0, height=(0.0, 1.0)),
    "pearl": Definition(horizon=200, control=0.5, survive=1.0, height=(0.2, 1.0)),
    "varibad": Definition(horizon=200, control=0.5, survive=1.0, height=(0.2, 1.0)),
}
REACHING = {
    "maml2017": Definition(horizon=200, control=0.005, survive=0.05, height=(0.2, 1.0)),
    "promp": Definition(horizon=100, control=0.1, survive=0.0, height=None),
    "pearl": Definition(horizon=200, control=0.1, survive=0.0, height=None),
    "varibad": Definition(horizon=200, control=0.1, survive=0.0, height=None),
}
FASTEST, OOD_FASTEST = 3.0, 4.0  # m/s
REACH = 3.0  # m, half the side of maml2017's square and the radius of the others' disc
OOD_DISTANCE = {"maml2017": (4.5, 5.5), "promp": (3.5, 4.5), "pearl": (3.5, 4.5), "varibad": (3.5, 4.5)}  # m
HAPPY_SPEED, HAPPY_GOAL = 1.0, 4.0  # maml2017 adds these: "make it happy, not suicidal"


@dataclass(frozen=True)
class AntFamily(MujocoFamily):
    """What the ant's families share."""

    definitions: ClassVar[Mapping[str, Definition]]
    robot = ANT

    @property
    def definition(self) -> Definition:
        """What this preset fixes."""
        return self.definitions[self.preset]

    @property
    def horizon(self) -> int:
        """Steps an episode: 200, or 100 for `promp`."""
        return self.definition.horizon

    def fallen(self, motion: Motion) -> NDArray[np.bool_]:
        """Whether the torso left its range of heights."""
        if self.definition.height is None:
            return np.zeros(len(motion.qpos), dtype=bool)
        low, high = self.definition.height
        height = motion.qpos[:, 2]
        return ~((low <= height) & (height <= high))

    def costs(self, motion: Motion) -> dict[str, NDArray[np.float64]]:
        """The terms every family has: control cost and reward for survival."""
        return {
            "reward_ctrl": -self.definition.control * np.square(motion.action).sum(1),
            "reward_survive": np.full(len(motion.qpos), self.definition.survive),
        }


@dataclass(frozen=True)
class AntVelocity(AntFamily):
    """A task is `{"velocity": ()}`, the wanted speed along x in m/s; ood: faster than any trained on."""

    name: ClassVar[str] = "metarl/AntVelocity-v0"
    presets: ClassVar[tuple[str, ...]] = ("maml2017",)
    definitions = RUNNING

    preset: str = "maml2017"

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """From standing to the fastest of ood."""
        return {"velocity": (0.0, OOD_FASTEST)}

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Speeds `(n,)`."""
        low, high = (FASTEST, OOD_FASTEST) if split == "ood" else (0.0, FASTEST)
        return Tasks({"velocity": low + (high - low) * uniform((n,))})

    def terms(self, task: Mapping[str, Array], motion: Motion) -> dict[str, NDArray[np.float64]]:
        """1 - |v - v*|, and the common terms."""
        return {
            "reward_velocity": HAPPY_SPEED - np.abs(motion.velocity[:, 0] - task["velocity"]),
            **self.costs(motion),
        }

    def caption(self, task: Task) -> str:
        """The wanted speed."""
        return f"wanted {task['velocity']:+.2f} m/s along x"

    def heading(self, task: Task) -> NDArray[np.float64]:
        """The wanted speed along x."""
        return np.array([task["velocity"], 0.0])


@dataclass(frozen=True)
class AntDirection(ForwardBackFamily, AntFamily):
    """A task is `{"direction": ()}`, +1 forwards or -1 backwards. Two tasks: none is unseen."""

    name: ClassVar[str] = "metarl/AntDirection-v0"
    presets: ClassVar[tuple[str, ...]] = tuple(RUNNING)
    definitions = RUNNING

    preset: str = "maml2017"

    def terms(self, task: Mapping[str, Array], motion: Motion) -> dict[str, NDArray[np.float64]]:
        """The velocity in the wanted direction, and the common terms."""
        return {"reward_forward": task["direction"] * motion.velocity[:, 0], **self.costs(motion)}


@dataclass(frozen=True)
class AntDirection2D(AngleFamily, AntFamily):
    """A task is `{"angle": ()}`, the wanted direction in radians; see `AngleFamily` for `held_out`."""

    name: ClassVar[str] = "metarl/AntDirection2D-v0"
    presets: ClassVar[tuple[str, ...]] = ("promp", "pearl")
    definitions = RUNNING

    preset: str = "promp"

    def terms(self, task: Mapping[str, Array], motion: Motion) -> dict[str, NDArray[np.float64]]:
        """The velocity in the wanted direction, and the common terms."""
        return {"reward_forward": along(task, motion.velocity), **self.costs(motion)}


@dataclass(frozen=True)
class AntGoal(AntFamily):
    """A task is `{"goal": (2,)}`, the place to be in m; ood: farther than any trained on."""

    name: ClassVar[str] = "metarl/AntGoal-v0"
    presets: ClassVar[tuple[str, ...]] = tuple(REACHING)
    definitions = REACHING
    robot = replace(ANT, hidden=0)

    preset: str = "maml2017"

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """A square around the farthest goals of ood."""
        farthest = OOD_DISTANCE[self.preset][1]
        return {"goal": (-farthest, farthest)}

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Goals `(n, 2)`."""
        u = uniform((n, 2))
        if self.preset == "maml2017" and split != "ood":
            return Tasks({"goal": REACH * (2 * u - 1)})
        low, high = OOD_DISTANCE[self.preset] if split == "ood" else (0.0, REACH)
        radius = np.sqrt(low**2 + (high**2 - low**2) * u[:, 0])  # uniform in the ring's area
        angle = 2 * np.pi * u[:, 1]
        return Tasks({"goal": np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)})

    def terms(self, task: Mapping[str, Array], motion: Motion) -> dict[str, NDArray[np.float64]]:
        """Minus the L1 distance (plus 4 for `maml2017`), and the common terms."""
        bonus = HAPPY_GOAL if self.preset == "maml2017" else 0.0
        return {
            "reward_goal": bonus - np.abs(motion.qpos[:, :2] - task["goal"]).sum(1),
            **self.costs(motion),
        }

    def caption(self, task: Task) -> str:
        """The wanted place."""
        return "wanted: at {:.2f}, {:.2f} m".format(*task["goal"])

    def place(self, task: Task) -> NDArray[np.float64]:
        """The goal."""
        return np.asarray(task["goal"])
