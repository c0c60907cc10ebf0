"""A family over an environment of the user's own, with an action space of its own: heating between 0 and 3."""

from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from metarl import GymFamily, Tasks


class Room(gymnasium.Env):
    """Keep it at 0 degrees, losing heat at a rate that cannot be seen."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's declaration
    observation_space = Box(-50.0, 50.0, (1,), np.float32)
    action_space = Box(0.0, 3.0, (1,), np.float32)

    def __init__(self, loss: float, render_mode: str | None = None) -> None:
        self.loss, self.render_mode = loss, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.degrees = self.np_random.uniform(-1.0, 1.0)
        return np.float32([self.degrees]), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.degrees += float(action[0]) - self.loss
        return np.float32([self.degrees]), -abs(self.degrees), abs(self.degrees) > 20, False, {}

    def render(self):
        picture = np.full((64, 64, 3), 255, np.uint8)
        picture[: int(np.clip(32 - self.degrees, 0, 63)), :32] = (200, 60, 40)
        return picture


@dataclass(frozen=True)
class Rooms(GymFamily):
    """Rooms that lose heat at different rates; ood: worse than any trained on."""

    name = "mine/Rooms-v0"
    presets = ("mine",)
    horizon = 10
    preset: str = "mine"

    def draw(self, n, uniform, split):
        low, high = (2.0, 2.5) if split == "ood" else (0.5, 2.0)
        return Tasks({"loss": low + (high - low) * uniform((n,))})

    def build(self, task):
        return Room(float(task["loss"]), render_mode="rgb_array")
