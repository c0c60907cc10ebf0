"""`metarl evaluate`: the adaptation curve of a run, or of an agent that needs no training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from metarl import registry
from metarl.cli.options import Count, File, Group, Id, Name, Words, asks_for_help, fail, first, parse
from metarl.cli.outputs import check_output, check_outputs
from metarl.cli.targets import chosen_device, existing_run, saved_curve, source_group, usable
from metarl.cli.terminal import say
from metarl.plugins import plugins

if TYPE_CHECKING:
    from metarl.evaluation.curve import AdaptationCurve
    from metarl.learning.contract import Adaptable, Source


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure an adaptation curve on frozen tasks.

    Attributes:
        family: id of the task family, or your own as module:Name; for an agent that needs no training.
        dataset: name of the data set, or your own as module:Name; for an agent that needs no training, and for a
            few-shot run that is to be judged on other data than it was trained on (cross-domain).
        split: which frozen tasks: validation, test, ood or train.
        tasks: how many of them; 40 of a family and 600 of a data set unless given. A finite family may have fewer:
            then all are measured, and few get a row and a picture each.
        steps: K, the bits of adaptation.
        episodes: fresh episodes a bit of adaptation may use, and as many that judge each score.
        seed: names the streams of the evaluation.
        device: where a run computes, as for train; by default the CPU, wherever it was trained.
        oracle: an evaluated ppo-oracle run (or its curve's JSON) whose mean is the reference line; by default
            the optimum, where it is known in closed form.
        json: write the curve here too.
        csv: write a row a seed, task and step here.
        plot: draw the curve here too (.png, .svg or .pdf).
        ways: classes a task; few-shot runs, unless as in training.
        shots: support images a class; few-shot runs, unless as in training.
        queries: query images a class; few-shot runs, unless as in training.
        feature_norm: what features are compared by: as they are (none), of length 1 (l2), or first centred on the mean
            of the training images' features (cl2n, SimpleShot); few-shot learners that compare features.
        transductive: bd-cspn lets the query images of a task, all at once, correct the class means (Liu et al. 2020); a
            learner that compares features. Its row is one of its own, for other learners see a query at a time.
        encoder: a frozen encoder of somebody else's: timm:NAME, file:PATH of weights with --arch, or file:FOLDER of
            timm's; AGENT then says how features become classes: centroid, logistic, baseline or baseline++.
        arch: what the weights of file:PATH belong to: a name of timm's, or your own as module:Name.
        within_groups: all classes of a task from one group (an alphabet); few-shot runs.
        data_root: the folder that holds the data sets; otherwise that of the training.
        trust: let the run import code of somebody else's that it names: say so only where you know that code.
    """

    family: Id = None
    dataset: Name = None
    split: str = "test"
    tasks: Count = None
    steps: int = 3
    episodes: int = 40
    seed: int = 0
    device: str = "cpu"
    oracle: File = None
    json: File = None
    csv: File = None
    plot: File = None
    ways: Count = None
    shots: Count = None
    queries: Count = None
    feature_norm: Literal["none", "l2", "cl2n"] = "none"
    transductive: Literal["none", "bd-cspn"] = "none"
    encoder: Name = None
    arch: Name = None
    within_groups: bool = False
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    trust: bool = False


def evaluate(words: Sequence[str]) -> int:
    """Measure a run, or an agent that needs no training."""
    if asks_for_help(words):
        names = ", ".join([*registry.untrained(), *plugins("agents")])
        say("RUN is a run folder; its curve.json and curve.png are written into it, and tasks.png, with a dot a task,")
        say("where one or two numbers tell tasks apart.")
        say(f"AGENT is one of {names}, or your own as module:Name, and needs --family or --dataset.\n")
        parse("metarl evaluate RUN|AGENT", ["--help"], Group("command", EvaluateOptions))
    target, rest = first(words, "RUN|AGENT", "evaluate")
    command = Group("command", EvaluateOptions)
    is_run = target not in registry.untrained() and Path(target).exists()
    agent = None if is_run or target in registry.agents() else registry.find_agent(target)
    words_left = Words(rest)
    if (encoder := words_left.peek("--encoder")) is not None:
        from metarl.fewshot.pretrained.agents import frozen

        agent = frozen(target, encoder, words_left.peek("--arch"))
    elif words_left.peek("--arch") is not None:
        fail("--arch goes with --encoder")
    if agent is None:
        folder = existing_run(target, registry.untrained())
        (options,) = parse("metarl evaluate RUN", rest, command)
        if options.family is not None:
            fail("a run knows its tasks: --family goes with an agent that needs no training")
        evaluate_run(folder, options)
        return 0
    if agent.make is None:
        fail(f"{target} must be trained first (metarl train {target} ...); then give the run folder")
    group = source_group(agent.source, target, Words(rest))
    options, source = parse(f"metarl evaluate {target}", rest, command, group)
    if options.device not in ("cpu", "auto"):
        fail(f"{target} needs no training and computes on the CPU alone: leave --device {options.device} out")
    source = _asked_for(usable(source, options.family or options.dataset), options)
    _check_outputs(options)
    name = target if options.encoder is None else f"{target} on {options.encoder}"
    judged = _normalised(agent.make(source), source, options)
    curve = _measure(judged, _called(name, options), source, options, trained=False)
    _report(curve, _asked_files(options))
    return 0


