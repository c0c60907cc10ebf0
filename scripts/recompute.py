"""Load every committed run, and recompute committed numbers: are they the same, bit for bit?

    python scripts/recompute.py                       load all runs
    python scripts/recompute.py --curves 10           and recompute ten curves of different kinds
    python scripts/recompute.py --curves all --only omniglot

A curve is measured as `scripts/tables.toml` says, on this machine's data (METARL_DATA), and every score and count of
steps in it is compared with the file under results/; of RL² where the answer is known, and of classical solvers, the
figures of a cell of the table. A kind is an agent on a kind of tasks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reproduction import ablation, known_answers, rows, solvers, trainings
from reproduction.description import DESCRIPTIONS, RESULTS, ROOT, Table

from metarl import registry
from metarl.agents import rl2
from metarl.envs import make_family
from metarl.evaluation.training_curves import training_curves
from metarl.runs.run import Run

MEASURED = ("per_task", "gradient_steps", "env_steps", "shots", "task_hash", "regret")


@dataclass(frozen=True)
class Committed:
    """Numbers under results/ that can be recomputed.

    Attributes:
        table: in which they stand.
        name: of the file or the cell.
        agent: whose they are.
        unlike: recomputes them and names those that are not exactly the committed ones.
    """

    table: str
    name: str
    agent: str
    unlike: Callable[[], list[str]]


def unlike(committed: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """Which of the measured numbers are not exactly those that are committed."""
    return [name for name in measured if committed.get(name) != measured[name]]


def curves(name: str) -> Iterator[Committed]:
    """The curves of a table whose run is committed, or whose agent needs no training."""
    table = Table.of(name)
    for agent in table.agents:
        for seed in range(table.seeds if agent.train is not None else 1):
            run = RESULTS / name / "runs" / f"{agent.name}-{seed}"
            for setting, file in agent.files(RESULTS / name, table, seed).items():
                if file.exists() and (agent.train is None or run.exists()):
                    words = table.evaluation(agent, setting, agent.name, file)
                    again = partial(_curve_again, file, words, None if agent.train is None else run)
                    yield Committed(name, file.name, agent.name, again)


def _curve_again(file: Path, words: list[str], run: Path | None) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "curve.json")
        asked = [*words[: words.index("--json")], "--json", str(out)]
        if run is not None:  # a copy, for the evaluation is written into it
            asked[0] = str(shutil.copytree(run, Path(folder, "run")))
        command = [sys.executable, "-m", "metarl", "evaluate", *asked]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            return [f"the command, which failed: {done.stderr.strip()}"]
        measured = json.loads(out.read_text())
    return unlike(json.loads(file.read_text()), {name: measured[name] for name in MEASURED})


def known(name: str) -> Iterator[Committed]:
    """RL²'s figures on problems whose answers are known."""
    for problem in known_answers.PROBLEMS:
        yield Committed(name, problem, "rl2", partial(_answer_again, problem))


def _answer_again(problem: str) -> list[str]:
    run = Run.open(RESULTS / "rl2" / "runs" / problem, rl2.Config)
    document = json.loads((RESULTS / "rl2" / f"{problem}.json").read_text())
    measured = known_answers.judge(known_answers.PROBLEMS[problem], run, solvers=False)
    rows = measured["agents"]
    wrong = unlike(document, {key: value for key, value in measured.items() if key != "agents"})
    for agent, row in rows.items():
        row.pop("seconds")
        wrong += [f"{agent}: {what}" for what in unlike(document["agents"][agent], row)]
    return wrong


def cells(name: str) -> Iterator[Committed]:
    """The cells of a table of classical solvers."""
    written = solvers.load(RESULTS / name / "table.json")
    for cell, compute in solvers.run_bandits() if name == "bandit" else solvers.run_mdps():
        if cell in written:
            again = partial(_cell_again, written[cell], compute)
            yield Committed(name, cell, cell.split(" ")[0], again)


