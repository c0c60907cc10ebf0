"""A sweep over seeds and options by submitit: an array of Slurm jobs, or processes where there is no Slurm.

python examples/sweep_on_slurm.py --out runs/sweep --cluster local
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit  # pip install 'metarl-suite[slurm]'

import metarl


@dataclass
class Training:
    """A job: one seed of one setting, trained and measured."""

    out: Path
    seed: int
    options: dict[str, Any]

    def __call__(self) -> float:
        resume = (self.out / "config.json").exists()  # queued again, or sent again by hand
        family = "metarl/Navigation2D-v0"
        agent = metarl.train("maml-trpo", family, out=self.out, seed=self.seed, resume=resume, **self.options)
        return float(metarl.measure(agent, split="validation", tasks=40, steps=1).mean[-1])

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called when Slurm takes the machine away or the time is over: the job is queued again as it was."""
        return submitit.helpers.DelayedSubmission(self)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default="runs/sweep")
parser.add_argument("--cluster", choices=("slurm", "local"), help="by default Slurm, where there is one")
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--sizes", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="inner step sizes")
parser.add_argument("--iterations", type=int, default=100)
args = parser.parse_args()
executor = submitit.AutoExecutor(args.out / "jobs", cluster=args.cluster)
executor.update_parameters(timeout_min=60, cpus_per_task=1, slurm_array_parallelism=100)
swept = [(size, seed) for size in args.sizes for seed in args.seeds]
with executor.batch():
    jobs = []
    for size, seed in swept:
        options = {"inner_step_size": size, "iterations": args.iterations}
        jobs.append(executor.submit(Training(args.out / f"{size}-{seed}", seed, options)))
for (size, seed), job in zip(swept, jobs, strict=True):
    print(f"inner step size {size}, seed {seed}: mean return {job.result():.2f} after one gradient step")