def _asked_for(source: Source, options: EvaluateOptions) -> Source:
    """The source with the ways, shots, queries, groups and folder that the options name."""
    changes = {name: getattr(options, name) for name in ("ways", "shots", "queries", "data_root")}
    changes = {name: value for name, value in changes.items() if value is not None}
    if options.within_groups:
        changes["within_groups"] = True
    if not changes:
        return source
    fields = {field.name for field in dataclasses.fields(source)}
    if foreign := [f"--{name.replace('_', '-')}" for name in changes if name not in fields]:
        fail(f"{source.name} has no {', '.join(foreign)}")
    return dataclasses.replace(source, **changes)


def _normalised(agent: Adaptable, source: Source, options: EvaluateOptions) -> Adaptable:
    """The agent with its features normalised, and its class means corrected, as the options say.

    `source` holds what it was trained on.
    """
    asked = [name for name in ("feature_norm", "transductive") if getattr(options, name) != "none"]
    if asked and hasattr(source, "horizon"):
        fail(f"--{asked[0].replace('_', '-')} is for few-shot learners; {source.name} has no images")
    if options.feature_norm != "none":
        from metarl.fewshot.learners.feature_norm import with_feature_norm

        agent = with_feature_norm(agent, options.feature_norm, source)
    if options.transductive != "none":
        from metarl.fewshot.learners.transductive import with_rectification

        agent = with_rectification(agent)
    return agent


def _called(name: str, options: EvaluateOptions) -> str:
    """What an agent's row is called."""
    return name if options.transductive == "none" else f"{name}, transductive {options.transductive}"


def _apart(options: EvaluateOptions) -> str:
    """What a curve's file is called beside "curve", so that curves of different problems keep apart."""
    words = [options.split] if options.split != "test" else []
    words += [options.dataset.replace(":", ".")] if options.dataset is not None else []
    words += [f"{value}-{name}" for name in ("ways", "shots", "queries") if (value := getattr(options, name))]
    words += [options.feature_norm] if options.feature_norm != "none" else []
    words += [options.transductive] if options.transductive != "none" else []
    words += ["within-groups"] if options.within_groups else []
    return "".join(f"-{word}" for word in words)


def _other_data(trained_on: Source, name: str, data_root: Path | None) -> Source:
    """Another data set, to judge on tasks of the shape that a run was trained on and pictures of the size.

    Raises:
        UserError: the run has no pictures, or the data set's are of another size.
    """
    from metarl.fewshot.datasets.image_source import ImageSource

    if not isinstance(trained_on, ImageSource):
        fail(f"--dataset judges a run of images on other images; this one was trained on {trained_on.name}")
    channels, height, width = trained_on.image_shape
    options = {each: getattr(trained_on, each) for each in ("ways", "shots", "queries")}
    options |= {} if data_root is None else {"data_root": data_root}
    if name == "folder" and height == width:
        options |= {"size": height, "grey": channels == 1}
    if not issubclass(registry.source_class(name, "dataset"), ImageSource):
        fail(f"--dataset {name} has no images, and {trained_on.name}, which the run was trained on, has")
    other = usable(registry.make_source(name, options), name)
    assert isinstance(other, ImageSource)
    if other.image_shape != trained_on.image_shape:
        shapes = [
            "{} x {} with {} channels".format(*shape[1:], shape[0])
            for shape in (other.image_shape, trained_on.image_shape)
        ]
        fail(
            f"{name} has pictures of {shapes[0]}, the run was trained on {shapes[1]}: give them as --dataset folder, "
            "which resizes"
        )
    return other


