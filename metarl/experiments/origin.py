"""Where what an experiment works with comes from: sources by name or as they are, agents marked with their run."""

from __future__ import annotations

import dataclasses
from typing import Any

from metarl import registry
from metarl.errors import UserError
from metarl.learning.brought import check_brought
from metarl.learning.contract import Source

ORIGIN = "metarl_origin"  # the attribute of a loaded agent that says which run it is from


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where an agent comes from, for its curves; `config` is None where it was not trained."""

    name: str
    source: Source
    seed: int
    config: dict[str, Any] | None


def origin_of(opened: registry.Opened) -> Origin:
    """Of the agent of a run."""
    run = opened.run
    return Origin(opened.name, opened.source, run.seed, dataclasses.asdict(run.config))


def marked(agent: Any, origin: Origin) -> Any:
    """The agent, which remembers where it comes from; a changed copy of it does not."""
    if hasattr(agent, "__dict__"):
        object.__setattr__(agent, ORIGIN, origin)  # agents are frozen dataclasses
    return agent


def source_named(source: Source | str) -> Source:
    """A family or data set by its name, or itself; one of somebody else's is looked at first.

    Raises:
        UserError: there is none of that name, or it cannot be used.
    """
    made = registry.make_source(source, {}) if isinstance(source, str) else source
    if isinstance(made, type):
        raise UserError(f"{made.__name__} is a class: give {made.__name__}(), or its name")
    if not type(made).__module__.startswith("metarl."):
        check_brought(made, getattr(made, "name", type(made).__name__))
    return made
