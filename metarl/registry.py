"""What there is, by name: agents, those that need no training, task families and data sets; and what a run names.

The tables hold names of modules, so that knowing what there is loads nothing; a module loads when it is asked for.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from metarl.errors import UserError, shown, unknown
from metarl.learning.brought import Agent, Kind, blame, brought_agent, brought_source, judgeable
from metarl.naming import consent, has_consent, is_module, is_name, names_in, resolve, resolve_module
from metarl.plugins import PluginGroup, plugins

if TYPE_CHECKING:
    from metarl.learning.contract import Adaptable, Learner, Source
    from metarl.runs.run import Run


class Entry(NamedTuple):
    """An agent of the tables below."""

    where: str  # module, or module:attribute; several with commas between them
    source: Kind  # where its tasks come from
    about: str


AGENTS = {  # objects with Config, train and load (metarl.learning.contract.Learner); few-shot learners follow
    "maml-trpo": Entry(
        "metarl.agents.maml_trpo", "family", "policy initialisation that adapts in a few gradient steps"
    ),
    "promp": Entry(
        "metarl.agents.promp", "family", "the same by proximal steps, which also credit the data adapted on"
    ),
    "rl2": Entry("metarl.agents.rl2", "family", "recurrent policy that adapts in its memory, within a trial"),
    "pearl": Entry("metarl.agents.pearl", "family", "off-policy, infers the task from what it has seen, in any order"),
    "varibad": Entry("metarl.agents.varibad", "family", "policy on a learned belief about the task, within a trial"),
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
    "online-beb": Entry(MDPS, "family", "tabular MDPs: the same, planned anew at every step"),
    "informed": Entry(MDPS, "family", "tabular MDPs: plans in the true MDP, which it is told"),
    "greedy": Entry(
        f"{BANDITS},{MDPS}", "family", "bandits and tabular MDPs: what is best if the posterior means are true"
    ),
    "epsilon-greedy": Entry(f"{BANDITS},{MDPS}", "family", "bandits, tabular MDPs: the same, but now and then any"),
    "hog-centroid": Entry("metarl.fewshot.learners.hog:centroid", "dataset", "nearest mean of gradient histograms"),
    "hog-logistic": Entry("metarl.fewshot.learners.hog:logistic", "dataset", "logistic regression on the same"),
    "pixels": Entry("metarl.fewshot.learners.centroid:pixels", "dataset", "nearest class mean of raw pixels"),
}


def _at(where: str) -> Any:
    """The module `module`, or what is called `Name` in it at `module:Name`."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name) if name else importlib.import_module(module)


def agents() -> dict[str, Entry]:
    """The agents of this package that are trained."""
    few_shot = importlib.import_module("metarl.fewshot").LEARNERS
    return AGENTS | {name: Entry(where, "dataset", about) for name, (where, about) in few_shot.items()}


def untrained() -> dict[str, Entry]:
    """The agents of this package that need no training."""
    return dict(UNTRAINED)


def families() -> dict[str, str]:
    """Where the class of each task family of this package lies, `module:Name`, by the family's id."""
    table = importlib.import_module("metarl.envs").FAMILIES
    return {name: f"metarl.envs.{module}:{attribute}" for name, (module, attribute) in table.items()}


def datasets() -> dict[str, str]:
    """Where the class of each data set of this package lies, `module:Name`, by its name."""
    return dict(importlib.import_module("metarl.fewshot.datasets").DATASETS)


def find_agent(name: str, what: str = "agent") -> Agent | None:
    """An agent of this package, of another, or of your own at `module` or `module:Name`; None where there is none.

    Args:
        name: of the agent.
        what: it is, for the error.

    Raises:
        UserError: what the name leads to cannot be imported, or is no agent.
    """
    if name in (table := agents()):
        entry = table[name]
        return Agent(name, entry.source, entry.about, _at(entry.where), None)
    if name in UNTRAINED:
        entry = UNTRAINED[name]
        return Agent(name, entry.source, entry.about, None, partial(_make, name, entry))
    if name in (added := plugins("agents")):
        label = added[name].label(what, name)
        return brought_agent(name, added[name].load(label), label)
    if is_name(name):
        return brought_agent(name, resolve(name, what), f"{what} {name}")
    return brought_agent(name, resolve_module(name, what), f"{what} {name}") if is_module(name) else None


