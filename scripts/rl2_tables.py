"""RL² on problems whose answers are known, and on 2D navigation: train, judge, write results/rl2/.

    python scripts/rl2_tables.py                         all problems, as far as their iterations go
    python scripts/rl2_tables.py --only mdp-10 --budget 30
    python scripts/rl2_tables.py --budget 0              judge what is there

A run is runs/rl2-PROBLEM-0 or runs/navigation-rl2-SEED; one that exists is resumed, one that results/rl2/runs/
holds is continued from there. Where the answer is known, 50,000 frozen test tasks judge: the agent and the
classical solvers meet the same tasks, one trial each, with luck of their own. `expected` figures count what the
arms that were pulled pay on average, not what they happened to pay: the same in the long run, with less noise.
Nothing in the README is typed in by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from reproduce import ROOT, keep, progress, train

from metarl.agents import baselines, rl2
from metarl.agents.solvers import bandits as bandit_solvers
from metarl.agents.solvers import mdps as mdp_solvers
from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.evaluation.statistics import bootstrap
from metarl.evaluation.storage import dump_json
from metarl.learning.contract import Budget, Scores
from metarl.runs.run import Run

matplotlib.use("Agg")
OUT = ROOT / "results" / "rl2"
TASKS = 50_000  # test tasks, a trial each
GOALS, GOAL_TRIALS = 1000, 4  # of navigation
LIKELIEST = "rl2, likeliest"
SHOWN = {"informed": ":", "bayes-optimum": ":", "gittins": "--", "beb": "--", "greedy": "-.", "random": (0, (1, 4))}
ABOUT = f"""The agent and the classical solvers (`results/bandit`, `results/tabular_mdp`) on the same {TASKS:,} frozen
test tasks, one trial each, last iterates. RL² draws its actions; a row of its own takes the most likely ones. Settings
were chosen on training and validation tasks. *Expected* counts what the pulled arms pay on average instead of what they
happened to pay: the same mean with less noise. Differences are paired by task. The literature's rows are as Mishra et
al. 2018 quote them, read in the README of lucaslingle/pytorch_rl2."""
Z = 1.96  # standard errors to the end of a 95 % interval


@dataclass(frozen=True)
class Problem:
    """A family with a known answer.

    Attributes:
        title: for tables and pictures.
        family: its id and options, as the command line takes them.
        train: the words after the family.
        bar: what the mean return of a trial should reach; a solver's name stands for what that earns.
        published: rows of the literature, agent -> mean return of a trial.
        expected: the exact optimum's expected return, where it is computed.
        levels: mean returns whose first passing is timed.
        note: what a reader must know besides.
    """

    title: str
    family: tuple[str, dict[str, Any]]
    train: str
    bar: float | str
    published: dict[str, float]
    expected: float | None = None
    levels: tuple[float, ...] = ()
    note: str = ""

    @property
    def words(self) -> str:
        """The family as the command line takes it."""
        name, options = self.family
        return " ".join([f"--family {name}", *(f"--{option} {value}" for option, value in options.items())])


PROBLEMS = {
    "bandit-10-5": Problem(
        title="Bernoulli bandit, n=10, k=5",
        family=("metarl/BernoulliBandit-v0", {"arms": 5, "pulls": 10}),
        train="--validate-every 25 --validation-tasks 10000",
        bar="gittins",
        published={"Duan et al. 2016, RL²": 6.7, "Duan et al. 2016, Gittins": 6.6, "SNAIL": 6.6},
        expected=6.660,
        levels=(6.2, 6.5),
        note="The test tasks were looked at twice: a first run with `--iterations 300 --halve-every 50` earned 6.643 "
        "on them (6.658 by the most likely actions). The halving was then made slower for what validation tasks "
        "showed: 6.669 instead of 6.657 at the end. The seconds are of two cores with four to thirteen busy processes.",
    ),
    "bandit-100-5": Problem(
        title="Bernoulli bandit, n=100, k=5",
        family=("metarl/BernoulliBandit-v0", {"arms": 5, "pulls": 100}),
        train="--preset-config long --validate-every 100",
        bar=78.0,
        published={"Duan et al. 2016, RL²": 78.7, "Duan et al. 2016, Gittins": 78.3, "SNAIL": 79.1},
    ),
    "mdp-10": Problem(
        title="Tabular MDPs, 10 episodes",
        family=("metarl/TabularMDP-v0", {}),
        train="--preset-config long --validate-every 100",
        bar=155.0,
        published={"Duan et al. 2016, RL²": 156.2, "Duan et al. 2016, BEB": 150.2, "SNAIL": 159.1},
    ),
}


def judge(problem: Problem, run: Run) -> dict[str, Any]:
    """The agent and every solver on the same test tasks."""
    family = make_family(problem.family[0], **problem.family[1])
    tasks, budget = family.fixed("test", TASKS), Budget(0, 1)
    solvers = bandit_solvers if hasattr(family, "likelihood") else mdp_solvers
    agent = rl2.load(run, family)
    agents: dict[str, Any] = {"rl2": agent, LIKELIEST: replace(agent, likeliest=True)}
    for name in solvers.STRATEGIES:
        if name != "bayes-optimum" or problem.expected is not None:
            agents[name] = solvers.solver(name, family)
    rows: dict[str, Any] = {}
    returns: dict[str, Any] = {}
    for name, agent in agents.items():
        started = time.perf_counter()
        scores: Scores = agent.curve(tasks, budget, 0)
        returns[name] = scores.values.sum(1)
        rows[name] = {"return": interval(returns[name]), "rl2 minus it": interval(returns["rl2"] - returns[name])}
        if scores.values.shape[1] > 1:
            rows[name]["by episode"] = scores.values.mean(0).round(3).tolist()
        if scores.regret is not None:
            best = tasks.arrays["mean"].max(1) * scores.regret.shape[1]
            returns[f"{name} expected"] = best - scores.regret.sum(1)
            rows[name]["expected return"] = interval(returns[f"{name} expected"])
            rows[name]["rl2 minus it, expected"] = interval(returns["rl2 expected"] - returns[f"{name} expected"])
            rows[name]["regret a pull"] = scores.regret.mean(0).round(4).tolist()
        rows[name]["seconds"] = round(time.perf_counter() - started, 1)
        print(f"{problem.title}: {name} {rows[name]['return'][0]:.3f}", flush=True)
    return {"problem": problem.title, "tasks": TASKS, "tasks_sha256": tasks.sha256(), "agents": rows}


def interval(values: np.ndarray) -> list[float]:
    """Mean and the ends of its 95 % interval."""
    mean, half = float(values.mean()), Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return [round(x, 4) for x in (mean, mean - half, mean + half)]


def section(name: str, found: dict[str, Any]) -> list[str]:
    """A problem's part of the README."""
    problem, rows = PROBLEMS[name], found["agents"]
    exact = "expected return" in rows["rl2"]
    head = ["mean return of a trial, 95 % interval", "measured", "RL² minus it"]
    lines = [f"## {problem.title}", "", f"![{problem.title}]({name}.png)", ""]
    head += ["expected", "RL² minus it, expected"] if exact else []
    lines += ["|" + "|".join(head) + "|", "|" + "---|" * len(head)]
    for agent, row in sorted(rows.items(), key=lambda item: -item[1]["return"][0]):
        label = {"rl2": "**RL²**", LIKELIEST: "**RL², most likely actions**"}.get(agent, agent)
        cells = [label, shown(row["return"]), "" if agent == "rl2" else shown(row["rl2 minus it"], sign=True)]
        if exact:
            cells.append(shown(row["expected return"]))
            cells.append("" if agent == "rl2" else shown(row["rl2 minus it, expected"], sign=True))
        lines.append("|" + "|".join(cells) + "|")
    for agent, value in problem.published.items():
        lines.append("|" + "|".join([agent, f"{value}", *[""] * (len(head) - 2)]) + "|")
    if isinstance(problem.bar, float):
        bar, what = problem.bar, f"{problem.bar:g}"
    else:
        bar = rows[problem.bar]["return"][0]
        what = f"our own {problem.bar} on the same tasks, {bar:.3f}"
    lines += ["", f"Bar: {what}."]
    for agent, how in (("rl2", "actions drawn"), (LIKELIEST, "most likely actions")):
        low, high = rows[agent]["return"][1:]
        verdict = "reached" if high >= bar else "not reached"
        lines.append(f"RL², {how}: {verdict}, its interval is [{low:.3f}, {high:.3f}].")
    if exact and isinstance(problem.bar, str):
        difference = shown(rows[problem.bar]["rl2 minus it, expected"], sign=True)
        lines.append(f"In expected figures, RL² minus {problem.bar} is {difference}.")
    if problem.expected is not None:
        lines.append(f"The exact optimum earns {problem.expected:.3f} in expectation over the prior.")
    lines += ["", f"{found['iterations']:,} of {found['planned']:,} updates, {found['steps']:,} environment steps, "]
    lines[-1] += f"{found['minutes']:.1f} minutes of training, {found['threads']} thread(s)."
    lines += [problem.note] if problem.note else []
    for level, seconds in found["seconds to"].items():
        lines.append(f"An update's training trials first earned more than {level} after {seconds:.0f} s of training.")
    return [*lines, ""]


