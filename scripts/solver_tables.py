"""The classical solvers on bandits and tabular MDPs, beside the rows of Duan et al. 2016 (RL²).

    python scripts/solver_tables.py tune     every solver's constants, on validation tasks
    python scripts/solver_tables.py run      every cell, on 10,000 frozen test tasks
    python scripts/solver_tables.py report   the tables into results/{bandit,tabular_mdp}/README.md

`tune` and `run` do one cell at a time, write it down and skip what is written, so they may be stopped.
`tune` measures a fixed grid (`GRIDS`) and ends by printing what belongs into the solvers' `CONSTANTS`; a
test checks that it is there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from metarl.agents.solvers import bandits as bandit
from metarl.agents.solvers import mdps as mdp
from metarl.envs.bandit import BernoulliBandit
from metarl.envs.tabular_mdp import TabularMDP
from metarl.seeding import Key

matplotlib.use("Agg")
RESULTS = Path(__file__).resolve().parent.parent / "results"
TEST_TASKS, VALIDATION_TASKS = 10_000, 2_000
LITERATURE_TASKS = 1_000  # instances behind each number of Duan et al. (from memory)

PULLS, ARMS, EPISODES = (10, 100, 500), (5, 10, 50), (10, 25, 50, 75, 100)
BANDIT_GRIDS = {
    "epsilon-greedy": (0.0, 0.01, 0.02, 0.05, 0.1, 0.2),
    "ucb1": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0),
    "gittins": (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998),
}
MDP_GRIDS: dict[str, dict[float, mdp.Strategy]] = {
    "epsilon-greedy": {e: mdp.EpsilonGreedy(e) for e in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)},
    "beb": {b: mdp.BEB(b) for b in (1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)},
    "ucrl2": {s: mdp.UCRL2(s) for s in (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2)},
    "optimistic-psrl": {m: mdp.OptimisticPSRL(m) for m in (2, 5, 10)},
}

# Duan et al. 2016, as Mishra et al. 2018 (SNAIL) quote them, read in the README of lucaslingle/pytorch_rl2.
BANDIT_LITERATURE = {
    "random": (5.0, 5.0, 5.1, 49.9, 49.9, 49.8, 249.8, 249.0, 249.6),
    "gittins": (6.6, 6.6, 6.5, 78.3, 82.8, 85.2, 405.8, 437.8, 463.7),
    "thompson": (5.7, 5.5, 5.2, 74.7, 76.7, 64.5, 402.0, 429.5, 427.2),
    "optimistic-thompson": (6.5, 6.2, 5.5, 77.9, 81.4, 67.7, 406.7, 438.9, 437.6),
    "ucb1": (6.7, 6.7, 6.6, 78.0, 82.4, 84.3, 405.8, 437.1, 457.6),
    "epsilon-greedy": (6.6, 6.6, 6.5, 75.4, 77.4, 78.3, 388.2, 408.0, 413.6),
    "greedy": (6.6, 6.6, 6.5, 74.8, 77.1, 78.0, 380.6, 395.0, 402.8),
}
MDP_LITERATURE = {
    "random": (100.1, 250.2, 499.7, 749.9, 999.4),
    "psrl": (138.1, 408.8, 904.4, 1417.1, 1939.5),
    "optimistic-psrl": (144.1, 425.2, 930.7, 1449.2, 1973.9),
    "ucrl2": (146.6, 424.1, 918.9, 1427.6, 1942.1),
    "beb": (150.2, 427.8, 917.8, 1422.6, 1935.1),
    "epsilon-greedy": (132.8, 377.3, 823.3, 1293.9, 1778.2),
    "greedy": (134.8, 368.8, 769.3, 1172.9, 1578.5),
}
# The same solvers with the prior of the code base Duan et al. are likely to have used (mean rewards 0 instead of
# 1) and, for optimistic PSRL, its number of samples: an explanation, not solvers we offer.
PRIOR_0 = {"psrl": mdp.PSRL(), "optimistic-psrl": mdp.OptimisticPSRL(10), "greedy": mdp.Greedy()}
PRIOR_0_GRIDS: dict[str, dict[float, mdp.Strategy]] = {
    "beb": {b: mdp.BEB(b) for b in (8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 40.0, 48.0)},
    "ucrl2": {s: mdp.UCRL2(s) for s in (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0)},
    "epsilon-greedy": {e: mdp.EpsilonGreedy(e) for e in (0.0, 0.02, 0.05, 0.1, 0.2)},
}


def load(path: Path) -> dict[str, Any]:
    """The cells written so far."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def fill(path: Path, cells: Iterator[tuple[str, Callable[[], dict[str, Any]]]]) -> None:
    """Compute what is not there yet, one cell at a time, and write after each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = load(path)
    for name, compute in cells:
        if name in done:
            continue
        start = time.perf_counter()
        done[name] = compute() | {"seconds": round(time.perf_counter() - start, 1)}
        rows = ",\n".join(f"{json.dumps(cell)}: {json.dumps(row)}" for cell, row in done.items())
        path.write_text(f"{{\n{rows}\n}}\n")
        short = {key: value for key, value in done[name].items() if not isinstance(value, list)}
        print(f"{path.parent.name} {name}: {short}", flush=True)


def summary(totals: Any, **more: Any) -> dict[str, Any]:
    """Mean, standard deviation over tasks and standard error of `(T,)` totals."""
    sd = float(totals.std(ddof=1))
    mean, error = float(totals.mean()), sd / math.sqrt(len(totals))
    return {"mean": round(mean, 4), "error": round(error, 4), "sd": round(sd, 4), "tasks": len(totals), **more}


def bandit_strategy(name: str, constant: float, pulls: int) -> bandit.Strategy:
    """A strategy with its constant."""
    if name == "gittins":
        return bandit.Gittins(constant, pulls)
    return bandit.UCB1(constant) if name == "ucb1" else bandit.EpsilonGreedy(constant)


def tune_bandits() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """One cell a solver, number of pulls and number of arms: the mean of every constant."""
    for n in PULLS:
        for k in ARMS:
            family = BernoulliBandit(arms=k, pulls=n)
            for name, grid in BANDIT_GRIDS.items():

                def compute(
                    family: BernoulliBandit = family, name: str = name, grid: tuple[float, ...] = grid
                ) -> dict[str, Any]:
                    tasks = family.fixed("validation", VALIDATION_TASKS)
                    means = {}
                    for constant in grid:
                        solver = bandit.BanditSolver(family, bandit_strategy(name, constant, family.pulls))
                        play = solver.play(tasks, 1, Key(0)("tune"))
                        means[str(constant)] = round(float(play.rewards.sum(2).mean()), 4)
                    return {"best": max(means, key=means.__getitem__), "means": means}

                yield f"{name} n={n} k={k}", compute


def tune_mdps(
    grids: dict[str, dict[float, mdp.Strategy]], prior_mean: float
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """One cell a solver and constant, for all trial lengths: shorter trials are the beginnings of longer ones."""
    family = TabularMDP(episodes=max(EPISODES))
    for name, grid in grids.items():
        for constant, strategy in grid.items():

            def compute(strategy: mdp.Strategy = strategy) -> dict[str, Any]:
                tasks = family.fixed("validation", VALIDATION_TASKS // 2)
                solver = mdp.MDPSolver(family, strategy, prior_mean)
                so_far = solver.play(tasks, 1, Key(0)("tune"))[:, 0].mean(0).cumsum()
                return {f"n={n}": round(float(so_far[n - 1]), 3) for n in EPISODES}

            yield f"{name} {constant}", compute


def chosen_bandit_constants() -> dict[tuple[int, int], tuple[float, float, float]]:
    """The best constant of every cell, from `tune`."""
    found = load(RESULTS / "bandit" / "tuning.json")
    names = ("epsilon-greedy", "ucb1", "gittins")
    return {(n, k): tuple(float(found[f"{s} n={n} k={k}"]["best"]) for s in names) for n in PULLS for k in ARMS}


def best_mdp_constant(file: str, grid: dict[float, mdp.Strategy], name: str, n: int) -> float:
    """The constant with the best validation return in trials of n episodes, from `tune`."""
    found = load(RESULTS / "tabular_mdp" / file)
    return max(grid, key=lambda constant: float(found[f"{name} {constant}"][f"n={n}"]))


def chosen_mdp_constants() -> dict[int, tuple[float, float, float, int]]:
    """The best constant of every trial length, from `tune`."""

    def best(name: str, n: int) -> float:
        return best_mdp_constant("tuning.json", MDP_GRIDS[name], name, n)

    return {
        n: (best("epsilon-greedy", n), best("beb", n), best("ucrl2", n), int(best("optimistic-psrl", n)))
        for n in EPISODES
    }


def run_bandits() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """One cell a solver, number of pulls and number of arms."""
    for n in PULLS:
        for k in ARMS:
            family = BernoulliBandit(arms=k, pulls=n)
            names = [name for name in bandit.STRATEGIES if name != "bayes-optimum" or n == 10]
            for name in names:

                def compute(family: BernoulliBandit = family, name: str = name) -> dict[str, Any]:
                    tasks, solver = family.fixed("test", TEST_TASKS), bandit.solver(name, family)
                    play = solver.play(tasks, 1, Key(0)("test"))
                    regret = play.regret(tasks).mean((0, 1))
                    more = {"strategy": repr(solver.strategy), "regret": round(float(regret.sum()), 4)}
                    if family.pulls <= 100:
                        more["regret_per_pull"] = regret.round(4).tolist()
                    return summary(play.rewards.sum((1, 2)), **more)

                yield f"{name} n={n} k={k}", compute


def run_mdps() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """One cell a solver and trial length, and the same with the prior's mean reward at 0."""
    for n in EPISODES:
        family = TabularMDP(episodes=n)
        solvers = {name: mdp.solver(name, family) for name in mdp.STRATEGIES}
        tuned = {k: g[best_mdp_constant("tuning_prior_0.json", g, k, n)] for k, g in PRIOR_0_GRIDS.items()}
        strategies = {**PRIOR_0, **tuned}
        solvers |= {f"{name}, prior 0": mdp.MDPSolver(family, s, prior_mean=0.0) for name, s in strategies.items()}
        for name, solver in solvers.items():

            def compute(family: TabularMDP = family, solver: mdp.MDPSolver = solver) -> dict[str, Any]:
                returns = solver.play(family.fixed("test", TEST_TASKS), 1, Key(0)("test"))
                per_episode = returns.mean((0, 1)).round(3).tolist()
                return summary(returns.sum((1, 2)), strategy=repr(solver.strategy), return_per_episode=per_episode)

            yield f"{name} n={n}", compute


