"""How agents of one family were trained, beside each other: validation return against steps and minutes of training.

A run is runs/TABLE-NAME-SEED; one that exists is resumed. What it logged is kept under results/TABLE/logs/, from which
`metarl compare --training` makes the figure and the tables; a training whose log is whole is left alone. So an agent is
added by a line of `trainings` in scripts/tables.toml and `python scripts/reproduce.py TABLE --only NAME`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from reproduction.description import DESCRIPTIONS, RESULTS, ROOT
from reproduction.markdown import markdown, provenance
from reproduction.training import metarl, train

MOST_SEEDS = 20  # that --seeds may ask for beyond those of the table
LOGS = ("config.json", "metrics.jsonl", "timings.jsonl")


def words_of(name: str, training: str) -> list[str]:
    """How an agent is trained, as the command line takes it."""
    table = DESCRIPTIONS[name]
    agent, *words = table["trainings"][training].split()
    return [agent, *table["source"].split(), *words]


def logged(folder: Path) -> tuple[int, int]:
    """Iterations that a log has, and iterations planned; 0 and 0 where there is none."""
    if not all((folder / file).exists() for file in LOGS):
        return 0, 0
    planned = json.loads((folder / "config.json").read_text())["config"]["iterations"]
    return len((folder / "metrics.jsonl").read_text().splitlines()), planned


def make(name: str, training: str, seed: int, minutes: float | None) -> None:
    """Train an agent with a seed and keep what it logged; a training that is whole is left alone."""
    kept, run = RESULTS / name / "logs" / f"{training}-{seed}", Path("runs") / f"{name}-{training}-{seed}"
    done, planned = logged(kept)
    if (planned and done == planned) or (minutes == 0 and not (ROOT / run / "config.json").exists()):
        return
    train(run, RESULTS / name / "runs", command_of(name, training, seed), minutes)
    kept.mkdir(parents=True, exist_ok=True)
    for file in LOGS:
        shutil.copy(ROOT / run / file, kept / file)


def command_of(name: str, training: str, seed: int) -> list[str]:
    """The words after `metarl train` of one run."""
    return [*words_of(name, training), "--seed", str(seed), "--out", f"runs/{name}-{training}-{seed}"]


def kept_logs(name: str) -> list[tuple[str, int, Path]]:
    """The trainings that have a log: name, seed and folder, agent by agent."""
    table = DESCRIPTIONS[name]
    seeds = range(max(MOST_SEEDS, table["seeds"]))
    every = [(one, seed, RESULTS / name / "logs" / f"{one}-{seed}") for one in table["trainings"] for seed in seeds]
    return [(one, seed, folder) for one, seed, folder in every if logged(folder)[0]]


def write(name: str) -> None:
    """The figure, the tables and the README of all trainings that have a log."""
    table, out, logs = DESCRIPTIONS[name], RESULTS / name, kept_logs(name)
    if not logs:
        raise SystemExit(f"{name}: nothing is trained yet")
    text, folders = out / "curve.md", [f"{one}={folder.relative_to(ROOT)}" for one, _, folder in logs]
    files = {"--out": out / "curve.png", "--json": out / "curve.json", "--markdown": text}
    asked = [word for flag, path in files.items() for word in (flag, str(path.relative_to(ROOT)))]
    compared = metarl("compare", "--training", *folders, *asked, "--reach", str(table["reach"]))
    rows = [(one, str(seed), *(f"{n:,}" for n in logged(folder))) for one, seed, folder in logs]
    lines = [f"# {name}", "", table["about"].strip(), "", "![Validation return by steps and minutes](curve.png)", ""]
    lines += [text.read_text().strip(), "", *markdown(("training", "seed", "iterations done", "planned"), rows)]
    lines += [
        provenance(),
        "",
        f"Made by `python scripts/reproduce.py {name}`, that is:",
        "",
        "```",
    ]
    lines += ["metarl train " + " ".join(command_of(name, one, seed)) for one, seed, _ in logs]
    lines += [compared, "```", "", "`curve.json` holds every validation of every seed; `logs/` what the runs logged."]
    text.unlink()
    (out / "README.md").write_text("\n".join(lines) + "\n")


def reproduce(name: str, seeds: int | None, only: Sequence[str], minutes: float | None) -> None:
    """Train the agents named, or all, the first seed of all before the second of any; then write results/NAME."""
    table = DESCRIPTIONS[name]
    for seed in range(table["seeds"] if seeds is None else seeds):
        for training in only or table["trainings"]:
            make(name, training, seed, minutes)
    write(name)
