"""What other packages add: agents, task families and data sets, by entry points.

A package says in its pyproject.toml, by the name under which each is asked for:

    [project.entry-points."metarl.families"]
    "mine/Pendulums-v0" = "mypackage.module:Pendulums"

The groups are `metarl.agents`, `metarl.families` and `metarl.datasets`. Nothing is imported before it is asked for,
so that a broken package breaks nothing else.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal, NamedTuple

from metarl.errors import UserError
from metarl.naming import resolve, resolve_module

PluginGroup = Literal["agents", "families", "datasets"]


class Plugin(NamedTuple):
    """One thing that a package adds."""

    where: str  # package.module, or package.module:Name
    package: str  # that adds it, as pip knows it
    problem: str | None = None  # why it cannot be used, as far as that is known without importing it

    def label(self, what: str, name: str) -> str:
        """What it is called in an error: "family mine/Pendulums-v0 of the package mypackage"."""
        return f"{what} {name} of the package {self.package}"

    def load(self, label: str) -> Any:
        """The module or object.

        Args:
            label: what it is, for the error; see `label`.

        Raises:
            UserError: it cannot be imported, or two packages add the same name.
        """
        if self.problem is not None:
            raise UserError(self.problem)
        return resolve(self.where, label) if ":" in self.where else resolve_module(self.where, label)


def plugins(group: PluginGroup) -> dict[str, Plugin]:
    """What installed packages add to a group, by name."""
    return _plugins(group, tuple(sys.path))


@cache
def _plugins(group: PluginGroup, path: tuple[str, ...]) -> dict[str, Plugin]:
    """As `plugins`; looking through all packages takes a moment, so it is done once for each state of `sys.path`."""
    table: dict[str, Plugin] = {}
    for point in entry_points(group=f"metarl.{group}"):
        where = point.value.partition("[")[0].replace(" ", "")
        plugin = Plugin(where, point.dist.name if point.dist else "?")
        other = table.get(point.name)
        if other is not None and other.where != where:
            names = f"{other.where} ({other.package}) and {where} ({plugin.package})"
            problem = f"two packages add {point.name!r} to metarl.{group}: {names}; name one of them as module:Name"
            plugin = other._replace(problem=problem)
        table[point.name] = plugin
    return table
