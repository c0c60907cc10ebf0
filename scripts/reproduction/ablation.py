"""What helps RL², one change at a time: variants of one training at equal steps, several seeds each.

A run is runs/TABLE-VARIANT-SEED; one that exists is resumed, one that results/TABLE/runs/ holds is continued from
there, and one that is judged is left alone. The frozen test tasks are the same for all. Nothing in the README is typed
in by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from metarl.agents import rl2
from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.evaluation.storage import dump_json
from metarl.learning.contract import Budget
from metarl.reporting.figures.training import training_figure
from metarl.runs.run import Run
from reproduction.description import DESCRIPTIONS, RESULTS, ROOT
from reproduction.known_answers import interval
from reproduction.markdown import markdown, provenance
from reproduction.training import keep, progress, train

matplotlib.use("Agg")
VALIDATION = "return/validation_trial"


def words_of(name: str, variant: str) -> list[str]:
    """How a variant is trained, as the command line takes it."""
    table = DESCRIPTIONS[name]
    return ["rl2", "--family", table["family"], *table["common"].split(), *table["variants"][variant].split()]


def judge(name: str, run: Run) -> dict[str, Any]:
    """The mean return of a trial on the table's test tasks and on as many of the `ood` split, with its interval."""
    family, returns = make_family(DESCRIPTIONS[name]["family"]), {}
    agent = rl2.load(run, family)
    for split, what in (("test", "return"), ("ood", "ood return")):
        tasks = family.fixed(split, DESCRIPTIONS[name]["tasks"])
        returns[what] = interval(agent.curve(tasks, Budget(0, 1), 0).values.sum(1))
    return returns


def make(name: str, variant: str, seed: int, minutes: float | None) -> None:
    """Train a variant with a seed, judge it, write its JSON; what is judged is left alone."""
    table, out = DESCRIPTIONS[name], RESULTS / name
    file, target = out / f"{variant}-{seed}.json", Path("runs") / f"{name}-{variant}-{seed}"
    if file.exists() and (document := json.loads(file.read_text()))["iterations"] == document["planned"]:
        return
    words = [*words_of(name, variant), "--seed", str(seed), "--out", str(target)]
    kept = out / "runs" / f"{variant}-{seed}"
    command = train(target, kept, words, minutes)
    keep(ROOT / target, kept)
    run = Run.open(ROOT / target, rl2.Config)
    done, planned, spent = progress(ROOT / target)
    steps = run.config.trials * Trials(family=make_family(table["family"])).horizon
    document = {
        "command": command,
        "iterations": done,
        "planned": planned,
        "steps": done * steps,
        "minutes": round(spent, 1),
        **judge(name, run),
        "validation": [line for line in run.metrics() if VALIDATION in line],
    }
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(dump_json(document))
    print(f"{variant}, seed {seed}: {document['return'][0]:.2f} after {document['steps']:,} steps", flush=True)


def judged(name: str) -> dict[str, list[dict[str, Any]]]:
    """The documents of every variant that has some, a seed each."""
    table = DESCRIPTIONS[name]
    files = {v: [RESULTS / name / f"{v}-{seed}.json" for seed in range(table["seeds"])] for v in table["variants"]}
    read = {v: [json.loads(path.read_text()) for path in paths if path.exists()] for v, paths in files.items()}
    return {variant: documents for variant, documents in read.items() if documents}


def write_readme(name: str) -> None:
    """The table and the figure of all variants that are judged."""
    table, variants = DESCRIPTIONS[name], judged(name)
    if not variants:
        return
    rows = []
    for variant, documents in variants.items():
        returns, ood = ([document[what][0] for document in documents] for what in ("return", "ood return"))
        spread = f"{min(returns):.1f} to {max(returns):.1f}" if len(returns) > 1 else ""
        steps, minutes = ({document[what] for document in documents} for what in ("steps", "minutes"))
        million = ", ".join(f"{each / 1e6:.2f}" for each in sorted(steps))
        how, mean, other = f"`{table['variants'][variant]}`", f"{np.mean(returns):.1f}", f"{np.mean(ood):.1f}"
        rows.append((variant, how, mean, spread, other, f"{len(returns)}", million, f"{max(minutes):.1f}"))
    logs = {variant: [document["validation"] for document in documents] for variant, documents in variants.items()}
    figure = training_figure(logs, [VALIDATION], large=True)
    figure.savefig(RESULTS / name / "validation.png", dpi=120, metadata={"Software": None})
    head = (
        "variant",
        "how",
        "mean return of a trial",
        "over seeds",
        "`ood`",
        "seeds",
        "million steps",
        "minutes, at most",
    )
    lines = [f"# {name}", "", table["about"].strip(), "", *markdown(head, rows)]
    lines += ["![Validation returns by iteration](validation.png)", "", provenance(), ""]
    lines += [f"Made by `python scripts/reproduce.py {name}`, that is:", "", "```"]
    lines += [document["command"] for documents in variants.values() for document in documents]
    (RESULTS / name / "README.md").write_text("\n".join([*lines, "```"]) + "\n")


def reproduce(name: str, seeds: int | None, only: Sequence[str], minutes: float | None) -> None:
    """Train and judge the variants named, or all; the first seed of all before the second of any."""
    table = DESCRIPTIONS[name]
    for seed in range(table["seeds"] if seeds is None else seeds):
        for variant in only or table["variants"]:
            make(name, variant, seed, minutes)
            write_readme(name)
