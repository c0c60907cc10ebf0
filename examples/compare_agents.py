"""Compare agents on the same unseen tasks: two seeds of MAML-TRPO, random behaviour and the optimum.

python examples/compare_agents.py --iterations 25
"""

import argparse
from pathlib import Path

import metarl

options = argparse.ArgumentParser()
options.add_argument("--out", type=Path, default=Path("runs/example-compare"))
options.add_argument("--iterations", type=int, default=25)
options.add_argument("--tasks", type=int, default=20)
given = options.parse_args()

family = metarl.make_family("metarl/Navigation2D-v0")
size = {"iterations": given.iterations, "tasks": given.tasks, "episodes": given.tasks}
agents = [metarl.train("maml-trpo", family, out=given.out / f"seed-{seed}", seed=seed, **size) for seed in (0, 1)]
agents += [metarl.make_agent(name, family) for name in ("random", "oracle")]
curves = [metarl.measure(agent, tasks=given.tasks, episodes=given.tasks) for agent in agents]

compared = metarl.compare(curves)  # the seeds are one curve
for entry in compared.entries:
    low, high = entry.difference.low, entry.difference.high
    print(f"{entry.label}: {entry.curve.mean[-1]:.1f}; against {compared.labels[0]}: {low:.1f} to {high:.1f}")
metarl.plot_curves(compared.curves, given.out / "curves.png")
