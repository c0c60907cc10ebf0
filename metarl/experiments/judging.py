"""Agents judged: measured on frozen tasks, compared, filmed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl import registry
from metarl.errors import UserError, shown
from metarl.evaluation import comparison, merging
from metarl.evaluation.curve import AdaptationCurve, load_curves
from metarl.evaluation.measure import frozen_tasks
from metarl.evaluation.measure import measure as measure_agent
from metarl.experiments.origin import ORIGIN, Origin, origin_of, source_named
from metarl.experiments.training import load
from metarl.learning.contract import Budget, Filmable, Source
from metarl.tasks import TaskFamily


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
        agent, origin = opened.load(), origin_of(opened)
    if source is not None or origin is None:
        where = source_named(source) if source is not None else getattr(agent, "family", None)
        if not callable(getattr(agent, "curve", None)) or where is None or name is None:
            raise UserError(
                "measure takes what train, load or make_agent gave, or a run folder; of an agent of your own, with "
                f"curve(tasks, budget, seed), say its source= and name=; got {type(agent).__name__}"
            )
        origin = Origin(name, where, 0, {})
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


def film(
    agent: Any,
    path: str | Path,
    *,
    split: str = "test",
    task: int = 0,
    steps: int = 3,
    episodes: int = 40,
    seed: int = 0,
) -> Path:
    """A film of an agent before and after it adapts to a frozen task, side by side.

    >>> film(load(runs / "navigation"), "adaptation.gif", steps=1, episodes=2).name
    'adaptation.gif'

    Args:
        agent: what `train` or `load` gave, or a run folder; it acts in a family that can be drawn.
        path: the film, .gif or .mp4 (which needs the extra `video`).
        split: which frozen tasks.
        task: which of them, from 0.
        steps: bits of adaptation before the second episode.
        episodes: that each of these may use.
        seed: names the streams.

    Raises:
        UserError: the agent does not act, there is no such task, or the film cannot be made.
    """
    from metarl.reporting.films import check_film, draw_without_display, write

    path = check_film(Path(path))
    draw_without_display()
    agent = load(agent) if isinstance(agent, (str, Path)) else agent
    family = getattr(agent, "family", None)
    if not isinstance(agent, Filmable) or not isinstance(family, TaskFamily):
        raise UserError(f"{type(agent).__name__} cannot be filmed: only agents that act in a task family can")
    tasks = frozen_tasks(family, split, task + 1)
    if not 0 <= task < len(tasks):
        raise UserError(f"task is {task}; {family.name} has {len(tasks)} {split} tasks, counted from 0")
    write(agent.film(tasks[task:], Budget(steps, episodes), seed), path)
    return path


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


def _saved(path: Any) -> list[AdaptationCurve]:
    if not isinstance(path, (str, Path)):
        raise UserError(f"compare takes curves, run folders and JSON files, got {type(path).__name__}")
    path = Path(path)
    if path.is_dir() and not (path / "curve.json").exists():
        raise UserError(f"{path} has no curve.json yet: measure it, or metarl evaluate {path}")
    return load_curves(path / "curve.json" if path.is_dir() else path)
