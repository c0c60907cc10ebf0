"""A grid of MAML-TRPO's settings on validation tasks: what one inner step does, then short trainings.

    python scripts/grid_maml_trpo.py steps                       minutes: every inner step, before any meta-training
    python scripts/grid_maml_trpo.py trainings --iterations 30   an hour on an idle core; written cells are skipped

A policy-gradient step moves a Gaussian policy by a KL that grows as (step size / deviation^2)^2, most of it noise of a
few episodes. So step sizes a tenth of one another may go as far, and the first table is where to begin: it has the KL
of one step from random initialisations, and what it gains. Trainings are made in runs/grid-maml-trpo/, and go on from
there. Results lie in results/maml-trpo-grid/.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.agents import maml_trpo
from metarl.envs import make_family
from metarl.files import write_atomically
from metarl.learning import policy_gradient
from metarl.learning.contract import Budget
from metarl.meta import inner
from metarl.runs.run import Run
from metarl.sampling.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import TaskFamily

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "maml-trpo-grid"
FAMILIES = {"direction": "metarl/HalfCheetahDirection-v0", "velocity": "metarl/HalfCheetahVelocity-v0"}
TASKS, EPISODES, SEEDS = 4, 20, (0, 1)
STEPS = {0.5: (0.05, 0.1, 0.2, 0.35, 0.7), 1.0: (0.1, 0.4, 0.8, 1.4, 2.8)}  # by deviation; as far in both
LAMBDAS = (0.9, 1.0)
BASE = replace(maml_trpo.DEFAULTS["mujoco"], tasks=10, threads=1, min_std=0.3, init_std=0.5, gae_lambda=0.9)
CELLS: dict[str, dict[str, Any]] = {  # each differs from the first in what it names
    "base": {"inner_step_size": 0.2, "max_kl": 0.05},
    "today's direction": {"inner_step_size": 0.7, "max_kl": 0.02},
    "published": {"inner_step_size": 0.1, "max_kl": 0.01, "init_std": 1.0, "min_std": 1e-6, "gae_lambda": 1.0},
    "smaller step": {"inner_step_size": 0.1, "max_kl": 0.05},
    "trust region .02": {"inner_step_size": 0.2, "max_kl": 0.02},
    "lambda 1": {"inner_step_size": 0.2, "max_kl": 0.05, "gae_lambda": 1.0},
    "deviation 1": {"inner_step_size": 0.8, "max_kl": 0.05, "init_std": 1.0},
    "floor .45": {"inner_step_size": 0.2, "max_kl": 0.05, "min_std": 0.45},
    "half the curvature": {"inner_step_size": 0.2, "max_kl": 0.05, "curvature_fraction": 0.5},
    "a quarter of it": {"inner_step_size": 0.2, "max_kl": 0.05, "curvature_fraction": 0.25},
    "credit by ratio": {"inner_step_size": 0.2, "max_kl": 0.05, "credit": "ratio"},
}


def one_steps(family: TaskFamily) -> list[dict[str, Any]]:
    """One step from random initialisations, by every setting: its KL, and each task's return before and after."""
    tasks, cells = family.fixed("validation", TASKS), []
    n = len(tasks)  # there may be fewer
    env = family.make_vec(tasks, EPISODES)
    for seed, std in itertools.product(SEEDS, STEPS):
        policy, key = replace(BASE, init_std=std).policy(family), Key(seed)("grid")
        params = inner.stack(policy.init(key("init").torch()), n)
        support = rollout(env, policy, params, key("support"))
        before = policy.distribution(params, support.obs)
        for gae_lambda, size in itertools.product(LAMBDAS, STEPS[std]):
            started = time.perf_counter()
            rule = inner.Rule(size, order=1, project=policy.project)
            experience = policy_gradient.prepare(support, BASE.gamma, gae_lambda)
            adapted = inner.step(params, partial(policy_gradient.loss, policy), experience, rule)
            with torch.no_grad():
                kl = experience.mean(before.kl(policy.distribution(adapted, support.obs))).mean()
            query = rollout(env, policy, adapted, key("query"))
            cells.append(
                {
                    "seed": seed,
                    "init_std": std,
                    "gae_lambda": gae_lambda,
                    "inner_step_size": size,
                    "kl": float(kl),
                    "before": support.returns().mean(1).tolist(),
                    "after": query.returns().mean(1).tolist(),
                    "env_steps": n * EPISODES * family.horizon,
                    "seconds": time.perf_counter() - started,
                }
            )
    env.close()
    return cells


