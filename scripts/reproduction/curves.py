"""Tables of adaptation curves: train, evaluate on frozen test tasks, compare, write results/TABLE/.

Runs live under runs/TABLE-AGENT-SEED. One that exists is resumed, one that results/TABLE/runs/ holds is continued from
there, so an interrupted reproduction goes on where it stopped. Every number of a table's README is measured here or
quoted from the paper it names; nothing in it is typed in by hand afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reproduction.description import RESULTS, ROOT, Agent, Table
from reproduction.extras import EXTRAS
from reproduction.markdown import Rows, markdown, provenance
from reproduction.training import keep, metarl, progress, train


def validation(run: Path, shown: int = 10) -> Rows:
    """Up to `shown` validations of a run, evenly spread: the iteration, then the mean score after 0, 1, ... steps."""
    prefix = "return/validation_"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validated = [line for line in lines if f"{prefix}0" in line]
    picked = sorted({round(i) for i in np.linspace(0, len(validated) - 1, min(shown, len(validated)))})
    return [
        (f"{validated[i]['iteration'] + 1:,}", *(f"{v:.1f}" for k, v in validated[i].items() if k.startswith(prefix)))
        for i in picked
    ]


def row_of(readme: Path, first: str) -> tuple[str, ...] | None:
    """The cells of the row of a committed table that begins with these words, or None."""
    lines = readme.read_text().splitlines() if readme.exists() else []
    rows = (tuple(line.strip("|").split("|")) for line in lines if line.startswith(f"|{first}|"))
    return next((row for row in rows if "not trained yet" not in row), None)


@dataclass
class Account:
    """What was done for a table: the commands, the budgets of its runs, and how validation went in them."""

    commands: list[str] = field(default_factory=list)
    budgets: Rows = field(default_factory=list)
    histories: list[str] = field(default_factory=list)


def reproduce(name: str, seeds: int | None, minutes: float | None, only: Sequence[str], again: bool) -> None:
    """Train, evaluate and compare a table's agents; write results/NAME."""
    table, out, account = Table.of(name), RESULTS / name, Account()
    out.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[Path]] = {setting: [] for setting in table.settings}
    for agent in table.agents:
        for seed in range((table.seeds if seeds is None else seeds) if agent.train is not None else 1):
            target = agent.name if agent.train is None else str(Path("runs") / f"{name}-{agent.name}-{seed}")
            limit = minutes if not only or agent.name in only else 0
            if agent.train is None or trained(name, table, agent, seed, target, limit, account):
                judge(table, agent, seed, target, out, again, curves, account)
    sections = []
    for setting, files in curves.items():
        sections += compared(setting or name, out / (setting.replace(" ", "-") or "curve"), files, table, account)
    if table.extra:
        first = [path for path in curves[next(iter(table.settings))] if f"{table.agents[0].name}-" in path.name]
        scores = np.concatenate([json.loads(path.read_text())["per_task"] for path in first])
        sections += markdown(*EXTRAS[table.extra](scores))
    sections += [table.published.strip(), "", *account.histories]
    write_readme(name, table, sections, account)


def trained(
    name: str, table: Table, agent: Agent, seed: int, target: str, minutes: float | None, account: Account
) -> bool:
    """Train a run as far as it may be, and keep it; whether there is one to judge, or it was judged before."""
    out = RESULTS / name
    run, kept, who = ROOT / target, out / "runs" / f"{agent.name}-{seed}", f"{agent.name}, seed {seed}"
    words = [
        agent.learner or agent.name,
        *table.source.split(),
        *(agent.train or "").split(),
        "--seed",
        str(seed),
        "--out",
        target,
    ]
    if minutes == 0 and not any((folder / "config.json").exists() for folder in (run, kept)):
        budget = row_of(out / "README.md", who)
        account.budgets.append(budget or (who, "not trained yet", agent.published, ""))
        if budget is None or not all(path.exists() for path in agent.files(out, table, seed).values()):
            return False
        account.commands.append("metarl train " + " ".join(words))  # judged before; its run is too large to commit
    else:
        account.commands.append(train(Path(target), kept, words, minutes))
        done, planned, spent = progress(run)
        keep(run, kept)
        iterations = f"{done:,}" if done == planned else f"{done:,} of {planned:,}"
        account.budgets.append((who, iterations, agent.published, f"{spent:.1f}"))
    if (run / "metrics.jsonl").exists() and (history := validation(run)):
        steps = (f"{k} steps" for k in range(len(history[0]) - 1))
        account.histories += [f"Validation tasks while {who}, was trained:", ""]
        account.histories += markdown(("iterations", *steps), history)
    return True


def judge(
    table: Table,
    agent: Agent,
    seed: int,
    target: str,
    out: Path,
    again: bool,
    curves: dict[str, list[Path]],
    account: Account,
) -> None:
    """Evaluate a run or an agent in each of its settings, where it was not since it was last trained."""
    for setting, curve in agent.files(out, table, seed).items():
        words = table.evaluation(agent, setting, target, curve)
        account.commands.append("metarl evaluate " + " ".join(words))
        state = ROOT / target / "checkpoints" / "latest.json"
        judged = curve.exists() and (not state.exists() or curve.stat().st_mtime >= state.stat().st_mtime)
        if (again or not judged) and (agent.train is None or state.exists()):
            metarl("evaluate", *words)
        curves[setting].append(curve)


def compared(title: str, stem: Path, files: Sequence[Path], table: Table, account: Account) -> list[str]:
    """The picture and the table of curves of one setting, as lines of the README."""
    if not files:
        raise SystemExit(f"{title}: there is no run to judge; train one first (--budget 0 trains none)")
    text = stem.with_name(f"{stem.name}.md")
    pictures = ["--out", f"{stem.relative_to(ROOT)}.png", "--markdown", str(text.relative_to(ROOT))]
    names = [str(path.relative_to(ROOT)) for path in files]
    account.commands.append(metarl("compare", *names, *pictures, *table.compare.split()))
    lines = [*([f"## {title}", ""] if stem.name != "curve" else []), f"![{title}]({stem.name}.png)", ""]
    lines += [text.read_text().strip(), ""]
    text.unlink()
    return lines


def write_readme(name: str, table: Table, sections: list[str], account: Account) -> None:
    """The table with how it was made."""
    lines = [f"# {name}", "", table.about.strip(), "", *sections]
    lines += markdown(("run", "iterations done", "published", "minutes of training"), account.budgets)
    lines += [
        provenance("one or two runs at a time, "),
        "",
        f"Made by `python scripts/reproduce.py {name}`, that is:",
        "",
        "```",
        *account.commands,
        "```",
        "",
        "The JSON files hold every task's scores; `runs/` what is needed to resume a run, where it is small.",
    ]
    (RESULTS / name / "README.md").write_text("\n".join(lines) + "\n")
