"""RL² on problems whose answers are known, and on 2D navigation: train, judge, write results/rl2/.

A run is runs/rl2-PROBLEM-0 or runs/navigation-rl2-SEED; one that exists is resumed, one that results/rl2/runs/
holds is continued from there. Where the answer is known, 50,000 frozen test tasks judge: the agent and the
classical solvers meet the same tasks, one trial each, with noise of their own. `expected` figures count what the
arms that were pulled pay on average, not what they happened to pay: the same in the long run, with less noise.
Nothing in the README is typed in by hand.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from metarl.agents import baselines, rl2
from metarl.agents.solvers import bandits as bandit_solvers
from metarl.agents.solvers import mdps as mdp_solvers
from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.evaluation.statistics import bootstrap
from metarl.evaluation.storage import dump_json
from metarl.learning.contract import Budget, Scores
from metarl.runs.run import Run
from metarl.tasks import TaskFamily
from reproduction.description import DESCRIPTIONS, RESULTS, ROOT
from reproduction.markdown import provenance
from reproduction.training import keep, progress, train

matplotlib.use("Agg")
OUT = RESULTS / "rl2"
TASKS = 50_000  # test tasks, a trial each
LIKELIEST = "rl2, likeliest"
SHOWN = {"informed": ":", "bayes-optimum": ":", "gittins": "--", "beb": "--", "greedy": "-.", "random": (0, (1, 4))}
Z = 1.96  # standard errors to the end of a 95 % interval


@dataclass(frozen=True)
class Problem:
    """A family with a known answer.

    Attributes:
        title: for tables and pictures.
        family: its id.
        options: the family's.
        train: the words after the family.
        bar: what the mean return of a trial should reach; a solver's name stands for what that earns.
        published: rows of the literature, agent -> mean return of a trial.
        expected: the exact optimum's expected return, where it is computed.
        levels: mean returns whose first passing is timed.
        note: what a reader must know besides.
    """

    title: str
    family: str
    options: dict[str, Any]
    train: str
    bar: float | str
    published: dict[str, float]
    expected: float | None = None
    levels: Sequence[float] = ()
    note: str = ""

    @property
    def words(self) -> str:
        """The family as the command line takes it."""
        return " ".join([f"--family {self.family}", *(f"--{name} {value}" for name, value in self.options.items())])


PROBLEMS = {name: Problem(**words) for name, words in DESCRIPTIONS["rl2"]["problems"].items()}
PROBLEM_NAMES = [*PROBLEMS, "navigation"]


def solver(name: str, family: TaskFamily) -> Any:
    """A classical solver, which plays whole trials; the registry's `random` plays one episode."""
    return (bandit_solvers if hasattr(family, "likelihood") else mdp_solvers).solver(name, family)


def judge(problem: Problem, run: Run, *, solvers: bool = True) -> dict[str, Any]:
    """The agent, and every solver unless told otherwise, on the same test tasks."""
    family = make_family(problem.family, **problem.options)
    tasks, budget = family.fixed("test", TASKS), Budget(0, 1)
    classical = bandit_solvers if hasattr(family, "likelihood") else mdp_solvers
    agent = rl2.load(run, family)
    agents: dict[str, Any] = {"rl2": agent, LIKELIEST: replace(agent, likeliest=True)}
    for name in classical.STRATEGIES if solvers else ():
        if name != "bayes-optimum" or problem.expected is not None:
            agents[name] = solver(name, family)
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


def section(name: str, judged: dict[str, Any]) -> list[str]:
    """A problem's part of the README."""
    problem, rows = PROBLEMS[name], judged["agents"]
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
    lines += ["", f"{judged['iterations']:,} of {judged['planned']:,} updates, {judged['steps']:,} environment steps, "]
    lines[-1] += f"{judged['minutes']:.1f} minutes of training, {judged['threads']} thread(s)."
    lines += [problem.note] if problem.note else []
    for level, seconds in judged["seconds to"].items():
        lines.append(f"An update's training trials first earned more than {level} after {seconds:.0f} s of training.")
    return [*lines, ""]


def shown(row: list[float], *, sign: bool = False) -> str:
    """Mean ± half the interval."""
    digits = 3 if abs(row[0]) < 20 else 2
    return f"{row[0]:{'+' if sign else ''}.{digits}f} ± {(row[2] - row[1]) / 2:.{digits}f}"


