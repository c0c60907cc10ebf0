"""A task family of your own: pendulums of unknown gravity, on which any agent trains and adapts.

python examples/own_family.py --iterations 50
"""

import argparse
from dataclasses import dataclass

import gymnasium

import metarl


@dataclass(frozen=True)
class Pendulums(metarl.GymFamily):
    """Ood: heavier than any trained on."""

    name = "mine/Pendulums-v0"
    presets = ("mine",)
    horizon = 100
    preset: str = "mine"

    def draw(self, n, uniform, split):
        low, high = (12.0, 15.0) if split == "ood" else (5.0, 12.0)
        return metarl.Tasks({"gravity": low + (high - low) * uniform((n,))})

    def build(self, task):
        return gymnasium.make("Pendulum-v1", g=float(task["gravity"]), render_mode="rgb_array")


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--out", default="runs/example-family")
    options.add_argument("--iterations", type=int, default=50)
    options.add_argument("--tasks", type=int, default=10)
    given = options.parse_args()
    size = {"iterations": given.iterations, "tasks": given.tasks, "episodes": given.tasks}
    agent = metarl.train("maml-trpo", Pendulums(), out=given.out, **size)
    for split in ("test", "ood"):
        print(split, metarl.measure(agent, split=split, tasks=given.tasks, steps=1, episodes=given.tasks).mean)
