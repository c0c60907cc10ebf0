"""`metarl list`: what there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarl import registry
from metarl.cli.options import Group, asks_for_help, first, parse
from metarl.cli.terminal import print_json, say
from metarl.errors import unknown


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
    if not rows:
        say("none yet")
        return 0
    from metarl.reporting.table import Table

    say(Table(tuple(rows[0]), tuple(tuple(map(_cell, row.values())) for row in rows), numbers=False).rich())
    return 0


def _families() -> list[dict[str, Any]]:
    rows = []
    for name in registry.families():
        kind: Any = registry.source_class(name)
        made = [kind(preset=preset) for preset in kind.presets]
        rows.append(
            {
                "family": name,
                "presets": list(kind.presets),
                "splits": list(made[0].splits),
                "tasks reused": [family.preset for family in made if not family.unseen],
                "options": {k: v for k, v in made[0].options().items() if k != "preset"},
            }
        )
    return rows


def _agents() -> list[dict[str, Any]]:
    rows = []
    for table, trained in ((registry.agents(), True), (registry.untrained(), False)):
        for name, entry in table.items():
            rows.append({"agent": name, "trained": trained, "tasks from": entry.source, "what": entry.about})
    return rows


def _datasets() -> list[dict[str, Any]]:
    rows = []
    for name in registry.datasets():
        fields = dataclasses.fields(registry.source_class(name))  # the data themselves may be absent: make none
        options = {f.name: None if f.default is dataclasses.MISSING else f.default for f in fields}
        rows.append({"dataset": name, "options": options})
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={entry}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
