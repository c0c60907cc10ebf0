"""The classical solvers in grids of bandits and tabular MDPs, beside the rows of Duan et al. 2016 (RL²).

`tune` measures every constant of a fixed grid on validation tasks and ends by printing what belongs into the solvers'
`CONSTANTS` (a test checks that it is there); `run` judges every cell on 10,000 frozen test tasks; `report` puts the
tables into the README. Both do one cell at a time, write it down and skip what is written, so they may be stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from metarl.agents.solvers import bandit_strategies as arms
from metarl.agents.solvers import bandits as bandit
from metarl.agents.solvers import mdp_strategies as plans
from metarl.agents.solvers import mdps as mdp
from metarl.envs.bandit import BernoulliBandit
from metarl.envs.tabular_mdp import TabularMDP
from metarl.seeding import Key
from reproduction.description import DESCRIPTIONS, RESULTS

matplotlib.use("Agg")
TEST_TASKS, VALIDATION_TASKS = 10_000, 2_000
LITERATURE_TASKS = 1_000  # instances behind each number of Duan et al. (from memory)

BANDIT, TABULAR_MDP = DESCRIPTIONS["bandit"], DESCRIPTIONS["tabular_mdp"]
PULLS, ARMS, EPISODES = BANDIT["pulls"], BANDIT["arms"], TABULAR_MDP["episodes"]
Grids = Mapping[str, Sequence[float]]  # a strategy's constants that are tried
Cells = Iterator[tuple[str, Callable[[], dict[str, Any]]]]
PRIOR_0: Grids = TABULAR_MDP["prior_0_grids"]


def mdp_strategy(name: str, *constant: float) -> plans.Strategy:
    """A strategy with its constant, where it has one."""
    kinds: dict[str, Callable[..., plans.Strategy]] = {
        "psrl": plans.PSRL,
        "optimistic-psrl": plans.OptimisticPSRL,
        "ucrl2": plans.UCRL2,
        "beb": plans.BEB,
        "epsilon-greedy": plans.EpsilonGreedy,
        "greedy": plans.Greedy,
    }
    return kinds[name](*constant)


def load(path: Path) -> dict[str, Any]:
    """The cells written so far."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def fill(path: Path, cells: Cells) -> None:
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


def bandit_strategy(name: str, constant: float, pulls: int) -> arms.Strategy:
    """A strategy with its constant."""
    if name == "gittins":
        return arms.Gittins(constant, pulls)
    return arms.UCB1(constant) if name == "ucb1" else arms.EpsilonGreedy(constant)


def tune_bandits() -> Cells:
    """One cell a solver, number of pulls and number of arms: the mean of every constant."""
    for n in PULLS:
        for k in ARMS:
            family = BernoulliBandit(arms=k, pulls=n)
            for name, grid in BANDIT["grids"].items():

                def compute(
                    family: BernoulliBandit = family, name: str = name, grid: Sequence[float] = grid
                ) -> dict[str, Any]:
                    tasks = family.fixed("validation", VALIDATION_TASKS)
                    means = {}
                    for constant in grid:
                        solver = bandit.BanditSolver(family, bandit_strategy(name, constant, family.pulls))
                        play = solver.play(tasks, 1, Key(0)("tune"))
                        means[str(constant)] = round(float(play.rewards.sum(2).mean()), 4)
                    return {"best": max(means, key=means.__getitem__), "means": means}

                yield f"{name} n={n} k={k}", compute


