"""The tables of scripts/tables.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
DESCRIPTIONS: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "scripts" / "tables.toml").read_text())


@dataclass(frozen=True)
class Agent:
    """A learner of a table, or a behaviour that needs no training.

    Attributes:
        name: of its row.
        learner: as the command line knows it, where the row has another name.
        train: the words after `metarl train NAME SOURCE`; None where nothing is trained.
        published: meta-iterations or similar of the published result, for the table of budgets.
        settings: the settings of the table it is judged in; all unless given.
    """

    name: str
    train: str | None = None
    published: str = ""
    settings: tuple[str, ...] | None = None
    learner: str = ""

    def files(self, out: Path, table: Table, seed: int) -> dict[str, Path]:
        """Where its curve in each of the table's settings lies."""
        settings = table.settings if self.settings is None else self.settings
        return {
            setting: out / "-".join(filter(None, (setting.replace(" ", "-"), self.name, f"{seed}.json")))
            for setting in table.settings
            if setting in settings
        }


@dataclass(frozen=True)
class Table:
    """How a table is made.

    Attributes:
        source: the words that name the family or data set.
        agents: who is compared, in the order of the table.
        evaluate: the words after `metarl evaluate RUN`.
        about: a paragraph for the README.
        settings: titles of further problems the same runs are judged on, and the words that ask for each.
        published: lines of Markdown with the literature's figures, under the measured ones.
        extra: a table of its own from the scores of the first agent, by its name in `extras`.
        seeds: training seeds unless told otherwise.
        compare: further words of `metarl compare`.
    """

    source: str
    agents: tuple[Agent, ...]
    evaluate: str
    about: str
    settings: dict[str, str] = field(default_factory=lambda: {"": ""})
    published: str = ""
    extra: str = ""
    seeds: int = 1
    compare: str = ""

    @staticmethod
    def of(name: str) -> Table:
        """A table of curves by its name."""
        words = {key: value for key, value in DESCRIPTIONS[name].items() if key != "kind"}
        words["agents"] = tuple(
            Agent(**{key: tuple(value) if isinstance(value, list) else value for key, value in agent.items()})
            for agent in words["agents"]
        )
        return Table(**words)

    def evaluation(self, agent: Agent, setting: str, target: str, curve: Path) -> list[str]:
        """The words after `metarl evaluate` that judge an agent in a setting, and write its curve."""
        source = self.source.split() if agent.train is None else []
        words = [target, *source, *self.evaluate.split(), *self.settings[setting].split()]
        return [*words, "--json", str(curve.relative_to(ROOT) if curve.is_relative_to(ROOT) else curve)]


def tables(kind: str) -> list[str]:
    """The names of the tables of a kind."""
    return [name for name, words in DESCRIPTIONS.items() if words["kind"] == kind]