def short_training(name: str, family: TaskFamily, title: str, iterations: int) -> dict[str, Any]:
    """A cell trained for a few iterations, and its scores after 0 and 1 steps on validation tasks."""
    config = replace(BASE, iterations=iterations, **CELLS[title])
    folder = ROOT / "runs" / "grid-maml-trpo" / f"{name}-{title.replace(' ', '-')}"
    begin = Run.resume if (folder / "config.json").exists() else Run.create
    run = begin(folder, learner="maml-trpo", config=config, source=family, seed=0)
    maml_trpo.train(config, family, run)
    scores = maml_trpo.load(run, family).curve(family.fixed("validation", 20), Budget(1, EPISODES), 0).values
    lines = run.timings()
    return {
        "cell": title,
        "settings": CELLS[title],
        "iterations": iterations,
        "env_steps": sum(line["episodes/steps"] for line in run.metrics()),
        "sampling_seconds": sum(line["sampling_s"] for line in lines),
        "update_seconds": sum(line["update_s"] for line in lines),
        "tasks": {k: np.asarray(v).tolist() for k, v in family.fixed("validation", 20).arrays.items()},
        "scores": scores.tolist(),
    }


def table(name: str, cells: list[dict[str, Any]]) -> str:
    """The steps of a family in Markdown, means over seeds."""
    lines = [
        f"{name}:",
        "",
        "| deviation | lambda | step size | KL, nats | gain of each validation task |",
        "|---|---|---|---|---|",
    ]
    for std, gae_lambda in itertools.product(STEPS, LAMBDAS):
        for size in STEPS[std]:
            same = [
                cell
                for cell in cells
                if (cell["init_std"], cell["gae_lambda"], cell["inner_step_size"]) == (std, gae_lambda, size)
            ]
            gains = np.mean([np.subtract(cell["after"], cell["before"]) for cell in same], 0)
            kl = np.mean([cell["kl"] for cell in same])
            lines.append(
                f"| {std} | {gae_lambda} | {size} | {kl:.2f} | {', '.join(f'{gain:+.0f}' for gain in gains)} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the part that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("steps", "trainings"))
    parser.add_argument("--family", choices=FAMILIES, nargs="+", default=list(FAMILIES))
    parser.add_argument("--iterations", type=int, default=30, help="of each short training")
    parser.add_argument(
        "--only", nargs="+", choices=CELLS, default=list(CELLS), metavar="CELL", help="of the trainings"
    )
    asked = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{asked.part}.json"
    done: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name in asked.family:
        family = make_family(FAMILIES[name])
        if asked.part == "steps":
            tasks = {k: np.asarray(v).tolist() for k, v in family.fixed("validation", TASKS).arrays.items()}
            done[name] = {"tasks": tasks, "cells": one_steps(family)}
            print(table(f"{name} {tasks}", done[name]["cells"]), flush=True)
            write_atomically(file, (json.dumps(done) + "\n").encode())
            continue
        for title in asked.only:
            trained = done.setdefault(name, [])
            if any((cell["cell"], cell["iterations"]) == (title, asked.iterations) for cell in trained):
                continue
            trained.append(short_training(name, family, title, asked.iterations))
            print(name, title, np.mean(trained[-1]["scores"], 0).round(1).tolist(), flush=True)
            write_atomically(file, (json.dumps(done) + "\n").encode())


if __name__ == "__main__":
    main()