def learner(name: str, what: str = "agent") -> Learner:
    """What trains the agent of a name: a module, or an object, with `Config`, `train` and `load`.

    Raises:
        UserError: there is none of that name, or it needs no training.
    """
    agent = find_agent(name, what)
    if agent is None:
        error = unknown(what, name, [*agents(), *plugins("agents")])
        raise UserError(f"{error}; or go where the module {name} lies") if name.isidentifier() else error
    if agent.learner is None:
        raise UserError(f"{name} needs no training")
    return agent.learner


def make_untrained(name: str, source: Source) -> Adaptable:
    """An agent that needs no training, for a family or data set.

    Raises:
        UserError: there is none of that name, it is to be trained, or it cannot act there.
    """
    agent = find_agent(name)
    if agent is None:
        raise unknown("agent that needs no training", name, [*UNTRAINED, *plugins("agents")])
    if agent.make is None:
        raise UserError(f"{name} must be trained first")
    return agent.make(source)


def _make(name: str, entry: Entry, source: Source) -> Adaptable:
    refusals = []
    for where in entry.where.split(","):
        maker = _at(where)
        try:
            agent: Adaptable = maker(source) if ":" in where else maker.solver(name, source)
            return agent
        except UserError as refusal:
            refusals.append(str(refusal))
    raise UserError("; ".join(refusals))


def source_class(name: str, kind: Kind | None = None, what: str | None = None) -> type:
    """The class of a task family or data set of this package, of another, or of your own at `module:Name`.

    Args:
        name: of the family or data set.
        kind: which of the two; either by default.
        what: it is, for the error.

    Raises:
        UserError: there is none of that name, or what it leads to cannot be imported or is none.
    """
    what = what or {"family": "family", "dataset": "data set", None: "family or data set"}[kind]
    own = (families() if kind != "dataset" else {}) | (datasets() if kind != "family" else {})
    if name in own:
        known: type = _at(own[name])
        return known
    added = (plugins("families") if kind != "dataset" else {}) | (plugins("datasets") if kind != "family" else {})
    if name in added:
        label = added[name].label(what, name)
        return brought_source(added[name].load(label), kind, label)
    if is_name(name) or is_module(name):  # of a module alone it is said what is missing
        return brought_source(resolve(name, what), kind, f"{what} {name}")
    raise unknown(what, name, [*own, *added])


def kind_of(name: str) -> Kind:
    """Whether a name is that of a family or of a data set.

    Raises:
        UserError: it is neither.
    """
    if name in datasets():
        return "dataset"
    from metarl.tasks import TaskFamily

    return "family" if name in families() or issubclass(source_class(name), TaskFamily) else "dataset"


def make_source(name: str, options: Mapping[str, Any], what: str | None = None) -> Source:
    """A family or data set with its preset and options, which are the fields of its class.

    Raises:
        UserError: there is none of that name, or it cannot be made so.
    """
    kind = source_class(name, what=what)
    try:
        source: Source = kind(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"cannot make {name} with {json.dumps(dict(options), default=str)}: {error}") from None
    except Exception as error:
        raise UserError(f"cannot make {name}: {blame(error)}") from error
    return source


def foreign_code(record: Mapping[str, Any]) -> list[str]:
    """What opening a run would import that is neither of this package nor of one that was installed to add to it.

    Args:
        record: the run's (config.json).
    """
    groups: tuple[PluginGroup, ...] = ("agents", "families", "datasets")
    added = {name: _package(plugin.where) for group in groups for name, plugin in plugins(group).items()}
    known = agents().keys() | families().keys() | datasets().keys() | added.keys()
    where = record["choices"].get("where")
    named = [record["learner"], record["source"].get("name") if where is None else where]
    names = [*(name for name in named if isinstance(name, str) and name not in known), *names_in(record["config"])]
    return [name for name in dict.fromkeys(names) if _package(name) not in added.values()]


def _package(name: str) -> str:
    """The package of `package.module:Name`."""
    return name.partition(":")[0].partition(".")[0]


