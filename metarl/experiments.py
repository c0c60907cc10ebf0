"""An experiment in a few calls: make a family, train, load, measure, compare. What `import metarl` offers of its own.

Everything here names agents, families and data sets as the command line does, and finds those of others too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl import registry
from metarl.errors import UserError, shown, unknown
from metarl.evaluation import comparison, merging
from metarl.evaluation.curve import AdaptationCurve, load_curves
from metarl.evaluation.measure import frozen_tasks
from metarl.evaluation.measure import measure as measure_agent
from metarl.learning import presets
from metarl.learning.brought import check_brought
from metarl.learning.contract import Budget, Source
from metarl.parallel import has_device
from metarl.plugins import plugins
from metarl.runs.run import Run
from metarl.tasks import TaskFamily

ORIGIN = "metarl_origin"  # the attribute of a loaded agent that says which run it is from


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
    source = _source(source)
    return _marked(registry.make_untrained(name, source), _Origin(name, source, 0, None))


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


def train(
    agent: str,
    source: Source | str,
    *,
    out: str | Path,
    seed: int = 0,
    device: str = "cpu",
    preset: str | None = None,
    callbacks: Sequence[Any] = (),
    resume: bool = False,
    **options: Any,
) -> Any:
    """Train an agent into a run folder; what `load` gives for it.

    >>> agent = train("maml-trpo", "metarl/Navigation2D-v0", out="run", iterations=1, tasks=2, episodes=2)
    >>> agent.adapt({"goal": [0.3, -0.2]}, steps=1, episodes=2).steps
    1

    Args:
        agent: one of `list_agents()` that is trained, or your own as `mypackage.module`.
        source: a family or data set, or its name.
        out: the run folder; absent or empty, or the interrupted run with `resume`.
        seed: names every random stream.
        device: a torch device.
        preset: a named set of defaults; by default the one that fits the source.
        callbacks: what watches the training and may stop it; see `metarl.Callback`.
        resume: go on with the run in `out`, all else being as before; `iterations` may be raised.
        options: fields of the agent's `Config`. Where one names something of yours as `module:Name`, the class or
            function itself may be given.

    Raises:
        UserError: a mistake in what was given, in one line.
        NonFiniteError: the training diverged.
    """
    learner, source = registry.learner(agent), _source(source)
    config = _config(agent, learner, source, preset, options)
    if not has_device(device):
        raise UserError(f"this machine has no device {device!r}; 'cpu' always works")
    begin = Run.resume if resume else Run.create
    run = begin(out, learner=agent, config=config, source=source, seed=seed, device=device)
    try:
        run.attach(callbacks, lambda now: learner.load(now, source))
        if (root := getattr(source, "data_root", None)) is not None:
            run.remember("data_root", str(Path(root).resolve()))
        learner.train(config, source, run)
    except UserError:
        if not resume:
            run.withdraw()
        raise
    return _loaded(registry.Opened(learner, run, source))


def load(folder: str | Path) -> Any:
    """The trained agent of a run, its family or data set made anew; of a few-shot run on images, a classifier.

    >>> agent = load(runs / "navigation")
    >>> action, state = agent.adapt({"goal": [0.3, -0.2]}, steps=1, episodes=2).predict([0.0, 0.0])
    >>> action.shape
    (2,)

    Args:
        folder: of the run.

    Returns:
        What the learner gives: `curve` judges it on many tasks, `adapt` and `predict` put it on one
        (`metarl.learning.acting`). Or a `FewShotClassifier`, with `fit` and `predict`.

    Raises:
        UserError: there is no run, it has no checkpoint yet, or it names what is not here.
    """
    return _loaded(registry.open_run(folder))


def measure(
    agent: Any,
    *,
    split: str = "test",
    tasks: int | None = None,
    steps: int = 3,
    episodes: int = 40,
    seed: int = 0,
    source: Source | str | None = None,
    name: str | None = None,
) -> AdaptationCurve:
    """The adaptation curve of an agent on frozen tasks, beside random behaviour and the optimum where it is known.

    >>> curve = measure(make_agent("random", "metarl/Navigation2D-v0"), tasks=2, episodes=2)
    >>> curve.mean.shape, curve.seeds
    ((4,), (0,))

    Args:
        agent: what `train`, `load` or `make_agent` gave, a run folder, or anything with `curve(tasks, budget, seed)`.
        split: which frozen tasks: train, validation, test or ood.
        tasks: how many; 40 of a family and 600 of a data set by default.
        steps: bits of adaptation.
        episodes: that each of these may use, and as many that judge it.
        seed: names the streams of the evaluation.
        source: family or data set of an agent of your own.
        name: of an agent of your own, in tables and pictures.

    Raises:
        UserError: there is no such run or split, or it is not known what the agent is.
    """
    folder = agent.learner if hasattr(agent, "fit") else agent  # a classifier made of a run
    origin = getattr(agent, ORIGIN, None)
    if isinstance(folder, (str, Path)):
        opened = registry.open_run(folder)
        agent, origin = opened.load(), _origin(opened)
    if source is not None or origin is None:
        where = _source(source) if source is not None else getattr(agent, "family", None)
        if not callable(getattr(agent, "curve", None)) or where is None or name is None:
            raise UserError(
                "measure takes what train, load or make_agent gave, or a run folder; of an agent of your own, with "
                f"curve(tasks, budget, seed), say its source= and name=; got {type(agent).__name__}"
            )
        origin = _Origin(name, where, 0, {})
    return measure_agent(
        agent,
        source=origin.source,
        tasks=frozen_tasks(origin.source, split, tasks),
        name=name or origin.name,
        budget=Budget(steps, episodes),
        seed=seed,
        training_seed=origin.seed,
        config=origin.config,
        trained=origin.config is not None,
    )


def compare(
    curves: Sequence[Any], *, against: int = 0, reach: float | None = None, axis: str | None = None
) -> comparison.Comparison:
    """Curves of one problem beside one another; those that differ only in the training seed are made one.

    >>> family = make_family("metarl/Navigation2D-v0")
    >>> agents = [make_agent(name, family) for name in ("random", "oracle")]
    >>> compare([measure(agent, tasks=3, episodes=2) for agent in agents]).labels
    ['random', 'oracle']

    Args:
        curves: curves, or run folders and JSON files that hold them (`metarl evaluate` writes curve.json).
        against: index of the curve, seeds made one, that the others are compared to.
        reach: a score; how much adaptation each agent needs to reach it is reported.
        axis: gradient_steps, env_steps or shots; by default what every adapting curve counts.

    Raises:
        UserError: they are of different problems, or there is no curve.
    """
    if isinstance(curves, (str, Path, AdaptationCurve)) or not curves:
        raise UserError(f"compare takes a list of curves or of run folders, got {shown(curves)}")
    every = [curve for one in curves for curve in ([one] if isinstance(one, AdaptationCurve) else _saved(one))]
    merged = merging.merge_seeds(every)
    if not 0 <= against < len(merged):
        raise UserError(f"against is {against}; there are {len(merged)} curves, counted from 0")
    return comparison.compare(merged, against=against, reach=reach, axis=axis)


# ---- what the calls share


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Where an agent comes from, for its curves; `config` is None where it was not trained."""

    name: str
    source: Source
    seed: int
    config: dict[str, Any] | None


