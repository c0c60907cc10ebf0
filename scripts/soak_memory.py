"""Thousands of iterations of a small run of every learner: memory, open files and threads must not grow.

    python scripts/soak_memory.py --runs runs/soak --json results/soak/memory.json

Each run is a process that trains through the command line and is looked at every 50 iterations; one shows its progress
on a terminal. Two more measure a trained agent again and again, on other tasks each time, as an evaluation of many
tasks in chunks does. After the first 500 iterations resident memory must grow by less than 2 %, and the number of open
files and of threads may not change. What is done stays in --runs, so that a soak that was stopped goes on. Exit 1 if
anything grew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark import machine, versions
from small_runs import RUNS, lasting, words

EVERY, SETTLED, GROWTH = 50, 500, 0.02
EVALUATED = {"evaluate:maml-trpo": "maml-trpo", "evaluate:protonet": "protonet"}
SHOWN = {"terminal:meta-sgd": "meta-sgd"}
KINDS = (*(name for name in RUNS if name != "ppo-scratch"), *SHOWN, *EVALUATED)  # ppo-scratch has nothing to iterate


@dataclass(frozen=True)
class Sample:
    """What a process holds after so many iterations."""

    iteration: int
    resident: float  # MiB
    files: int
    threads: int

    @staticmethod
    def now(iteration: int) -> Sample:
        """Of this process."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Sample(
            iteration,
            round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2),
            len(os.listdir("/proc/self/fd")) - 1,  # but the one that lists them
            len(os.listdir("/proc/self/task")),
        )


class Sampler:
    """A callback that writes samples beside the run's folder."""

    def __init__(self, log: Path | None = None) -> None:
        self.log = log

    def on_start(self, training: Any) -> None:
        """Begin the file anew."""
        self.log = log_of(training.folder)
        self.log.write_text("")

    def on_iteration(self, metrics: dict[str, Any]) -> None:
        """Look, now and then."""
        self.look(metrics["iteration"] + 1)

    def look(self, done: int) -> None:
        """Look, if it is time to."""
        if self.log is not None and done % EVERY == 0:
            with self.log.open("a") as file:
                file.write(json.dumps(asdict(Sample.now(done))) + "\n")


def log_of(folder: Path) -> Path:
    """Where the samples of a run are."""
    return folder.with_name(f"{folder.name}.jsonl")


def samples(folder: Path) -> list[Sample]:
    """Those of a run."""
    log = log_of(folder)
    return [Sample(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def train(name: str, folder: Path, iterations: int, *, shown: bool = False) -> None:
    """A run of so many iterations, in a process of its own; on a terminal where it is `shown`."""
    command = [sys.executable, "-m", "metarl", *words(name), *lasting(name, iterations, EVERY)]
    command += ["--seed", "0", "--out", str(folder), "--callback", "soak_memory:Sampler"]
    again = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "TERM": "xterm"}
    if not shown:
        subprocess.run(command, env=again, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return
    screen, terminal = os.openpty()
    with subprocess.Popen(command, env=again, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # which is how a terminal says that nobody writes to it any more
            while os.read(screen, 1 << 16):
                pass
    os.close(screen)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def evaluate(run: Path, folder: Path, times: int) -> None:
    """Measure a run so many times, on five other tasks each time, in this process."""
    from metarl import registry
    from metarl.evaluation.measure import measure
    from metarl.learning.contract import Budget
    from metarl.seeding import Key

    opened = registry.open_run(run)
    agent, sampler = opened.load(), Sampler(log_of(folder))
    log_of(folder).write_text("")
    for i in range(times):
        tasks = opened.source.sample(5, Key(i).numpy(), "test")
        measure(agent, source=opened.source, tasks=tasks, name=run.name, budget=Budget(1, 2))
        sampler.look(i + 1)


def soak(name: str, runs: Path, iterations: int) -> None:
    """One kind, unless it is done."""
    folder = runs / name.replace(":", "-")
    if (done := samples(folder)) and done[-1].iteration == iterations:
        return
    if name in EVALUATED:
        trained = runs / f"{EVALUATED[name]}-trained"
        if not trained.exists():
            train(EVALUATED[name], trained, EVERY)
        command = [sys.executable, __file__, "--evaluate", str(trained), "--runs", str(folder)]
        command += ["--iterations", str(iterations)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    else:
        if folder.exists():  # half done: memory is that of one process, so from the start
            subprocess.run(["rm", "-r", str(folder)], check=True)
        train(SHOWN.get(name, name), folder, iterations, shown=name in SHOWN)


def verdict(name: str, seen: list[Sample]) -> dict[str, Any]:
    """What a kind's samples say."""
    first, later = next(s for s in seen if s.iteration >= min(SETTLED, seen[-1].iteration)), seen[-1]
    rest = [s for s in seen if s.iteration >= first.iteration]
    growth = max(s.resident for s in rest) / first.resident - 1
    constant = len({s.files for s in rest}) == len({s.threads for s in rest}) == 1
    return {
        "name": name,
        "iterations": later.iteration,
        "resident_MiB_settled": first.resident,
        "resident_MiB_most": max(s.resident for s in rest),
        "growth": round(growth, 4),
        "files": sorted({s.files for s in rest}),
        "threads": sorted({s.threads for s in rest}),
        "sound": growth < GROWTH and constant,
    }


def main() -> None:
    """Soak every kind and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--runs", type=Path, help="where the runs and what was seen of them lie")
    parser.add_argument("--json", type=Path, help="where to write what was seen")
    parser.add_argument("--evaluate", type=Path, help=argparse.SUPPRESS)  # this script's own process: a trained run
    args = parser.parse_args()
    if args.evaluate:
        evaluate(args.evaluate, args.runs, args.iterations)
        return
    if args.runs is None:
        parser.error("--runs names no folder: give one for the runs")
    args.runs.mkdir(parents=True, exist_ok=True)
    rows, failed = [], False
    for name in args.only:
        try:
            soak(name, args.runs, args.iterations)
        except subprocess.CalledProcessError as error:
            print(f"{name}: ended with exit code {error.returncode}", flush=True)
            failed = True
            continue
        rows.append(verdict(name, samples(args.runs / name.replace(":", "-"))))
        print(
            "{name}: {resident_MiB_settled} MiB after {0}, at most {resident_MiB_most} until {iterations} "
            "({growth:+.2%}), files {files}, threads {threads}: {1}".format(
                SETTLED, "sound" if rows[-1]["sound"] else "GREW", **rows[-1]
            ),
            flush=True,
        )
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            report = {"machine": machine(), "versions": versions(), "kinds": rows}
            args.json.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(1 if failed or not all(row["sound"] for row in rows) else 0)


if __name__ == "__main__":
    main()