def draw(name: str, run: Path, judged: dict[str, Any]) -> None:
    """The training curve, with what solvers earn."""
    config = json.loads((run / "config.json").read_text())["config"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    horizon = judged["steps"] / judged["iterations"] / config["trials"]
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
        if agent in judged["agents"]:
            level = judged["agents"][agent]["return"][0]
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
    judged = judge(problem, run) | {"command": command}
    done, planned, spent = progress(ROOT / target)
    horizon = Trials(family=make_family(problem.family, **problem.options)).horizon
    judged |= {"iterations": done, "planned": planned, "minutes": round(spent, 1), "threads": run.config.threads}
    judged |= {"steps": done * run.config.trials * horizon, "seconds to": seconds_to(run, problem.levels)}
    draw(name, ROOT / target, judged)
    (OUT / f"{name}.json").write_text(dump_json(judged))


def make_navigation(minutes: float | None, judging: bool) -> None:
    """Three seeds on 2D navigation; the runs of `scripts/reproduce.py navigation`."""
    words = DESCRIPTIONS["rl2"]["navigation"]
    family = make_family(words["family"])
    goals, budget = family.fixed("test", words["tasks"]), Budget(0, words["trials"])
    values, commands, spent = [], [], []
    for seed in range(words["seeds"]):
        target = Path("runs") / f"navigation-rl2-{seed}"
        kept = RESULTS / "navigation" / "runs" / f"rl2-{seed}"
        command = ["rl2", "--family", family.name, *words["train"].split(), "--seed", str(seed), "--out", str(target)]
        commands.append(train(target, kept, command, minutes))
        if judging:
            if seed == 0:
                keep(ROOT / target, OUT / "runs" / target.name)
            values.append(rl2.load(Run.open(ROOT / target, rl2.Config), family).curve(goals, budget, 0).values)
            spent.append(progress(ROOT / target))
    if judging:
        scores = np.stack(values)
        ends = bootstrap(scores)
        optimum = float(baselines.Oracle(family).curve(goals, budget, 0).values.mean())
        document = {
            "problem": words["title"],
            "tasks": words["tasks"],
            "trials": words["trials"],
            "tasks_sha256": goals.sha256(),
            "mean": scores.mean((0, 1)).round(3).tolist(),
            "by seed": [value.mean(0).round(3).tolist() for value in values],
            **{end: getattr(ends, end).round(3).tolist() for end in ("low", "high")},
            "optimum": round(optimum, 3),
            "training": [{"iterations": n, "planned": of, "minutes": round(m, 1)} for n, of, m in spent],
            "commands": commands,
        }
        (OUT / "navigation.json").write_text(dump_json(document))


def navigation_section(judged: dict[str, Any]) -> list[str]:
    """Navigation's part of the README."""

    def row(label: str, values: list[Any]) -> str:
        return "|" + "|".join([label, *(f"{v:.2f}" if isinstance(v, float) else v for v in values)]) + "|"

    episodes = range(1, len(judged["mean"]) + 1)
    ends = [f"[{low:.2f}, {high:.2f}]" for low, high in zip(judged["low"], judged["high"], strict=True)]
    mean, bar = judged["mean"][1], DESCRIPTIONS["rl2"]["navigation"]["bar"]
    lines = [
        f"## {judged['problem']}",
        "",
        row(f"mean return on {judged['tasks']:,} unseen goals", [f"episode {k}" for k in episodes]),
        "|---|" + "---|" * len(episodes),
        *(row(f"seed {i}", values) for i, values in enumerate(judged["by seed"])),
        row("**all seeds**", judged["mean"]),
        row("95 % interval over seeds and goals", ends),
        row("optimum, which knows the goal", [judged["optimum"]] * len(episodes)),
        "",
        f"Bar: a second episode better than {bar:g}. {'Reached' if mean > bar else 'Not reached'}: {mean:.2f}.",
        "",
    ]
    budgets = [f"{t['iterations']:,} of {t['planned']:,} updates in {t['minutes']:.1f}" for t in judged["training"]]
    lines += [
        f"{judged['trials']} trials of {len(episodes)} episodes a goal. Minutes of training: {', '.join(budgets)}.",
        "",
    ]
    return lines


def seconds_to(run: Run, levels: Sequence[float]) -> dict[str, float]:
    """Seconds of training until an update's training trials first earned so much on average."""
    elapsed, first = 0.0, dict[str, float]()
    for metrics, timings in zip(run.metrics(), run.timings(), strict=True):
        elapsed += timings["sampling_s"] + timings["update_s"]
        for level in levels:
            if metrics["return/trial"] > level:
                first.setdefault(str(level), elapsed)
    return first


def write_readme() -> None:
    """All problems that were judged."""
    documents = {name: json.loads(path.read_text()) for name in PROBLEMS if (path := OUT / f"{name}.json").exists()}
    lines = ["# RL² where the answer is known", "", DESCRIPTIONS["rl2"]["about"].strip(), ""]
    for name, document in documents.items():
        lines += section(name, document)
    commands = [document["command"] for document in documents.values()]
    if (OUT / "navigation.json").exists():
        document = json.loads((OUT / "navigation.json").read_text())
        lines += navigation_section(document)
        commands += document["commands"]
    lines += [
        provenance(),
        "",
        "Made by `python scripts/reproduce.py rl2`, that is:",
        "",
        "```",
        *commands,
        "```",
        "",
        "The JSON files hold every figure, with returns by episode and regret by pull; `runs/` what resuming needs.",
    ]
    (OUT / "README.md").write_text("\n".join(lines) + "\n")


def reproduce(only: Sequence[str], minutes: float | None, judging: bool) -> None:
    """Train and judge the problems named, or all; write results/rl2."""
    for name in only or PROBLEM_NAMES:
        if name == "navigation":
            make_navigation(minutes, judging)
        else:
            make(name, minutes, judging)
    write_readme()