def cell(found: dict[str, Any] | None, published: float | None) -> str:
    """Our mean and error, the published number, and their distance in combined standard errors."""
    if found is None:
        return ""
    digits = 2 if found["mean"] < 1000 else 1
    text = f"{found['mean']:.{digits}f} ± {found['error']:.{digits}f}"
    if published is None:
        return text
    theirs = math.hypot(found["sd"] / math.sqrt(LITERATURE_TASKS), 0.05 / math.sqrt(3))  # their sample, their rounding
    z = (found["mean"] - published) / math.hypot(found["error"], theirs)
    mark = "" if abs(z) <= 3 else " **!**"
    return f"{text} ({published}; {z:+.1f}){mark}"


def table(found: dict[str, Any], columns: dict[str, str], literature: Mapping[str, Sequence[float]]) -> str:
    """A Markdown table; a column is a suffix of the cells' names."""
    names = list(dict.fromkeys(name.rsplit(" n=", 1)[0] for name in found))
    lines = ["| solver | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        published: Sequence[float | None] = literature.get(name.removesuffix(", prior 0")) or [None] * len(columns)
        cells = [cell(found.get(f"{name} {c}"), p) for c, p in zip(columns, published, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(path: Path, lines: Mapping[str, Sequence[float]], x: str, y: str, title: str) -> None:
    """A line a solver, from 1 to the trial's end; no picture before there are cells to show."""
    if not lines:
        return
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, values in lines.items():
        axes.plot(range(1, len(values) + 1), values, label=name, linestyle="--" if "prior 0" in name else "-")
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def report(folder: str, text: str) -> None:
    """Put the tables between the marks in the folder's README."""
    path = RESULTS / folder / "README.md"
    begin, end = "<!-- tables -->", "<!-- end of tables -->"
    before, _, rest = path.read_text().partition(begin)
    after = rest.partition(end)[2]
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def report_bandits() -> None:
    """Three tables, one a number of pulls, and the constants."""
    found, parts = load(RESULTS / "bandit" / "table.json"), []
    for i, n in enumerate(PULLS):
        rows = {name: row for name, row in found.items() if f" n={n} " in name}
        literature = {name: values[3 * i : 3 * i + 3] for name, values in BANDIT_LITERATURE.items()}
        columns = {f"n={n} k={k}": f"n={n}, k={k}" for k in ARMS}
        parts.append(table(rows, columns, literature))
    lines = ["| pulls, arms | epsilon | UCB1 width | Gittins discount |", "|---|---|---|---|"]
    lines += [f"| {n}, {k} | {e} | {w} | {d} |" for (n, k), (e, w, d) in bandit.CONSTANTS.items()]
    curves = {name: row["regret_per_pull"] for name, row in found.items() if name.endswith(" n=100 k=5")}
    curves = {name.removesuffix(" n=100 k=5"): values for name, values in curves.items()}
    draw(RESULTS / "bandit" / "regret.png", curves, "pull", "expected regret of a pull", "Bernoulli bandit, 5 arms")
    report("bandit", "\n\n".join([*parts, "Constants, chosen on validation tasks:", "\n".join(lines)]))


def report_mdps() -> None:
    """One table, and the constants."""
    found = load(RESULTS / "tabular_mdp" / "table.json")
    lines = ["| episodes | epsilon | BEB bonus | UCRL2 scale | optimistic PSRL samples |", "|---|---|---|---|---|"]
    lines += [f"| {n} | {e} | {b} | {s} | {m} |" for n, (e, b, s, m) in mdp.CONSTANTS.items()]
    tables = table(found, {f"n={n}": f"n={n}" for n in EPISODES}, MDP_LITERATURE)
    longest = f" n={EPISODES[-1]}"
    curves = {k.removesuffix(longest): v["return_per_episode"] for k, v in found.items() if k.endswith(longest)}
    draw(RESULTS / "tabular_mdp" / "returns.png", curves, "episode", "return of an episode", "Tabular MDP")
    report("tabular_mdp", "\n\n".join([tables, "Constants, chosen on validation tasks:", "\n".join(lines)]))


def main() -> None:
    """Do what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "run", "report"))
    parser.add_argument("--problem", choices=("bandit", "tabular_mdp"), help="only this one")
    args = parser.parse_args()
    problems = [args.problem] if args.problem else ["bandit", "tabular_mdp"]
    for problem in problems:
        folder, bandits = RESULTS / problem, problem == "bandit"
        if args.what == "tune":
            fill(folder / "tuning.json", tune_bandits() if bandits else tune_mdps(MDP_GRIDS, 1.0))
            if not bandits:
                fill(folder / "tuning_prior_0.json", tune_mdps(PRIOR_0_GRIDS, 0.0))
            print("CONSTANTS =", chosen_bandit_constants() if bandits else chosen_mdp_constants())
        elif args.what == "run":
            fill(folder / "table.json", run_bandits() if bandits else run_mdps())
        elif bandits:
            report_bandits()
        else:
            report_mdps()


if __name__ == "__main__":
    main()