def shown(row: list[float], *, sign: bool = False) -> str:
    """Mean ± half the interval."""
    digits = 3 if abs(row[0]) < 20 else 2
    return f"{row[0]:{'+' if sign else ''}.{digits}f} ± {(row[2] - row[1]) / 2:.{digits}f}"


def draw(name: str, run: Path, found: dict[str, Any]) -> None:
    """The training curve, with what solvers earn."""
    config = json.loads((run / "config.json").read_text())["config"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    horizon = found["steps"] / found["iterations"] / config["trials"]
    steps = [(line["iteration"] + 1) * config["trials"] * horizon for line in lines]
    figure, ax = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    styles: dict[str, Any] = {
        "training": {"color": "#0072b2", "linewidth": 0.8},
        "validation": {"color": "#d55e00", "marker": "o", "markersize": 3},
    }
    for key, kind in (("return/trial", "training"), ("return/validation_trial", "validation")):
        there = [i for i, line in enumerate(lines) if key in line]
        ax.plot([steps[i] for i in there], [lines[i][key] for i in there], label=f"RL², {kind} tasks", **styles[kind])
    for agent, style in SHOWN.items():
        if agent in found["agents"]:
            level = found["agents"][agent]["return"][0]
            ax.axhline(level, color="#666666", linewidth=1, linestyle=style, label=agent)
    ax.set_xlabel("environment steps")
    ax.set_ylabel("return of a trial")
    ax.set_title(PROBLEMS[name].title, loc="left", fontsize=9)
    ax.legend(fontsize=7)
    figure.savefig(OUT / f"{name}.png", dpi=150)
    plt.close(figure)


def make(name: str, minutes: float | None, judging: bool) -> None:
    """Train a problem's agent, judge it, write JSON and picture."""
    problem, target = PROBLEMS[name], Path("runs") / f"rl2-{name}-0"
    words = ["rl2", *problem.words.split(), *problem.train.split(), "--seed", "0", "--out", str(target)]
    command = train(target, OUT / "runs" / name, words, minutes)
    if not judging:
        return
    keep(ROOT / target, OUT / "runs" / name)
    run = Run.open(ROOT / target, rl2.Config)
    found = judge(problem, run) | {"command": command}
    done, planned, spent = progress(ROOT / target)
    horizon = Trials(family=make_family(problem.family[0], **problem.family[1])).horizon
    found |= {"iterations": done, "planned": planned, "minutes": round(spent, 1), "threads": run.config.threads}
    found |= {"steps": done * run.config.trials * horizon, "seconds to": seconds_to(run, problem.levels)}
    draw(name, ROOT / target, found)
    (OUT / f"{name}.json").write_text(dump_json(found))


NAVIGATION = "--family metarl/Navigation2D-v0 --preset-config navigation"


def make_navigation(minutes: float | None, judging: bool) -> None:
    """Three seeds on 2D navigation; the runs of `scripts/reproduce.py navigation`."""
    family = make_family("metarl/Navigation2D-v0")
    goals, budget = family.fixed("test", GOALS), Budget(0, GOAL_TRIALS)
    values, commands, spent = [], [], []
    for seed in range(3):
        target = Path("runs") / f"navigation-rl2-{seed}"
        words = ["rl2", *NAVIGATION.split(), "--seed", str(seed), "--out", str(target)]
        commands.append(train(target, ROOT / "results" / "navigation" / "runs" / f"rl2-{seed}", words, minutes))
        if judging:
            if seed == 0:
                keep(ROOT / target, OUT / "runs" / target.name)
            values.append(rl2.load(Run.open(ROOT / target, rl2.Config), family).curve(goals, budget, 0).values)
            spent.append(progress(ROOT / target))
    if judging:
        scores = np.stack(values)
        found = bootstrap(scores)
        optimum = float(baselines.Oracle(family).curve(goals, budget, 0).values.mean())
        document = {
            "problem": "2D navigation",
            "tasks": GOALS,
            "trials": GOAL_TRIALS,
            "tasks_sha256": goals.sha256(),
            "mean": scores.mean((0, 1)).round(3).tolist(),
            "by seed": [value.mean(0).round(3).tolist() for value in values],
            **{end: getattr(found, end).round(3).tolist() for end in ("low", "high")},
            "optimum": round(optimum, 3),
            "training": [{"iterations": n, "planned": of, "minutes": round(m, 1)} for n, of, m in spent],
            "commands": commands,
        }
        (OUT / "navigation.json").write_text(dump_json(document))


def navigation_section(found: dict[str, Any]) -> list[str]:
    """Navigation's part of the README."""

    def row(label: str, values: list[Any]) -> str:
        return "|" + "|".join([label, *(f"{v:.2f}" if isinstance(v, float) else v for v in values)]) + "|"

    episodes = range(1, len(found["mean"]) + 1)
    ends = [f"[{low:.2f}, {high:.2f}]" for low, high in zip(found["low"], found["high"], strict=True)]
    mean = found["mean"][1]
    lines = [
        "## 2D navigation",
        "",
        row(f"mean return on {found['tasks']:,} unseen goals", [f"episode {k}" for k in episodes]),
        "|---|" + "---|" * len(episodes),
        *(row(f"seed {i}", values) for i, values in enumerate(found["by seed"])),
        row("**all seeds**", found["mean"]),
        row("95 % interval over seeds and goals", ends),
        row("optimum, which knows the goal", [found["optimum"]] * len(episodes)),
        "",
        f"Bar: a second episode better than -15. {'Reached' if mean > -15 else 'Not reached'}: {mean:.2f}.",
        "",
    ]
    budgets = [f"{t['iterations']:,} of {t['planned']:,} updates in {t['minutes']:.1f}" for t in found["training"]]
    lines += [
        f"{found['trials']} trials of {len(episodes)} episodes a goal. Minutes of training: {', '.join(budgets)}.",
        "",
    ]
    return lines


def seconds_to(run: Run, levels: tuple[float, ...]) -> dict[str, float]:
    """Seconds of training until an update's training trials first earned so much on average."""
    elapsed, found = 0.0, dict[str, float]()
    for metrics, timings in zip(run.metrics(), run.timings(), strict=True):
        elapsed += timings["sampling_s"] + timings["update_s"]
        for level in levels:
            if metrics["return/trial"] > level:
                found.setdefault(str(level), elapsed)
    return found


def write_readme() -> None:
    """All problems that were judged."""
    judged = {name: json.loads(path.read_text()) for name in PROBLEMS if (path := OUT / f"{name}.json").exists()}
    head_of_tree = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head_of_tree, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    lines = ["# RL² where the answer is known", "", ABOUT, ""]
    for name, found in judged.items():
        lines += section(name, found)
    commands = [found["command"] for found in judged.values()]
    if (OUT / "navigation.json").exists():
        found = json.loads((OUT / "navigation.json").read_text())
        lines += navigation_section(found)
        commands += found["commands"]
    lines += [
        f"Training time is wall-clock on {os.cpu_count()} shared cores ({platform.processor() or platform.machine()}), "
        f"validation and evaluation not counted. torch {torch.__version__}, Python {platform.python_version()}, "
        f"commit {commit}, {time.strftime('%Y-%m-%d', time.gmtime())}.",
        "",
        "Made by `python scripts/rl2_tables.py`, that is:",
        "",
        "```",
        *commands,
        "```",
        "",
        "The JSON files hold every figure, with returns by episode and regret by pull; `runs/` what resuming needs.",
    ]
    (OUT / "README.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*PROBLEMS, "navigation"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PROBLEM", help=", ".join(names))
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="of training, each; 0 judges what is there")
    parser.add_argument("--no-judging", action="store_true", help="train only")
    arguments = parser.parse_args()
    for name in arguments.only:
        if name == "navigation":
            make_navigation(arguments.budget, not arguments.no_judging)
        else:
            make(name, arguments.budget, not arguments.no_judging)
    write_readme()


if __name__ == "__main__":
    main()
