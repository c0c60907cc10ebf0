"""2D navigation: a point moves towards a goal it cannot see and must infer from reward.

Sources, one a preset (a preset's deviations from its source are listed with it):

- `maml2017`: Finn et al. 2017 (cbfinn/maml_rl). Goal U[-.5, .5]^2, start 0, reward minus the distance,
  terminated when |dx| < .01 and |dy| < .01, 100 steps.
- `pearl`: Rakelly et al. 2019. Goal and start U[-1, 1]^2, never terminated, 20 steps.
- `varibad`: Zintgraf et al. 2020. Goal on the upper unit semicircle; reward 1 - distance within .2 of
  it and 0 elsewhere; never terminated, 100 steps.
- `promp`: Rothfuss et al. 2019. Goal one of the corners (+-2, +-2), start U[-.2, .2]^2, steps of .2;
  reward is the distance gained in a step that ends in the goal's quadrant and at least .5 (L1) from
  the origin, else 0; never terminated, 100 steps. A finite family: its four tasks are reused. Deviation:
  there a policy acts in tenths of the bound (its actions are divided by 10, then clipped).

Everywhere the action is in units of the bound (1 is the longest step along an axis), clipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from metarl.envs.chart import BLUE, GREEN, PATH, Chart
from metarl.tasks import SPLITS, Array, TaskFamily, Tasks, TaskVectorEnv, Uniform


@dataclass(frozen=True)
class Definition:
    """What a preset fixes. Lengths are in the plane's units."""

    horizon: int
    step_length: float  # longest move along an axis
    start: float  # start U[-start, start]^2
    ood_radius: tuple[float, float]  # goals of the ood split: farther than any trained on
    terminates: bool = False


DEFINITIONS = {
    "maml2017": Definition(horizon=100, step_length=0.1, start=0.0, ood_radius=(0.75, 1.0), terminates=True),
    "pearl": Definition(horizon=20, step_length=0.1, start=1.0, ood_radius=(1.5, 2.0)),
    "varibad": Definition(horizon=100, step_length=0.1, start=0.0, ood_radius=(1.2, 1.5)),
    "promp": Definition(horizon=100, step_length=0.2, start=0.2, ood_radius=(3.0, 4.0)),
}
ARRIVED = 0.01  # maml2017 ends when both coordinates are this close
SPARSE_RADIUS = 0.2  # varibad pays within this distance of the goal
QUIET_ZONE = 0.5  # promp pays nothing within this L1 distance of the origin


@dataclass(frozen=True)
class Navigation2D(TaskFamily):
    """Goal-varying navigation in the plane; a task is `{"goal": (2,)}`. The observation is the position."""

    name: ClassVar[str] = "metarl/Navigation2D-v0"
    presets: ClassVar[tuple[str, ...]] = tuple(DEFINITIONS)

    preset: str = "maml2017"

    @property
    def definition(self) -> Definition:
        """What this preset fixes."""
        return DEFINITIONS[self.preset]

    @property
    def horizon(self) -> int:
        """Steps an episode: 100, or 20 for `pearl`."""
        return self.definition.horizon

    @property
    def observation_space(self) -> Box:
        """The position `(2,)`."""
        return Box(-np.inf, np.inf, (2,), np.float64)

    @property
    def action_space(self) -> Box:
        """The move `(2,)`, in units of the longest one."""
        return Box(-1.0, 1.0, (2,), np.float32)

    @property
    def splits(self) -> tuple[str, ...]:
        """All four; `promp` has no validation tasks apart from its four corners."""
        return SPLITS

    @property
    def unseen(self) -> bool:
        """False for the four corners of `promp`."""
        return self.preset != "promp"

    def finite(self, split: str) -> Tasks | None:
        """The four corners of `promp`, except for `ood`, which is farther out."""
        if self.unseen or split == "ood":
            return None
        return Tasks({"goal": [(x, y) for x in (-2.0, 2.0) for y in (-2.0, 2.0)]}, split=split)

    @property
    def bounds(self) -> Mapping[str, tuple[Any, Any]]:
        """A square around the farthest goals of ood."""
        farthest = self.definition.ood_radius[1]
        return {"goal": (-farthest, farthest)}

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Draw n goals `(n, 2)`."""
        u = uniform((n, 2))
        low, high = self.definition.ood_radius
        radius = low + (high - low) * u[:, :1]
        if self.preset == "promp":
            corner = np.where(u < 0.5, -1.0, 1.0)
            distance = 2.0 if split != "ood" else low + (high - low) * uniform((n, 1))
            return Tasks({"goal": corner * distance})
        if self.preset == "varibad":
            angle = np.pi * u[:, 1:]
            radius = radius if split == "ood" else np.ones_like(radius)
            return Tasks({"goal": radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)})
        if split == "ood":
            angle = 2 * np.pi * u[:, 1:]
            return Tasks({"goal": radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)})
        half = 0.5 if self.preset == "maml2017" else 1.0
        return Tasks({"goal": half * (2 * u - 1)})

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> NavigationVectorEnv:
        """All tasks x replicas, stepped in NumPy; `threads` has nothing to speed up here."""
        return NavigationVectorEnv(self, tasks, replicas)

    def optimal_policy(self, tasks: Tasks) -> Callable[[Array], Array] | None:
        """Full speed towards the goal along each axis; None for `promp`, whose reward can be gamed.

        The reachable set after t steps is a box, and this controller is at its point nearest to the
        goal at every t, so no policy has a higher return.
        """
        if self.preset == "promp":
            return None
        goal, length = tasks.arrays["goal"][:, None], self.definition.step_length
        return lambda obs: np.clip((goal - obs) / length, -1.0, 1.0)


def reward_terms(
    preset: str, before: NDArray[np.float64], after: NDArray[np.float64], goal: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The reward's terms for moves `before` -> `after` `(..., 2)` towards `goal` `(..., 2)`, each `(...)`."""
    gap = _length(after - goal)
    if preset == "varibad":
        return {"reward_goal": np.where(gap <= SPARSE_RADIUS, 1.0 - gap, 0.0)}
    if preset == "promp":
        paid = (after * goal >= 0).all(-1) & (np.abs(after).sum(-1) >= QUIET_ZONE)
        return {"reward_progress": np.where(paid, _length(before - goal) - gap, 0.0)}
    return {"reward_distance": -gap}