def _cell_again(row: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> list[str]:
    return unlike(row, compute())


def of_rows(name: str) -> Iterator[Committed]:
    """RL²'s figures in the rows of the literature's tables, whose runs are committed."""
    for row in rows.ROWS:
        if (RESULTS / name / "runs" / row).exists():
            yield Committed(name, row, "rl2", partial(_row_again, name, row))


def _row_again(name: str, row: str) -> list[str]:
    described, run = rows.ROWS[row], Run.open(RESULTS / name / "runs" / row, rl2.Config)
    family = make_family(described.family, **described.options)
    committed = json.loads((RESULTS / name / f"{row}.json").read_text())["test"]
    return unlike(committed, rows.judge(described, run, family, "test", committed["tasks"]))


def of_variants(name: str) -> Iterator[Committed]:
    """RL²'s figures in an ablation, whose runs are committed."""
    for file in sorted((RESULTS / name).glob("*.json")):
        if (RESULTS / name / "runs" / file.stem).exists():
            yield Committed(name, file.stem, "rl2", partial(_variant_again, name, file))


def _variant_again(name: str, file: Path) -> list[str]:
    run = Run.open(RESULTS / name / "runs" / file.stem, rl2.Config)
    return unlike(json.loads(file.read_text()), ablation.judge(name, run))


def of_trainings(name: str) -> Iterator[Committed]:
    """Each agent of a comparison of trainings, from what its runs logged."""
    file, logs = RESULTS / name / "curve.json", trainings.kept_logs(name)
    committed = json.loads(file.read_text())["training"]["agents"] if file.exists() else []
    for agent in committed:
        yield Committed(name, agent["label"], agent["agent"], partial(_training_again, agent, logs))


def _training_again(agent: Mapping[str, Any], logs: list[tuple[str, int, Path]]) -> list[str]:
    [curve] = training_curves([folder for one, _, folder in logs if one == agent["label"]])
    again = curve.to_dict(None)
    counted = ("seeds", "iterations", "env_steps", "minutes", "before", "after", "mean", "ci_low", "ci_high")
    return unlike(agent, {what: json.loads(json.dumps(again[what])) for what in counted})


KINDS: dict[str, Callable[[str], Iterator[Committed]]] = {
    "curves": curves,
    "known answers": known,
    "rows": of_rows,
    "ablation": of_variants,
    "trainings": of_trainings,
    "solvers": cells,
}


def of_different_kinds(every: list[Committed], count: int) -> list[Committed]:
    """So many, of as many kinds as there are: agents not met yet come first, then tables not met yet."""
    picked: list[Committed] = []
    left = list(every)
    while left and len(picked) < count:
        agents, met = [one.agent for one in picked], [one.table for one in picked]
        best = min(left, key=lambda one: (met.count(one.table) + agents.count(one.agent), met.count(one.table)))
        left = [one for one in left if (one.table, one.agent) != (best.table, best.agent)]
        picked.append(best)
    return picked


def load_all() -> int:
    """Load every committed run, each with its family or data set; how many fail."""
    failed = 0
    runs = sorted(path.parent for path in RESULTS.glob("*/runs/*/config.json"))
    for run in runs:
        try:
            registry.open_run(run).load()
        except Exception as error:  # whatever it is, it is told, and the next one is tried
            failed += 1
            print(f"{run.relative_to(ROOT)}: {type(error).__name__}: {error}")
    print(f"{len(runs) - failed} of {len(runs)} committed runs load", flush=True)
    return failed


def main() -> None:
    """Print a table; exit 1 where anything is not as it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", default="0", metavar="N", help="how many to recompute, or all")
    parser.add_argument("--only", nargs="+", choices=DESCRIPTIONS, metavar="TABLE", help=", ".join(DESCRIPTIONS))
    asked = parser.parse_args()
    failed = load_all()
    names = asked.only or list(DESCRIPTIONS)
    every = [one for name in names for one in KINDS[DESCRIPTIONS[name]["kind"]](name)]
    chosen = every if asked.curves == "all" else of_different_kinds(every, int(asked.curves))
    for one in chosen:
        began = time.perf_counter()
        wrong = one.unlike()
        failed += bool(wrong)
        said = f"DIFFERS in {', '.join(wrong)}" if wrong else "the same"
        print(f"{one.table:18} {one.name:34} {said}  ({time.perf_counter() - began:.0f} s)", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
