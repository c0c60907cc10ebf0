"""A policy network of your own for MAML-TRPO: any module without dropout, by its class, and judged beside ours.

python examples/own_policy.py --iterations 25
"""

import argparse
from pathlib import Path

from torch import Tensor, nn

import metarl


class Shortcut(nn.Module):
    """A linear policy beside a small network, which starts from a standstill."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.straight = nn.Linear(inputs, outputs)
        self.around = nn.Sequential(nn.Linear(inputs, 32), nn.SiLU(), nn.LayerNorm(32), nn.Linear(32, outputs))
        nn.init.zeros_(self.around[-1].weight)

    def forward(self, obs: Tensor) -> Tensor:
        return self.straight(obs) + self.around(obs)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, default=Path("runs/example-policy"))
    options.add_argument("--iterations", type=int, default=25)
    options.add_argument("--tasks", type=int, default=20)
    given = options.parse_args()
    size = {"iterations": given.iterations, "tasks": given.tasks, "episodes": given.tasks}
    for name, network in {"ours": {}, "mine": {"network": Shortcut}}.items():
        agent = metarl.train("maml-trpo", "metarl/Navigation2D-v0", out=given.out / name, **network, **size)
        print(name, metarl.measure(agent, tasks=given.tasks, episodes=given.tasks).mean)