def tune_mdps(grids: Grids, prior_mean: float) -> Cells:
    """One cell a solver and constant, for all trial lengths: shorter trials are the beginnings of longer ones."""
    family = TabularMDP(episodes=max(EPISODES))
    for name, grid in grids.items():
        for constant in grid if len(grid) > 1 else ():

            def compute(name: str = name, constant: float = constant) -> dict[str, Any]:
                strategy = mdp_strategy(name, constant)
                tasks = family.fixed("validation", VALIDATION_TASKS // 2)
                solver = mdp.MDPSolver(family, strategy, prior_mean)
                so_far = solver.play(tasks, 1, Key(0)("tune"))[:, 0].mean(0).cumsum()
                return {f"n={n}": round(float(so_far[n - 1]), 3) for n in EPISODES}

            yield f"{name} {constant}", compute


def chosen_bandit_constants() -> dict[tuple[int, int], tuple[float, float, float]]:
    """The best constant of every cell, from `tune`."""
    written = load(RESULTS / "bandit" / "tuning.json")
    names = ("epsilon-greedy", "ucb1", "gittins")
    return {(n, k): tuple(float(written[f"{s} n={n} k={k}"]["best"]) for s in names) for n in PULLS for k in ARMS}


def best_mdp_constant(file: str, grid: Sequence[float], name: str, n: int) -> float:
    """The constant with the best validation return in trials of n episodes, from `tune`."""
    written = load(RESULTS / "tabular_mdp" / file)
    return max(grid, key=lambda constant: float(written[f"{name} {constant}"][f"n={n}"]))


def chosen_mdp_constants() -> dict[int, tuple[float, float, float, int]]:
    """The best constant of every trial length, from `tune`."""

    def best(name: str, n: int) -> float:
        return best_mdp_constant("tuning.json", TABULAR_MDP["grids"][name], name, n)

    return {
        n: (best("epsilon-greedy", n), best("beb", n), best("ucrl2", n), int(best("optimistic-psrl", n)))
        for n in EPISODES
    }


def run_bandits() -> Cells:
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


def run_mdps() -> Cells:
    """One cell a solver and trial length, and the same with the prior's mean reward at 0."""
    for n in EPISODES:
        family = TabularMDP(episodes=n)
        solvers = {name: mdp.solver(name, family) for name in mdp.STRATEGIES}
        for name, grid in PRIOR_0.items():
            best = [best_mdp_constant("tuning_prior_0.json", grid, name, n)] if len(grid) > 1 else grid
            solvers[f"{name}, prior 0"] = mdp.MDPSolver(family, mdp_strategy(name, *best), prior_mean=0.0)
        for name, solver in solvers.items():

            def compute(family: TabularMDP = family, solver: mdp.MDPSolver = solver) -> dict[str, Any]:
                returns = solver.play(family.fixed("test", TEST_TASKS), 1, Key(0)("test"))
                per_episode = returns.mean((0, 1)).round(3).tolist()
                return summary(returns.sum((1, 2)), strategy=repr(solver.strategy), return_per_episode=per_episode)

            yield f"{name} n={n}", compute


def cell(row: dict[str, Any] | None, published: float | None) -> str:
    """Our mean and error, the published number, and their distance in combined standard errors."""
    if row is None:
        return ""
    digits = 2 if row["mean"] < 1000 else 1
    text = f"{row['mean']:.{digits}f} ± {row['error']:.{digits}f}"
    if published is None:
        return text
    theirs = math.hypot(row["sd"] / math.sqrt(LITERATURE_TASKS), 0.05 / math.sqrt(3))  # their sample, their rounding
    z = (row["mean"] - published) / math.hypot(row["error"], theirs)
    mark = "" if abs(z) <= 3 else " **!**"
    return f"{text} ({published}; {z:+.1f}){mark}"


def table(written: dict[str, Any], columns: dict[str, str], literature: Mapping[str, Sequence[float]]) -> str:
    """A Markdown table; a column is a suffix of the cells' names."""
    names = list(dict.fromkeys(name.rsplit(" n=", 1)[0] for name in written))
    lines = ["| solver | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        published: Sequence[float | None] = literature.get(name.removesuffix(", prior 0")) or [None] * len(columns)
        cells = [cell(written.get(f"{name} {c}"), p) for c, p in zip(columns, published, strict=True)]
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
    written, parts = load(RESULTS / "bandit" / "table.json"), []
    for i, n in enumerate(PULLS):
        rows = {name: row for name, row in written.items() if f" n={n} " in name}
        literature = {name: values[3 * i : 3 * i + 3] for name, values in BANDIT["literature"].items()}
        columns = {f"n={n} k={k}": f"n={n}, k={k}" for k in ARMS}
        parts.append(table(rows, columns, literature))
    lines = ["| pulls, arms | epsilon | UCB1 width | Gittins discount |", "|---|---|---|---|"]
    lines += [f"| {n}, {k} | {e} | {w} | {d} |" for (n, k), (e, w, d) in bandit.CONSTANTS.items()]
    curves = {name: row["regret_per_pull"] for name, row in written.items() if name.endswith(" n=100 k=5")}
    curves = {name.removesuffix(" n=100 k=5"): values for name, values in curves.items()}
    draw(RESULTS / "bandit" / "regret.png", curves, "pull", "expected regret of a pull", "Bernoulli bandit, 5 arms")
    report("bandit", "\n\n".join([*parts, "Constants, chosen on validation tasks:", "\n".join(lines)]))


def report_mdps() -> None:
    """One table, and the constants."""
    written = load(RESULTS / "tabular_mdp" / "table.json")
    lines = ["| episodes | epsilon | BEB bonus | UCRL2 scale | optimistic PSRL samples |", "|---|---|---|---|---|"]
    lines += [f"| {n} | {e} | {b} | {s} | {m} |" for n, (e, b, s, m) in mdp.CONSTANTS.items()]
    tables = table(written, {f"n={n}": f"n={n}" for n in EPISODES}, TABULAR_MDP["literature"])
    longest = f" n={EPISODES[-1]}"
    curves = {k.removesuffix(longest): v["return_per_episode"] for k, v in written.items() if k.endswith(longest)}
    draw(RESULTS / "tabular_mdp" / "returns.png", curves, "episode", "return of an episode", "Tabular MDP")
    report("tabular_mdp", "\n\n".join([tables, "Constants, chosen on validation tasks:", "\n".join(lines)]))


def tune(name: str) -> None:
    """Measure the constants of a table on validation tasks, and print those to take."""
    folder = RESULTS / name
    if name == "bandit":
        fill(folder / "tuning.json", tune_bandits())
        print("CONSTANTS =", chosen_bandit_constants())
    else:
        fill(folder / "tuning.json", tune_mdps(TABULAR_MDP["grids"], 1.0))
        fill(folder / "tuning_prior_0.json", tune_mdps(PRIOR_0, 0.0))
        print("CONSTANTS =", chosen_mdp_constants())


def reproduce(name: str, again: bool) -> None:
    """Judge the cells of a table that are not written yet, or all, and put it into its README."""
    path, bandits = RESULTS / name / "table.json", name == "bandit"
    if again:
        path.unlink(missing_ok=True)
    fill(path, run_bandits() if bandits else run_mdps())
    report_bandits() if bandits else report_mdps()
