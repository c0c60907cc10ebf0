"""Agents trained into run folders, and taken out of them again."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl import registry
from metarl.allocator import refusals_in_one_line
from metarl.errors import UserError, shown, unknown
from metarl.experiments.origin import marked, origin_of, source_named
from metarl.learning import presets
from metarl.learning.contract import Source
from metarl.learning.footprint import check_training
from metarl.learning.settings import LARGEST, check_whole_numbers
from metarl.learning.sharing import check_shares
from metarl.parallel import choose_device
from metarl.ranks import present
from metarl.runs import joint
from metarl.runs.environment import as_begun
from metarl.runs.loop import CHECKPOINT_MINUTES
from metarl.runs.record import check_readable
from metarl.tasks import TaskFamily


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
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    minutes: float | None = None,
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
        device: where it computes: cpu, cuda, cuda:1, ..., or auto, the first that there is of cuda, mps and cpu.
        preset: a named set of defaults; by default the one that fits the source.
        callbacks: what watches the training and may stop it; see `metarl.Callback`.
        resume: go on with the run in `out`, all else being as before; `iterations` may be raised and
            `checkpoint_every` changed.
        checkpoint_minutes: that may pass between two checkpoints, beside the iterations of `checkpoint_every`.
        minutes: of training, after which it ends with its iteration and a checkpoint; otherwise `iterations` say when.
        options: fields of the agent's `Config`. Where one names something of yours as `module:Name`, the class or
            function itself may be given; a `torch.nn.Module` goes to the learner as it is (`network=`, `encoder=`),
            and must be given to its `load` again.

    Raises:
        UserError: a mistake in what was given, in one line.
        NonFiniteError: the training diverged.
    """
    _check_words(agent, seed)
    learner, source = registry.learner(agent), source_named(source)
    _check_kind(agent, source)
    modules = _modules(learner, options)
    options = {name: value for name, value in options.items() if name not in modules}
    config = _config(agent, learner, source, preset, options)
    ranks = present()
    check_shares(agent, learner, config, ranks)
    device = ranks.together(lambda: choose_device(device, ranks))
    if not modules:  # what a module of one's own needs is not known
        check_training(config, source, device)
    of = {"learner": agent, "config": config, "source": source, "seed": seed, "device": device}
    run = joint.begin(ranks, out, **of, resume=resume)
    run.checkpoint_minutes, run.minutes = checkpoint_minutes, minutes
    try:
        run.attach(callbacks, lambda now: learner.load(now, source, **modules))
        if (root := getattr(source, "data_root", None)) is not None:
            run.remember("data_root", str(Path(root).resolve()))
        with refusals_in_one_line(), as_begun(run.record):
            learner.train(config, source, run, **modules)
    except UserError:
        if not resume:
            run.withdraw()
        raise
    return _usable(registry.Opened(learner, run, source), learner.load(run, source, **modules), **modules)


def load(folder: str | Path, *, device: str = "cpu", trust: bool = False) -> Any:
    """The trained agent of a run, its family or data set made anew; of a few-shot run on images, a classifier.

    >>> agent = load(runs / "navigation")
    >>> action, state = agent.adapt({"goal": [0.3, -0.2]}, steps=1, episodes=2).predict([0.0, 0.0])
    >>> action.shape
    (2,)

    Args:
        folder: of the run.
        device: where it computes, as for `train`, wherever it was trained.
        trust: whether code that the run names may be imported, though this program has not named it: say so only of
            runs whose code you know.

    Returns:
        What the learner gives: `curve` judges it on many tasks, `adapt` and `predict` put it on one
        (`metarl.learning.acting`). Or a `FewShotClassifier`, with `fit` and `predict`.

    Raises:
        UserError: there is no such run or device, it has no checkpoint yet, or it names what is not here.
    """
    opened = registry.open_run(folder, device=device, trust=trust)
    return _usable(opened, opened.load())


def _usable(opened: registry.Opened, agent: Any, **modules: Any) -> Any:
    """The loaded agent as users meet it: marked with its origin, or a classifier."""
    if hasattr(opened.source, "ways"):
        from metarl.fewshot import LEARNERS
        from metarl.fewshot.classifier import FewShotClassifier

        if opened.run.learner in LEARNERS:
            return FewShotClassifier(agent if modules else str(opened.run.folder), device=opened.run.device)
    return marked(agent, origin_of(opened))


def _modules(learner: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are no fields of the config but arguments of the learner's `train`: modules of the user's."""
    fields = {field.name for field in dataclasses.fields(learner.Config)}
    more = list(inspect.signature(learner.train).parameters)[3:]
    return {
        name: value
        for name, value in options.items()
        if name in more and not (name in fields and (isinstance(value, (str, type)) or hasattr(value, "__qualname__")))
    }


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
        made = learner.Config(**options) if config is None else dataclasses.replace(config, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{agent} cannot be trained with {shown(options)}: {error}") from None
    check_readable(made, f"options of {agent}")
    check_whole_numbers(made)
    return made


def _check_words(agent: Any, seed: Any) -> None:
    if not isinstance(agent, str):
        raise UserError(f"agent is {shown(agent)}; it must be a name: one of list_agents(), or mypackage.module")
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or abs(int(seed)) > LARGEST:
        raise UserError(f"seed is {shown(seed)}; it must be a whole number of at most {LARGEST}")


def _check_kind(agent: str, source: Source) -> None:
    known = registry.find_agent(agent)
    wanted = known.source if known is not None else None
    if wanted is not None and (wanted == "family") != isinstance(source, TaskFamily):
        name = getattr(source, "name", type(source).__name__)
        needs = "acts in a task family" if wanted == "family" else "learns from a data set"
        raise UserError(f"{agent} {needs}, and {name} is none")