def _length(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = vector[..., 0], vector[..., 1]
    length: NDArray[np.float64] = np.sqrt(x * x + y * y)
    return length


class NavigationVectorEnv(TaskVectorEnv):
    """N points stepped at once."""

    def __init__(self, family: Navigation2D, tasks: Tasks, replicas: int) -> None:
        super().__init__(family, tasks, replicas)
        self.definition = family.definition
        self.position = np.zeros((self.num_envs, 2))
        self._path: deque[NDArray[np.float64]] = deque(maxlen=family.horizon + 1)

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        start = np.zeros((self.num_envs, 2))
        if self.definition.start:
            start = self.definition.start * (2 * self._noise(np.random.Generator.random, (2,), mask) - 1)
        self.position = np.where(mask[:, None], start, self.position)
        self._path.append(self.position)
        return self.position

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        before, goal = self.position, self.task["goal"]
        after = before + self.definition.step_length * np.clip(actions, -1.0, 1.0)
        self.position = after
        self._path.append(after)
        terminated = np.zeros(self.num_envs, dtype=bool)
        if self.definition.terminates:
            near = np.abs(after - goal) < ARRIVED
            terminated = near[:, 0] & near[:, 1]
        return after, reward_terms(self.family.preset, before, after, goal), terminated

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """The plane from above with its axes: the goal in green, the path, the point in blue.

        A circle is where `varibad` pays. The axes reach beyond goal and starts, and farther, in leaps, once the path
        does.
        """
        goal, position = self.task["goal"][index], self.position[index]
        path = [step[index] for step in list(self._path)[-int(self.elapsed[index]) - 1 :]]
        pays = SPARSE_RADIUS if self.family.preset == "varibad" else 0.0
        half = 1.2 * max(0.5, float(np.abs(goal).max()) + pays, self.definition.start)
        while half < 1.05 * np.abs(path).max(initial=0.0):
            half *= 1.5
        chart = Chart((-half, half), (-half, half))
        chart.axes("x", "y")
        chart.line(path, PATH)
        chart.circle(goal, pays, GREEN)
        chart.dot(goal, 7, GREEN)
        chart.label(goal, "goal", GREEN)
        chart.dot(position, 5, BLUE)
        chart.key(
            [
                ("goal", f"{goal[0]:+.2f}, {goal[1]:+.2f}", GREEN),
                ("point", f"{position[0]:+.2f}, {position[1]:+.2f}", BLUE),
                ("distance", f"{float(_length(position - goal)):.2f}", ""),
            ]
        )
        return chart.picture()