def check_code(record: Mapping[str, Any], path: Path, trust: bool = False) -> None:
    """Check that a run imports no code that its user has not named: its config.json alone is no reason to.

    Args:
        record: the run's.
        path: of the run, for the error.
        trust: whether the user allows all that it names.

    Raises:
        UserError: it names code that is allowed nowhere.
    """
    check_names(foreign_code(record), path, trust)


def check_names(names: Sequence[str], path: Path, trust: bool) -> None:
    """Check that the user has named code that a file names too, or trusts it.

    Raises:
        UserError: it is named in the file alone.
    """
    if trust:
        consent(names)
    if strange := [name for name in names if not has_consent(name) and (is_name(name) or is_module(name))]:
        raise UserError(
            f"{path} names code that is not metarl's, {', '.join(map(shown, strange))}, which would be imported and "
            "run: if you know it and trust it, add --trust (in Python: metarl.load(folder, trust=True))"
        )


class Opened(NamedTuple):
    """A run and what it names."""

    learner: Learner
    run: Run  # its config is the learner's
    source: Source  # that it was trained on

    @property
    def name(self) -> str:
        """What the agent is called in tables and pictures."""
        return agent_name(self.run)

    def load(self) -> Adaptable:
        """The trained agent, from the last checkpoint."""
        return judgeable(self.learner.load(self.run, self.source), f"{self.run.learner} loaded something")


def agent_name(run: Run) -> str:
    """What a run's agent is called in tables and pictures: its learner, and the variant that its config may name."""
    config = run.config
    if isinstance(config, dict) and run.learner in agents():  # it was opened without its learner
        from metarl.runs.record import build

        config = build(learner(run.learner).Config, config, f"config of {run.folder}")
    variant = getattr(config, "variant", "")
    return f"{run.learner}-{variant}" if variant else run.learner


def open_run(folder: str | Path, data_root: Path | None = None, device: str = "cpu", *, trust: bool = False) -> Opened:
    """A run, its learner and its source, to read.

    Args:
        folder: of the run.
        data_root: the folder that holds the data sets; by default that of the training.
        device: where the agent is to compute, wherever it was trained; see `metarl.parallel.choose_device`.
        trust: whether code that config.json names may be imported, though nobody else has named it.

    Raises:
        UserError: there is no run, this machine has no such device, it is damaged, or it names what is not here, or
            code that is not trusted.
    """
    from metarl.parallel import choose_device  # loads torch, which names alone do not need
    from metarl.runs.run import Run

    record = Run.open(folder).record
    check_code(record, Path(folder), trust)
    name = record["learner"]
    module = learner(name, f"agent in {folder}")
    run = Run.open(folder, module.Config, choose_device(device))
    return Opened(module, run, source_of(run, **_place(run, data_root)))


def source_of(run: Run, **place: Any) -> Source:
    """What a run was trained on; `place` are options that its record does not hold, such as where the data lie.

    Raises:
        UserError: its class is not here, or cannot be made as it was.
    """
    name, options = run.source.get("name", ""), run.source.get("options", {}) | place
    where = run.recall("where", str)
    if where is None:
        return make_source(name, options)
    if where.startswith("__main__:") and not hasattr(importlib.import_module("__main__"), where.partition(":")[2]):
        where_now = f"the class {where.partition(':')[2]} of a script"
        raise UserError(f"{run.folder} was trained on {where_now}: move the class into a module, and train anew")
    return make_source(where, options, f"what {run.folder} was trained on")


def _place(run: Run, data_root: Path | None) -> dict[str, Path]:
    """Where the run's data set lies, as an option of its class: the folder asked for, or that of the training."""
    remembered = run.recall("data_root", str)
    if data_root is None and remembered is not None and not Path(remembered).exists():
        raise UserError(f"{run.folder} was trained on data in {remembered}, which is not there: give --data-root")
    if data_root is not None and kind_of(run.recall("where", str) or run.source.get("name", "")) == "family":
        raise UserError(
            f"{run.folder} was trained on {run.source.get('name')}, which has no data: leave --data-root out"
        )
    root = data_root or (Path(remembered) if remembered is not None else None)
    return {} if root is None else {"data_root": root}
