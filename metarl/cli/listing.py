"""`metarl list`: what there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarl import registry
from metarl.cli.durations import durations
from metarl.cli.options import Group, asks_for_help, first, parse
from metarl.cli.terminal import print_json, say
from metarl.errors import UserError, unknown
from metarl.learning.brought import blame
from metarl.plugins import Plugin, plugins

TIME = "training on 2 cores, by preset"


@dataclass(frozen=True)
class ListOptions:
    """Show what there is.

    Attributes:
        json: print JSON.
    """

    json: bool = False


def list_things(words: Sequence[str]) -> int:
    """Show families, agents or data sets."""
    kinds: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "families": _families,
        "agents": _agents,
        "datasets": _datasets,
    }
    if asks_for_help(words):
        say(f"usage: metarl list {{{','.join(kinds)}}} [--json]")
        return 0
    kind, rest = first(words, f"{{{','.join(kinds)}}}", "list")
    if kind not in kinds:
        raise unknown("list", kind, kinds)
    (options,) = parse(f"metarl list {kind}", rest, Group("command", ListOptions))
    rows = kinds[kind]()
    if options.json:
        print_json(rows)
        return 0
    from metarl.reporting.table import Table

    whole = [row for row in rows if "error" not in row]
    say(Table(tuple(whole[0]), tuple(tuple(map(_cell, row.values())) for row in whole), numbers=False).rich())
    for row in rows:
        if "error" in row:
            say(f"broken: {row['error']}")
    return 0


def _families() -> list[dict[str, Any]]:
    return _rows("family", registry.families(), plugins("families"), _family)


def _family(name: str) -> dict[str, Any]:
    kind: Any = registry.source_class(name, "family")
    made = [kind(preset=preset) for preset in kind.presets]
    return {
        "family": name,
        "presets": list(kind.presets),
        "splits": list(made[0].splits),
        "tasks reused": [family.preset for family in made if not family.unseen],
        "options": {k: v for k, v in made[0].options().items() if k != "preset"},
    }


def _agents() -> list[dict[str, Any]]:
    rows = [
        {
            "agent": name,
            "trained": trained,
            "tasks from": entry.source,
            "what": entry.about,
            TIME: durations(name),
        }
        for table, trained in ((registry.agents(), True), (registry.untrained(), False))
        for name, entry in table.items()
    ]
    known = {str(row["agent"]): row for row in rows}
    return _rows("agent", known, plugins("agents"), lambda name: known.get(name) or _agent(name))


def _agent(name: str) -> dict[str, Any]:
    agent = registry.find_agent(name)
    assert agent is not None
    kind = agent.source or "family or dataset"
    trained = agent.learner is not None
    return {"agent": name, "trained": trained, "tasks from": kind, "what": agent.about, TIME: ""}


def _datasets() -> list[dict[str, Any]]:
    return _rows("dataset", registry.datasets(), plugins("datasets"), _dataset)


def _dataset(name: str) -> dict[str, Any]:
    fields = dataclasses.fields(registry.source_class(name, "dataset"))  # the data may be absent: make none
    return {
        "dataset": name,
        "options": {f.name: None if f.default is dataclasses.MISSING else f.default for f in fields},
    }


def _rows(
    what: str, own: Iterable[str], added: Mapping[str, Plugin], describe: Callable[[str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row each; one that another package adds and that cannot be used has its name and the error."""
    rows = [describe(name) for name in own]
    for name, plugin in added.items():
        if any(row[what] == name for row in rows):
            rows.append({what: name, "error": f"{plugin.label(what, name)} has the name of another"})
            continue
        try:
            rows.append(describe(name))
        except UserError as error:
            rows.append({what: name, "error": str(error)})
        except Exception as error:  # whatever somebody else's class does when it is made
            rows.append({what: name, "error": f"{plugin.label(what, name)}: {blame(error)}"})
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={entry}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