def evaluate_run(folder: Path, options: EvaluateOptions) -> None:
    """Measure a run and write the curve into its folder."""
    root = options.data_root if options.dataset is None else None
    opened = registry.open_run(folder, root, chosen_device(options.device), trust=options.trust)
    run, trained_on = opened.run, opened.source
    if options.dataset is not None:
        opened = opened._replace(source=_other_data(trained_on, options.dataset, options.data_root))
    source = _asked_for(opened.source, options)
    stem = "curve" + _apart(options)
    _check_outputs(options)
    check_output(folder / f"{stem}.json")
    if not hasattr(source, "horizon"):  # no family
        from metarl.fewshot.learners.trained_classes import check_unseen

        if options.split in source.splits and source.name == trained_on.name:
            check_unseen(run, source, options.split)
    from metarl.evaluation.task_arrays import task_numbers

    config = dataclasses.asdict(run.config)
    agent = _normalised(opened.load(), trained_on, options)
    curve = _measure(agent, _called(opened.name, options), source, options, seed=run.seed, config=config)
    files = {"own": folder / f"{stem}.json", "plot": folder / f"{stem}.png"}
    if not curve.few_tasks and task_numbers(curve) is not None:
        files["tasks"] = folder / f"tasks{_apart(options)}.png"
    _report(curve, [*files.items(), *_asked_files(options)])


def _check_outputs(options: EvaluateOptions) -> None:
    if options.plot is not None:
        from metarl.reporting.figures.style import check_picture

        check_picture(options.plot)
    check_outputs(
        {"--json": options.json, "--csv": options.csv, "--plot": options.plot},
        inputs=[path for path in (options.oracle,) if path is not None],
        within=[folder for folder in (options.data_root,) if folder is not None],
    )
    if options.csv is not None and options.csv.suffix != ".csv":
        fail(f"cannot write {options.csv}: the name must end in .csv")
    if options.json is not None and options.json.suffix == ".csv":
        fail(f"cannot write JSON into {options.json}; give --csv for that")


def _measure(
    agent: Adaptable,
    name: str,
    source: Source,
    options: EvaluateOptions,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    trained: bool = True,
) -> AdaptationCurve:
    """The curve of one agent on frozen tasks, with its references."""
    from metarl.evaluation.measure import default_count, frozen_tasks, measure, oracle_score
    from metarl.learning.contract import Budget

    count = default_count(source) if options.tasks is None else options.tasks
    tasks = frozen_tasks(source, options.split, count)
    budget = Budget(options.steps, options.episodes)
    oracle = None
    if options.oracle is not None:
        oracle = oracle_score(saved_curve(options.oracle), source, tasks, options.oracle)
    curve = measure(
        agent,
        source=source,
        tasks=tasks,
        name=name,
        budget=budget,
        seed=options.seed,
        training_seed=seed,
        config=config,
        trained=trained,
        oracle=oracle,
    )
    if len(tasks) < count:
        number = f"{len(tasks)} {options.split} task{'s' * (len(tasks) != 1)}"
        say(f"{source.name} has {number}, fewer than {count}: all were measured")
    return curve


def _asked_files(options: EvaluateOptions) -> list[tuple[str, Path]]:
    """The files that the options name, each after its kind."""
    asked = {"json": options.json, "csv": options.csv, "plot": options.plot}
    return [(kind, path) for kind, path in asked.items() if path is not None]


def _report(curve: AdaptationCurve, files: Sequence[tuple[str, Path]]) -> None:
    """Write the curve's files, then print it, which cannot fail: neither costs the other."""
    from metarl.evaluation.keeping import save_keeping

    notes = []
    try:
        for kind, path in files:
            if kind in ("plot", "tasks"):
                from metarl.reporting.plots import plot_curves, plot_tasks

                draw = plot_curves if kind == "plot" else plot_tasks
                draw([curve], path)
            elif kind == "own":
                notes.append(save_keeping(curve, path))
            else:
                curve.save(path)
    finally:
        from metarl.reporting.tables import evaluation_table, task_table

        say(evaluation_table(curve).rich())
        if (each := task_table([curve], [curve.agent])) is not None:
            say("")
            say(each.rich())
    for line in (*filter(None, notes), *(f"wrote {path}" for _, path in files)):
        say(line)