def _origin(opened: registry.Opened) -> _Origin:
    run = opened.run
    return _Origin(run.learner, opened.source, run.seed, dataclasses.asdict(run.config))


def _marked(agent: Any, origin: _Origin) -> Any:
    """The agent, which remembers where it comes from; a changed copy of it does not."""
    if hasattr(agent, "__dict__"):
        object.__setattr__(agent, ORIGIN, origin)  # agents are frozen dataclasses
    return agent


def _loaded(opened: registry.Opened) -> Any:
    if hasattr(opened.source, "ways"):
        from metarl.fewshot import LEARNERS
        from metarl.fewshot.classifier import FewShotClassifier

        if opened.run.learner in LEARNERS:
            opened.load()  # what is wrong with the run is said here, not at the first fit
            return FewShotClassifier(str(opened.run.folder))
    return _marked(opened.load(), _origin(opened))


def _source(source: Source | str) -> Source:
    made = registry.make_source(source, {}) if isinstance(source, str) else source
    if isinstance(made, type):
        raise UserError(f"{made.__name__} is a class: give {made.__name__}(), or its name")
    if not type(made).__module__.startswith("metarl."):
        check_brought(made, getattr(made, "name", type(made).__name__))
    return made


def _config(agent: str, learner: Any, source: Source, preset: str | None, options: dict[str, Any]) -> Any:
    named = presets.presets(learner)
    if preset is not None and preset not in named:
        raise unknown(f"preset of {agent}", preset, named)
    fitting = preset or presets.preset_for(learner, source)
    config = named[fitting] if fitting is not None else presets.plain_config(learner)
    fields = {field.name for field in dataclasses.fields(learner.Config)}
    for name, value in options.items():
        if name not in fields:
            raise unknown(f"option of {agent}", name, sorted(fields))
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
            options = options | {name: f"{value.__module__}:{value.__qualname__}"}
    try:
        return learner.Config(**options) if config is None else dataclasses.replace(config, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{agent} cannot be trained with {shown(options)}: {error}") from None


def _saved(path: Any) -> list[AdaptationCurve]:
    if not isinstance(path, (str, Path)):
        raise UserError(f"compare takes curves, run folders and JSON files, got {type(path).__name__}")
    path = Path(path)
    if path.is_dir() and not (path / "curve.json").exists():
        raise UserError(f"{path} has no curve.json yet: measure it, or metarl evaluate {path}")
    return load_curves(path / "curve.json" if path.is_dir() else path)
