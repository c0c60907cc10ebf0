"""Reproduce a committed table by name: train, evaluate on frozen test tasks, write results/TABLE/.

    python scripts/reproduce.py navigation
    python scripts/reproduce.py omniglot --seeds 1 --budget 120
    python scripts/reproduce.py rl2 --only mdp-10 --budget 30
    python scripts/reproduce.py rl2-rows --only mdp-25          a row of the literature's tables
    python scripts/reproduce.py rl2-ablation --seeds 1          what helps RL², one change at a time
    python scripts/reproduce.py bandit                          the cells that are not judged yet, and the README
    python scripts/reproduce.py bandit --tune                   the solvers' constants, on validation tasks

scripts/tables.toml says what each table is. What was begun goes on: runs that exist, or that results/ holds, are
resumed, and cells of solvers that are written are skipped.
"""

from __future__ import annotations

import argparse
import time

from reproduction.description import DESCRIPTIONS, tables

# What each kind of table can be asked for; the rest is refused.
OPTIONS = {
    "curves": {"seeds", "budget", "only", "again"},
    "known answers": {"only", "budget", "train_only"},
    "rows": {"only", "budget"},
    "ablation": {"seeds", "only", "budget"},
    "trainings": {"seeds", "only", "budget"},
    "solvers": {"again", "tune"},
}


def parse() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=DESCRIPTIONS)
    parser.add_argument("--seeds", type=int, help="training seeds of each agent; by default those of the table")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="of training, each run; 0 judges what is there")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="train these agents or problems; the others stay")
    parser.add_argument("--again", action="store_true", help="judge again what was judged")
    parser.add_argument("--train-only", action="store_true", help="judge nothing")
    parser.add_argument("--tune", action="store_true", help="choose the solvers' constants, and judge nothing")
    asked = parser.parse_args()
    kind = DESCRIPTIONS[asked.table]["kind"]
    options = {name for name, value in vars(asked).items() if value is not None and value is not False} - {"table"}
    if foreign := sorted(options - OPTIONS[kind]):
        allowed = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in OPTIONS[kind]))
        parser.error(f"{asked.table}, a table of {kind}, takes {allowed}, not --{foreign[0].replace('_', '-')}")
    if asked.only and kind != "solvers":
        words = DESCRIPTIONS[asked.table]
        if "problems" in words:
            names = [*words["problems"], "navigation"]
        else:
            listed = words.get("rows") or words.get("variants") or words.get("trainings")
            names = list(listed) if listed else [agent["name"] for agent in words["agents"]]
        if unknown := [name for name in asked.only if name not in names]:
            parser.error(f"{asked.table} has no {unknown[0]!r}; choose from {', '.join(names)}")
    return asked


def main() -> None:
    """Reproduce the table."""
    asked = parse()
    started = time.perf_counter()
    if asked.table in tables("curves"):
        from reproduction import curves

        curves.reproduce(asked.table, asked.seeds, asked.budget, asked.only or (), asked.again)
    elif asked.table in tables("known answers"):
        from reproduction import known_answers

        known_answers.reproduce(asked.only or (), asked.budget, not asked.train_only)
    elif asked.table in tables("rows"):
        from reproduction import rows

        rows.reproduce(asked.only or (), asked.budget)
    elif asked.table in tables("ablation"):
        from reproduction import ablation

        ablation.reproduce(asked.table, asked.seeds, asked.only or (), asked.budget)
    elif asked.table in tables("trainings"):
        from reproduction import trainings

        trainings.reproduce(asked.table, asked.seeds, asked.only or (), asked.budget)
    else:
        from reproduction import solvers

        solvers.tune(asked.table) if asked.tune else solvers.reproduce(asked.table, asked.again)
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes in all")


if __name__ == "__main__":
    main()
