"""Grid navigation: find the goal cell by walking, remember it, and walk straight there the next time.

`varibad` (Zintgraf et al. 2020): a 5x5 grid, start in the corner (0, 0); the goal is any cell but the start
and its three neighbours, and is not seen. Five actions: stay, up, right, down, left; a wall stops the move.
Reward +1 for every step that ends on the goal, -.1 for every other; 15 steps an episode, 4 episodes a trial,
never terminated. The observation is the cell (x, y).

The goals are a finite set (21 on the default grid), reused by all splits; `ood` goals are the three
neighbours of the start, which the others leave out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from metarl.envs.chart import BLUE, GREEN, PATH, SQUARE, Chart
from metarl.tasks import Array, TaskFamily, Tasks, TaskVectorEnv, Uniform

MOVES = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)], dtype=np.float64)  # stay, up, right, down, left
STAY, UP, RIGHT, DOWN, LEFT = range(5)
ON_GOAL, ELSEWHERE = 1.0, -0.1
MOST_CELLS, MOST_STEPS = 300, 1_000_000  # a side, whose goals are listed; and of a trial


@dataclass(frozen=True)
class GridNavigation(TaskFamily):
    """A task is `{"goal": (2,)}`, a cell (x, y).

    Attributes:
        cells: the side of the grid, 3 to 300.
        steps: the length of an episode.
        episodes: the episodes of a trial.
    """

    name: ClassVar[str] = "metarl/GridNavigation-v0"
    presets: ClassVar[tuple[str, ...]] = ("varibad",)

    preset: str = "varibad"
    cells: int = 5
    steps: int = 15
    episodes: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cells < 3 or min(self.steps, self.episodes) < 1:
            raise ValueError(f"{self.name} needs cells >= 3 and steps, episodes >= 1, got {self.options()}")
        if self.cells > MOST_CELLS or self.steps * self.episodes > MOST_STEPS:
            raise ValueError(
                f"{self.name} has at most {MOST_CELLS} cells a side and {MOST_STEPS:,} steps in all episodes, "
                f"got {self.options()}"
            )

    @property
    def horizon(self) -> int:
        """The steps of an episode."""
        return self.steps

    @property
    def observation_space(self) -> Box:
        """The cell (x, y) `(2,)`."""
        return Box(0.0, self.cells - 1.0, (2,), np.float64)

    @property
    def action_space(self) -> Discrete:
        """Stay, up, right, down, left."""
        return Discrete(len(MOVES))

    @property
    def unseen(self) -> bool:
        """False: there are few goals, and every split but `ood` has them all."""
        return False

    def goals(self, split: str) -> NDArray[np.float64]:
        """Every goal of a split, `(G, 2)`."""
        cells = np.array([(x, y) for x in range(self.cells) for y in range(self.cells)], dtype=np.float64)
        near = cells.max(-1) <= 1
        chosen: NDArray[np.float64] = cells[near][1:] if split == "ood" else cells[~near]
        return chosen

    def finite(self, split: str) -> Tasks:
        """Every goal of the split."""
        return Tasks({"goal": self.goals(split)}, split=split)

    def check_tasks(self, tasks: Tasks) -> None:
        """As of every family; and a goal is any cell but the start."""
        super().check_tasks(tasks)
        self._check_listed(tasks)

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Draw n goals, all of the split's equally likely."""
        goals = self.goals(split)
        return Tasks({"goal": goals[(uniform((n,)) * len(goals)).astype(np.int64)]})

    def make_vec(self, tasks: Tasks, replicas: int = 1, *, threads: int = 1) -> GridVectorEnv:
        """All tasks x replicas, stepped in NumPy; `threads` has nothing to speed up here."""
        return GridVectorEnv(self, tasks, replicas)

    def optimal_policy(self, tasks: Tasks) -> Callable[[Array], Array] | None:
        """Straight to the goal and stay there: it collects -.1 on the way, for as few steps as can be."""
        goal = tasks.arrays["goal"][:, None]

        def act(obs: Array) -> Array:
            x, y = np.moveaxis(goal - obs, -1, 0)
            sideways = np.where(x > 0, RIGHT, np.where(x < 0, LEFT, STAY))
            return np.where(y > 0, UP, np.where(y < 0, DOWN, sideways))

        return act


class GridVectorEnv(TaskVectorEnv):
    """N walkers stepped at once."""

    family: GridNavigation

    def __init__(self, family: GridNavigation, tasks: Tasks, replicas: int) -> None:
        super().__init__(family, tasks, replicas)
        self.cell = np.zeros((self.num_envs, 2))

    def _start(self, mask: NDArray[np.bool_]) -> Array:
        self.cell = np.where(mask[:, None], 0.0, self.cell)
        return self.cell.copy()

    def _advance(self, actions: Array) -> tuple[Array, dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        self.cell = np.clip(self.cell + MOVES[actions], 0, self.family.cells - 1)
        rewards = np.where((self.cell == self.task["goal"]).all(-1), ON_GOAL, ELSEWHERE)
        return self.cell.copy(), {"reward_goal": rewards}, np.zeros(self.num_envs, dtype=bool)

    def render_frame(self, index: int) -> NDArray[np.uint8]:
        """The grid with its axes, (0, 0) at the bottom left: the goal's cell in green, the walker in blue."""
        cells, goal, cell = self.family.cells, self.task["goal"][index], self.cell[index]
        ends = (-0.5, cells - 0.5)
        chart = Chart(ends, ends)
        chart.bar(goal - 0.5, goal + 0.5, GREEN)
        chart.axes("x", "y", grid=False, whole=True)
        for line in range(1, cells):
            chart.line([(line - 0.5, ends[0]), (line - 0.5, ends[1])], PATH, 0.5)
            chart.line([(ends[0], line - 0.5), (ends[1], line - 0.5)], PATH, 0.5)
        chart.dot(cell, 0.3 * (SQUARE[2] - SQUARE[0]) / cells, BLUE, "white")
        chart.key(
            [
                ("goal", f"{goal[0]:g}, {goal[1]:g}", GREEN),
                ("walker", f"{cell[0]:g}, {cell[1]:g}", BLUE),
                ("distance", f"{np.abs(goal - cell).sum():g} moves", ""),
            ]
        )
        return chart.picture()
