"""What the benchmark scripts share: one timing loop, one JSON schema, one command line.

A row is a function that builds both sides and returns a `Comparison`. Both sides run in this process,
interleaved, for the same time; the medians and the spread of the ratio over the repeats are reported,
because on a busy machine only ratios within one run mean anything.

    python scripts/benchmark_sampler.py --list
    python scripts/benchmark_sampler.py --only navigation --json out.json
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("metarl", "torch", "numpy", "gymnasium", "mujoco", "stable-baselines3", "learn2learn")

Work = Callable[[], float]


@dataclass(frozen=True)
class Comparison:
    """Two ways to do the same work.

    Attributes:
        name: what is compared, with the unit of the rates.
        ours: does some work and returns how much of it (environment steps, say); called again and again.
        baseline: the same for the other side; the amounts may differ, the unit may not.
        target: the ratio of rates, ours / baseline, that counts as met when reached.
        finish: releases what both sides hold.
    """

    name: str
    ours: Work
    baseline: Work
    target: float
    finish: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        name: what was compared, with its unit.
        value: median of our rates, per second.
        baseline: median of the other side's rates, per second.
        ratio: median over the repeats of value / baseline.
        target: the ratio aimed at.
        met: whether the ratio reaches it.
        repeats: how often both sides were timed.
        spread: smallest and largest ratio of a repeat.
    """

    name: str
    value: float
    baseline: float
    ratio: float
    target: float
    met: bool
    repeats: int
    spread: tuple[float, float]


Rows = Sequence[Callable[[], "Comparison | Row"]]


def rate(work: Work, seconds: float) -> float:
    """Work done per second, measured over at least `seconds`."""
    gc.collect()
    done, start = 0.0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        done += work()
    return done / elapsed


def compare(comparison: Comparison, repeats: int, seconds: float) -> Row:
    """Time both sides `repeats` times in turn, the order alternating, after one unmeasured call of each."""
    sides = {"ours": comparison.ours, "baseline": comparison.baseline}
    for work in sides.values():
        work()
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for i in range(repeats):
        for side in sorted(sides, reverse=bool(i % 2)):
            rates[side].append(rate(sides[side], seconds))
    comparison.finish()
    ratios = [ours / base for ours, base in zip(rates["ours"], rates["baseline"], strict=True)]
    ratio = statistics.median(ratios)
    return Row(
        name=comparison.name,
        value=statistics.median(rates["ours"]),
        baseline=statistics.median(rates["baseline"]),
        ratio=ratio,
        target=comparison.target,
        met=ratio >= comparison.target,
        repeats=repeats,
        spread=(min(ratios), max(ratios)),
    )


def machine() -> dict[str, Any]:
    """What the numbers were measured on; nothing that names the machine itself."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [
            line.partition(":")[2].strip() for line in information.read_text().splitlines() if "model name" in line
        ]
        cpu = models[0] if models else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter here, where they are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def main(rows: Rows, description: str | None) -> None:
    """The command line of a benchmark script: measure the chosen rows, print them, write JSON if asked."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and rows there")
    parser.add_argument("--only", metavar="NAME", help="only the rows whose function name contains this")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    parser.add_argument("--repeats", type=int, default=5, help="how often both sides are timed (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="at least this long a side and repeat (default 1)")
    asked = parser.parse_args()
    if asked.repeats < 1 or asked.seconds <= 0:
        parser.error(f"--repeats must be >= 1 and --seconds > 0, got {asked.repeats} and {asked.seconds}")
    chosen = [row for row in rows if not asked.only or asked.only in row.__name__]
    if not chosen:
        parser.error(f"no row is called {asked.only!r}; there are {', '.join(row.__name__ for row in rows)}")
    if asked.list:
        print("\n".join(row.__name__ for row in chosen))
        return

    results: list[Row] = []
    before = machine()
    for row in chosen:
        made = row()
        result = compare(made, asked.repeats, asked.seconds) if isinstance(made, Comparison) else made
        results.append(result)
        print(
            f"{result.name}: {result.value:,.4g} against {result.baseline:,.4g}, ratio {result.ratio:.3g} "
            f"({result.spread[0]:.3g} to {result.spread[1]:.3g}), target {result.target:g}: "
            f"{'met' if result.met else 'NOT met'}",
            flush=True,
        )
        if asked.json is not None:  # after every row: a later one that fails costs none of those before
            report = {"machine": before, "versions": versions(), "rows": [dataclasses.asdict(row) for row in results]}
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_text(json.dumps(report, indent=2) + "\n")
