"""Every row of the literature's two tables of RL²: bandits by pulls and arms, tabular MDPs by episodes.

    python scripts/reproduce.py rl2-rows --only mdp-25 bandit-500-50 --budget 60

A run is runs/rl2-rows-ROW-0; one that exists is resumed, one that results/rl2-rows/runs/ holds is continued from there.
RL² and the solvers of the row meet the same frozen test tasks, one trial each, then the same tasks of the family's
`ood` split, on which nobody was trained, and then the test tasks in trials twice as long. Nothing in the README is
typed in by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from metarl.agents import rl2
from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.errors import UserError
from metarl.evaluation.storage import dump_json
from metarl.learning.contract import Budget
from metarl.runs.run import Run
from metarl.tasks import TaskFamily
from reproduction.description import DESCRIPTIONS, RESULTS, ROOT
from reproduction.known_answers import LIKELIEST, interval, shown, solver
from reproduction.markdown import Rows, markdown, provenance
from reproduction.training import keep, progress, train

matplotlib.use("Agg")
NAME = "rl2-rows"
OUT = RESULTS / NAME
WORDS = DESCRIPTIONS[NAME]
ROUNDED = 0.05  # what the literature's figures are rounded by
BELOW = 0.01  # of the best classical solver's return, that a row may stand below it
OOD_TASKS = 10_000
LONGER = 2  # times the trial trained on


@dataclass(frozen=True)
class Row:
    """A cell of a published table.

    Attributes:
        family: its id.
        options: the family's.
        train: the words after the family.
        duan: mean return of a trial of Duan et al. 2016's RL², at its literature's rounding.
        snail: SNAIL's.
        tasks: test tasks, a trial each.
    """

    family: str
    options: dict[str, Any]
    train: str
    duan: float
    snail: float
    tasks: int = 50_000

    @property
    def words(self) -> str:
        """The family and how RL² is trained, as the command line takes them."""
        options = [f"--{name} {value}" for name, value in self.options.items()]
        return " ".join([f"--family {self.family}", *options, WORDS["common"], self.train])

    @property
    def solvers(self) -> list[str]:
        """Who plays beside it."""
        named: list[str] = WORDS["solvers"][self.family]
        return named


ROWS = {name: Row(**words) for name, words in WORDS["rows"].items()}


def judge(row: Row, run: Run, family: TaskFamily, split: str, count: int) -> dict[str, Any]:
    """The agent, its most likely actions, and the solvers on the same tasks."""
    tasks, budget, agent = family.fixed(split, count), Budget(0, 1), rl2.load(run, family)
    agents = {"rl2": agent, LIKELIEST: replace(agent, likeliest=True)}
    agents |= {name: solver(name, family) for name in row.solvers}
    returns = {name: one.curve(tasks, budget, 0).values.sum(1) for name, one in agents.items()}
    rows = {
        name: {"return": interval(values), "rl2 minus it": interval(returns["rl2"] - values)}
        for name, values in returns.items()
    }
    return {"tasks": count, "tasks_sha256": tasks.sha256(), "agents": rows}


def make(name: str, minutes: float | None) -> None:
    """Train a row's agent, judge it, write its JSON."""
    row, target = ROWS[name], Path("runs") / f"{NAME}-{name}-0"
    words = ["rl2", *row.words.split(), "--seed", "0", "--out", str(target)]
    command = train(target, OUT / "runs" / name, words, minutes)
    keep(ROOT / target, OUT / "runs" / name)
    run, family = Run.open(ROOT / target, rl2.Config), make_family(row.family, **row.options)
    done, planned, spent = progress(ROOT / target)
    a_trial = Trials(family=family).horizon
    document = {
        "command": command,
        "iterations": done,
        "planned": planned,
        "steps": done * run.config.trials * a_trial,
        "minutes": round(spent, 1),
        "threads": run.config.threads,
        "curve": [
            [(line["iteration"] + 1) * run.config.trials * a_trial, round(line["return/validation_trial"], 3)]
            for line in run.metrics()
            if "return/validation_trial" in line
        ],
    }
    few = min(row.tasks, OOD_TASKS)
    for part, of, split, count in (
        ("test", family, "test", row.tasks),
        ("ood", family, "ood", few),
        ("longer", longer(row), "test", few),
    ):
        try:
            document[part] = judge(row, run, of, split, count)
            best = best_solver(document[part])
            print(f"{name}, {part}: rl2 {document[part]['agents']['rl2']['return']}, {best}", flush=True)
        except UserError as refusal:  # of trials that are longer than a transformer has positions for
            if part != "longer":
                raise
            document[part] = {"refused": str(refusal).replace(f"{ROOT}/", "")}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(dump_json(document))


def longer(row: Row) -> TaskFamily:
    """The row's family with trials of twice as many pulls or episodes."""
    length = "pulls" if "pulls" in row.options else "episodes"
    return make_family(row.family, **{**row.options, length: LONGER * row.options[length]})


