"""Reproduce a committed table by name: train, evaluate on frozen test tasks, write results/TABLE/.

    python scripts/reproduce.py navigation --seeds 3
    python scripts/reproduce.py sinusoid --seeds 3

Runs live under runs/TABLE-SEED and are resumed if they exist, so an interrupted reproduction goes on.
The README of each table is written from what was measured; nothing in it is typed in by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """How a table is made.

    Attributes:
        agent: the learner's name.
        source: the words that name the family or data set, and options that differ from the defaults.
        iterations: meta-iterations a seed.
        evaluate: the words after `metarl evaluate RUN`.
        describe: from the merged scores `(S, T, K+1)` to the table's head and rows.
        about: a paragraph for the README.
    """

    agent: str
    source: tuple[str, ...]
    iterations: int
    evaluate: tuple[str, ...]
    describe: Callable[[np.ndarray], tuple[tuple[str, ...], Rows]]
    about: str


def navigation(scores: np.ndarray) -> tuple[tuple[str, ...], Rows]:
    """Beside the authors' figures, standing still and the optimum, measured on the same goals."""
    from metarl.agents.baselines import Oracle, StandStill
    from metarl.envs import make_family
    from metarl.learner import Budget

    family = make_family("metarl/Navigation2D-v0")
    tasks = family.fixed("test", scores.shape[1])

    def cells(values: np.ndarray) -> list[str]:
        return [f"{value:.2f}" for value in values]

    head = ("mean return on unseen goals", "0 steps", "1 step", "2 steps", "3 steps")
    rows = [(f"seed {i}, 1,000 goals", *cells(seed.mean(0))) for i, seed in enumerate(scores)]
    rows.append(("**all seeds, 1,000 goals**", *cells(scores.mean((0, 1)))))
    rows.append(("all seeds, the first 40 goals", *cells(scores[:, :40].mean((0, 1)))))
    for name, agent in (("standing still", StandStill(family)), ("optimum", Oracle(family))):
        for n in (1000, 40):
            value = agent.curve(tasks[:n], Budget(0, 1), 0).values.mean()
            rows.append((f"{name}, {n:,} goals", f"{value:.2f}", "", "", ""))
    rows.append(("bar", "", "-11.7", "-4.0", "-3.7"))
    rows.append(("Finn et al. 2017, 40 goals (authors' result files)", "-40.41", "-11.68", "-3.33", "-3.23"))
    return head, rows


def sinusoid(scores: np.ndarray) -> tuple[tuple[str, ...], Rows]:
    """Error after 0, 1, 5 and 10 steps."""
    shown = (0, 1, 5, 10)
    head = ("mean squared error on 1,000 unseen waves", *(f"{k} steps" for k in shown))
    rows = [(f"seed {i}", *(f"{seed[:, k].mean():.3f}" for k in shown)) for i, seed in enumerate(scores)]
    rows.append(("**all seeds**", *(f"{scores[..., k].mean():.3f}" for k in shown)))
    rows.append(("bar", "", "0.4", "", ""))
    return head, rows


TABLES = {
    "navigation": Table(
        "maml-trpo",
        ("--family", "metarl/Navigation2D-v0", "--tasks", "40"),
        40,
        ("--tasks", "1000", "--steps", "3"),
        navigation,
        "MAML-TRPO on 2D navigation (preset `maml2017`), the learner's default config with 40 tasks a meta-batch, last "
        "iterate, judged by the authors' protocol: a policy-gradient step of alpha, then of alpha / 2, 40 fresh "
        "episodes a step and as many to judge each policy. The config was chosen on validation goals. The test goals "
        "were looked at twice: a first version with `--min-std 0.5 --iterations 50` scored -38.59 / -11.03 / -4.18 / "
        "-4.02 on them; the floor and the iterations were then chosen again, on 1,000 validation goals only.",
    ),
    "sinusoid": Table(
        "maml",
        ("--dataset", "sinusoid", "--outer-step-size", "0.003"),
        15_000,
        ("--tasks", "1000", "--steps", "10"),
        sinusoid,
        "Supervised MAML on sinusoid regression, 10 support points, last iterate; the outer step size was "
        "chosen on validation waves; "
        "error on 10 fresh query points of 1,000 frozen test waves.",
    ),
}


def metarl(*words: str) -> str:
    """Run the command line and return the command, as typed; stop where it fails."""
    executable = Path(sys.executable).with_name("metarl")
    subprocess.run([str(executable), *words], cwd=ROOT, check=True)
    return "metarl " + " ".join(words)


def reproduce(name: str, seeds: int) -> None:
    """Train `seeds` runs, evaluate them and write results/NAME."""
    table, out = TABLES[name], ROOT / "results" / name
    out.mkdir(parents=True, exist_ok=True)
    commands, seconds, folders = [], [], []
    for seed in range(seeds):
        run = Path("runs") / f"{name}-{seed}"
        words = ["train", table.agent, *table.source, "--out", str(run)]
        words += ["--seed", str(seed), "--iterations", str(table.iterations)]
        resume = ["--resume"] if (ROOT / run / "config.json").exists() else []
        metarl(*words, *resume)
        commands.append("metarl " + " ".join(words))
        commands.append(metarl("evaluate", str(run), *table.evaluate))
        timings = [json.loads(line) for line in (ROOT / run / "timings.jsonl").read_text().splitlines()]
        seconds.append(sum(v for line in timings for n, v in line.items() if n != "iteration"))
        folders.append(str(run))
        shutil.copy(ROOT / run / "curve.json", out / f"curve-{seed}.json")
    picture = str(out.relative_to(ROOT) / "curve.png")
    commands.append(metarl("compare", *folders, "--out", picture, "--json", picture.replace(".png", ".json")))
    shutil.copy(max((ROOT / folders[0] / "checkpoints").glob("*.pt")), out / "checkpoint-0.pt")
    scores = np.concatenate([json.loads((out / f"curve-{s}.json").read_text())["per_task"] for s in range(seeds)])
    write_readme(name, table, scores, commands, seconds)


def write_readme(name: str, table: Table, scores: np.ndarray, commands: list[str], seconds: list[float]) -> None:
    """The table with how it was made."""
    head, rows = table.describe(scores)
    lines = [f"# {name}", "", table.about, "", "|" + "|".join(head) + "|", "|" + "---|" * len(head)]
    lines += ["|" + "|".join(row) + "|" for row in rows]
    head_of_tree = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head_of_tree, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    per_seed = ", ".join(f"{s / 60:.1f}" for s in seconds)
    lines += [
        "",
        f"{table.iterations:,} meta-iterations a seed; training took {per_seed} minutes (a seed each), validation and "
        f"evaluation not counted, on {os.cpu_count()} cores ({platform.processor() or platform.machine()}), "
        f"torch {torch.__version__}, Python {platform.python_version()}, commit {commit}, "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}.",
        "",
        f"Made by `python scripts/reproduce.py {name} --seeds {len(scores)}`, that is:",
        "",
        "```",
        *commands,
        "```",
        "",
        "`curve-SEED.json` hold every task's scores, `curve.json` and `curve.png` the seeds together, "
        "`checkpoint-0.pt` the parameters of seed 0.",
    ]
    (ROOT / "results" / name / "README.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    started = time.perf_counter()
    reproduce(arguments.table, arguments.seeds)
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes in all")


if __name__ == "__main__":
    main()
