"""What there is, and what is made of it: families, data sets, agents that need no training."""

from __future__ import annotations

from typing import Any

from metarl import registry
from metarl.errors import UserError
from metarl.experiments.origin import Origin, marked, source_named
from metarl.learning.contract import Source
from metarl.plugins import plugins
from metarl.tasks import TaskFamily


def make_family(name: str, preset: str | None = None, **options: Any) -> TaskFamily:
    """A task family by its id, or your own as `mypackage.module:Name`.

    >>> family = make_family("metarl/Navigation2D-v0", preset="pearl")
    >>> family.horizon, family.fixed("test", 2).arrays["goal"].shape
    (20, (2, 2))

    Args:
        name: one of `list_families()`.
        preset: which source's definition; by default the family's first.
        options: its other fields.

    Raises:
        UserError: there is no such family, or it cannot be made so; one line says what is allowed.
    """
    family = registry.make_source(name, options | ({} if preset is None else {"preset": preset}), "family")
    if not isinstance(family, TaskFamily):
        raise UserError(f"{name} is a data set: metarl.make_dataset({name!r})")
    return family


def make_dataset(name: str, **options: Any) -> Any:
    """A few-shot data set by its name, or your own as `mypackage.module:Name`.

    >>> sinusoid = make_dataset("sinusoid", shots=5)
    >>> sinusoid.sample(2, np.random.default_rng(0)).arrays["amplitude"].shape
    (2,)

    Args:
        name: one of `list_datasets()`.
        options: the fields of its class.

    Raises:
        UserError: there is no such data set, or it cannot be made so.
    """
    dataset = registry.make_source(name, options, "data set")
    if isinstance(dataset, TaskFamily):
        raise UserError(f"{name} is a task family: metarl.make_family({name!r})")
    return dataset


def make_agent(name: str, source: Source | str) -> Any:
    """An agent that needs no training: a baseline, an oracle, a solver.

    >>> agent = make_agent("oracle", "metarl/Navigation2D-v0")
    >>> measure(agent, tasks=5, steps=0).mean.round(1)
    array([-0.5])

    Args:
        name: one of `list_agents()` that is not trained.
        source: a family or data set, or its name.

    Raises:
        UserError: there is none of that name, it must be trained, or it cannot act there.
    """
    source = source_named(source)
    return marked(registry.make_untrained(name, source), Origin(name, source, 0, None))


def list_agents() -> dict[str, str]:
    """The agents there are, and what each does.

    >>> list_agents()["random"]
    'uniform actions'
    """
    own = {name: entry.about for name, entry in {**registry.agents(), **registry.untrained()}.items()}
    return own | {name: f"of {plugin.package}" for name, plugin in plugins("agents").items()}


def list_families() -> tuple[str, ...]:
    """The ids of the task families there are.

    >>> "metarl/HalfCheetahVelocity-v0" in list_families()
    True
    """
    return (*registry.families(), *plugins("families"))


def list_datasets() -> tuple[str, ...]:
    """The names of the few-shot data sets there are.

    >>> list_datasets()[:2]
    ('sinusoid', 'glyphs')
    """
    return (*registry.datasets(), *plugins("datasets"))