def best_solver(judged: dict[str, Any]) -> tuple[str, list[float]]:
    """The solver with the highest return, and that."""
    rows = {name: one["return"] for name, one in judged["agents"].items() if not name.startswith("rl2")}
    best = max(rows, key=lambda name: rows[name][0])
    return best, rows[best]


def reached(judged: dict[str, Any], figure: float) -> bool:
    """Whether the upper end of RL²'s interval reaches a figure that was rounded."""
    high: float = judged["agents"]["rl2"]["return"][2]
    return high >= figure - ROUNDED


def near(judged: dict[str, Any]) -> bool:
    """Whether RL² is not below the best classical solver by more than `BELOW` of its return."""
    ours: float = judged["agents"]["rl2"]["return"][0]
    theirs: float = best_solver(judged)[1][0]
    return ours >= (1 - BELOW) * theirs


def tables(documents: dict[str, dict[str, Any]]) -> list[str]:
    """The rows on test tasks, on the `ood` split, and on trials that are longer than trained."""
    test: Rows = []
    ood: Rows = []
    late: Rows = []
    for name, document in documents.items():
        for split, rows in (("test", test), ("ood", ood), ("longer", late)):
            judged = document[split]
            if "refused" in judged:
                rows.append((name, "refused", "", "", ""))
                continue
            best, earned = best_solver(judged)
            ours = [shown(judged["agents"][agent]["return"]) for agent in ("rl2", LIKELIEST)]
            cells = [name, f"**{ours[0]}**", ours[1], f"{best} {shown(earned)}"]
            cells.append(shown(judged["agents"][best]["rl2 minus it"], sign=True))
            if split == "test":
                cells += [f"{ROWS[name].duan}", f"{ROWS[name].snail}"]
                cells += [f"{document['steps'] / 1e6:.1f}", f"{document['minutes']:.0f}"]
            rows.append(tuple(cells))
    head = ("row", "RL²", "its most likely actions", "best classical solver", "RL² minus it")
    counts = {
        "At or above Duan et al.'s RL²": [reached(d["test"], ROWS[n].duan) for n, d in documents.items()],
        "at or above SNAIL": [reached(d["test"], ROWS[n].snail) for n, d in documents.items()],
        "not below the best classical solver by more than 1 %": [near(d["test"]) for d in documents.values()],
    }
    said = ", ".join(f"{what}: {sum(each)} of {len(each)}" for what, each in counts.items())
    lines = markdown((*head, "Duan's RL²", "SNAIL", "million steps", "minutes"), test)
    lines += [f"{said}.", "", "## The `ood` split, on which nobody was trained", "", *markdown(head, ood)]
    return [*lines, f"## Trials {LONGER} times as long as trained, on test tasks", "", *markdown(head, late)]


def draw(documents: dict[str, dict[str, Any]]) -> None:
    """A small picture a row: validation return against steps, with the best classical solver and the literature."""
    columns = min(4, len(documents))
    high = -(-len(documents) // columns)
    figure, grid = plt.subplots(high, columns, figsize=(3.2 * columns, 2.4 * high), squeeze=False, layout="constrained")
    for ax in grid.flat[len(documents) :]:
        ax.axis("off")
    for ax, (name, document) in zip(grid.flat, documents.items(), strict=False):
        steps, values = np.array(document["curve"]).reshape(-1, 2).T
        ax.plot(steps / 1e6, values, color="#0072b2", marker="o", markersize=2, label="RL², validation")
        best, earned = best_solver(document["test"])
        ax.axhline(earned[0], color="#666666", linestyle="--", linewidth=1, label=best)
        ax.axhline(ROWS[name].duan, color="#d55e00", linestyle=":", linewidth=1, label="Duan's RL²")
        ax.axhline(ROWS[name].snail, color="#009e73", linestyle="-.", linewidth=1, label="SNAIL")
        ax.set_title(name, loc="left", fontsize=9)
        ax.set_xlabel("million steps", fontsize=8)
        ax.legend(fontsize=6)
    figure.savefig(OUT / "rows.png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def write_readme() -> None:
    """All rows that were judged."""
    documents = {name: json.loads(path.read_text()) for name in ROWS if (path := OUT / f"{name}.json").exists()}
    if not documents:
        return
    draw(documents)
    lines = ["# RL² in every row of the literature's tables", "", WORDS["about"].strip(), ""]
    lines += [*tables(documents), "![Validation returns](rows.png)", "", provenance(), ""]
    lines += ["Made by `python scripts/reproduce.py rl2-rows`, that is:", "", "```"]
    lines += [*(document["command"] for document in documents.values()), "```", ""]
    lines += ["The JSON files hold every solver's figure; `runs/` what resuming needs, where it is small."]
    (OUT / "README.md").write_text("\n".join(lines) + "\n")


def reproduce(only: Sequence[str], minutes: float | None) -> None:
    """Train and judge the rows named, or all; write results/rl2-rows."""
    for name in only or ROWS:
        make(name, minutes)
    write_readme()
