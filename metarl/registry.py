"""What there is, by name: agents, those that need no training, task families and data sets; and what a run names.

The tables hold names of modules, so that knowing what there is loads nothing; a module loads when it is asked for.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from metarl.errors import UserError, unknown

if TYPE_CHECKING:
    from metarl.learning.contract import Adaptable, Learner, Source
    from metarl.runs.run import Run

Kind = Literal["family", "dataset"]


class Entry(NamedTuple):
    """An agent of the tables below."""

    where: str  # module, or module:attribute; several with commas between them
    source: Kind  # where its tasks come from
    about: str


AGENTS = {  # objects with Config, train and load (metarl.learning.contract.Learner); few-shot learners follow
    "maml-trpo": Entry(
        "metarl.agents.maml_trpo", "family", "policy initialisation that adapts in a few gradient steps"
    ),
    "rl2": Entry("metarl.agents.rl2", "family", "recurrent policy that adapts in its memory, within a trial"),
    "ppo-pretrained": Entry(
        "metarl.agents.ppo_pretrained", "family", "one policy for all tasks, fine-tuned on each by gradient steps"
    ),
    "ppo-scratch": Entry("metarl.agents.ppo_scratch", "family", "a random policy, fine-tuned on each task alike"),
    "ppo-oracle": Entry("metarl.agents.ppo_oracle", "family", "a policy that is shown the task; does not adapt"),
}
BANDITS, MDPS = "metarl.agents.solvers.bandits", "metarl.agents.solvers.mdps"
UNTRAINED = {  # classes that make an Adaptable of a source, or modules whose `solver` does, given the agent's name
    "random": Entry("metarl.agents.baselines:Random", "family", "uniform actions"),
    "stand-still": Entry("metarl.agents.baselines:StandStill", "family", "the zero action"),
    "oracle": Entry("metarl.agents.baselines:Oracle", "family", "the closed-form optimum, which is told the task"),
    "bayes-optimum": Entry(BANDITS, "family", "bandits: the exact optimum for Bernoulli arms and few pulls"),
    "gittins": Entry(BANDITS, "family", "bandits: the arm with the highest discounted Gittins index"),
    "ucb1": Entry(BANDITS, "family", "bandits: the arm with the highest upper confidence bound"),
    "thompson": Entry(BANDITS, "family", "bandits: the best arm in a draw from the posterior"),
    "optimistic-thompson": Entry(BANDITS, "family", "bandits: the same, no draw counting less than its mean"),
    "psrl": Entry(MDPS, "family", "tabular MDPs: plans in a draw from the posterior"),
    "optimistic-psrl": Entry(MDPS, "family", "tabular MDPs: plans in the best of several draws"),
    "ucrl2": Entry(MDPS, "family", "tabular MDPs: plans in the best MDP within confidence bounds"),
    "beb": Entry(MDPS, "family", "tabular MDPs: plans in the mean MDP, with a bonus for what was seldom tried"),
    "informed": Entry(MDPS, "family", "tabular MDPs: plans in the true MDP, which it is told"),
    "greedy": Entry(
        f"{BANDITS},{MDPS}", "family", "bandits and tabular MDPs: what is best if the posterior means are true"
    ),
    "epsilon-greedy": Entry(
        f"{BANDITS},{MDPS}", "family", "bandits and tabular MDPs: the same, but now and then any action"
    ),
    "pixels": Entry("metarl.fewshot.learners.centroid:pixels", "dataset", "nearest class mean of raw pixels"),
}


def _at(where: str) -> Any:
    """The module `module`, or what is called `Name` in it at `module:Name`."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name) if name else importlib.import_module(module)


def agents() -> dict[str, Entry]:
    """The agents that are trained."""
    few_shot = importlib.import_module("metarl.fewshot").LEARNERS
    return AGENTS | {name: Entry(where, "dataset", about) for name, (where, about) in few_shot.items()}


def untrained() -> dict[str, Entry]:
    """The agents that need no training."""
    return dict(UNTRAINED)


def families() -> dict[str, str]:
    """Where the class of each task family lies, `module:Name`, by the family's id."""
    table = importlib.import_module("metarl.envs").FAMILIES
    return {name: f"metarl.envs.{module}:{attribute}" for name, (module, attribute) in table.items()}


def datasets() -> dict[str, str]:
    """Where the class of each data set lies, `module:Name`, by its name."""
    return dict(importlib.import_module("metarl.fewshot.datasets").DATASETS)


def learner(name: str) -> Learner:
    """The module of an agent that is trained.

    Raises:
        UserError: there is none of that name.
    """
    table = agents()
    if name not in table:
        raise unknown("agent", name, table)
    module: Learner = _at(table[name].where)
    return module


def source_class(name: str) -> type:
    """The class of a task family or data set.

    Raises:
        UserError: there is none of that name.
    """
    tables = datasets() | families()
    if name not in tables:
        raise unknown("family or data set", name, [*families(), *datasets()])
    kind: type = _at(tables[name])
    return kind


def make_source(name: str, options: Mapping[str, Any]) -> Source:
    """A family or data set with its preset and options, which are the fields of its class.

    Raises:
        UserError: there is none of that name, or it cannot be made so.
    """
    kind = source_class(name)
    try:
        source: Source = kind(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"cannot make {name} with {json.dumps(dict(options))}: {error}") from None
    return source


def make_untrained(name: str, source: Source) -> Adaptable:
    """An agent that needs no training, for a family or data set.

    Raises:
        UserError: there is none of that name, or it cannot act there.
    """
    table, refusals = untrained(), []
    if name not in table:
        raise unknown("agent that needs no training", name, table)
    for where in table[name].where.split(","):
        maker = _at(where)
        try:
            agent: Adaptable = maker(source) if ":" in where else maker.solver(name, source)
            return agent
        except UserError as refusal:
            refusals.append(str(refusal))
    raise UserError("; ".join(refusals))


class Opened(NamedTuple):
    """A run and what it names."""

    learner: Learner
    run: Run  # its config is the learner's
    source: Source  # that it was trained on

    def load(self) -> Adaptable:
        """The trained agent, from the last checkpoint."""
        return self.learner.load(self.run, self.source)


def open_run(folder: str | Path, data_root: Path | None = None) -> Opened:
    """A run, its learner and its source, to read.

    Args:
        folder: of the run.
        data_root: the folder that holds the data sets; by default that of the training.

    Raises:
        UserError: there is no run, it is damaged, or it names what is not here.
    """
    from metarl.runs.run import Run  # loads torch, which names alone do not need

    name = Run.open(folder).learner
    if name not in agents():
        raise unknown(f"agent in {folder}", name, agents())
    module = learner(name)
    run = Run.open(folder, module.Config)
    options = run.source.get("options", {}) | _place(run, data_root)
    return Opened(module, run, make_source(run.source.get("name", ""), options))


def _place(run: Run, data_root: Path | None) -> dict[str, Path]:
    """Where the run's data set lies, as an option of its class: the folder asked for, or that of the training."""
    remembered = run.recall("data_root")
    if data_root is None and remembered is not None and not Path(remembered).exists():
        raise UserError(f"{run.folder} was trained on data in {remembered}, which is not there: give --data-root")
    root = data_root or (Path(remembered) if remembered is not None else None)
    return {} if root is None else {"data_root": root}
