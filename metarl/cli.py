"""`metarl ...`: the composition root, the one place that knows every room.

Each command is an options dataclass and a function. The options of a learner are the fields of its
`Config`, those of a family the fields of its dataclass; tyro turns them into flags, help and checks.
Torch, matplotlib and the environments load only when a command needs them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import json
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from metarl import __version__
from metarl.allocator import keep_freed_memory
from metarl.errors import NonFiniteError, UserError
from metarl.fewshot import LEARNERS as FEW_SHOT
from metarl.fewshot.datasets import DATASETS
from metarl.options import Group, asks_for_help, check_output, complain, fail, first, parse, peek, refuse, say

if TYPE_CHECKING:
    from metarl.evaluation.curve import AdaptationCurve
    from metarl.learning.contract import Adaptable, Budget, Source
    from metarl.runs.run import Run
    from metarl.tasks import Tasks


class Entry(NamedTuple):
    """A row of the tables below."""

    where: str  # module, or module:attribute; several with commas between them
    source: Literal["family", "dataset"]  # where its tasks come from
    about: str


LEARNERS = {  # objects with Config, train and load (metarl.learning.contract.Learner)
    "maml-trpo": Entry(
        "metarl.agents.maml_trpo", "family", "policy initialisation that adapts in a few gradient steps"
    ),
    "rl2": Entry("metarl.agents.rl2", "family", "recurrent policy that adapts in its memory, within a trial"),
    "ppo-pretrained": Entry(
        "metarl.agents.ppo_pretrained", "family", "one policy for all tasks, fine-tuned on each by gradient steps"
    ),
    "ppo-scratch": Entry("metarl.agents.ppo_scratch", "family", "a random policy, fine-tuned on each task alike"),
    "ppo-oracle": Entry("metarl.agents.ppo_oracle", "family", "a policy that is shown the task; does not adapt"),
    **{name: Entry(where, "dataset", about) for name, (where, about) in FEW_SHOT.items()},
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

Id = Annotated[str | None, tyro.conf.arg(metavar="ID")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Count = Annotated[int | None, tyro.conf.arg(metavar="INT")]

ORACLE = "ppo-oracle"  # the agent whose curves may be reference lines
QUICKSTART_FAMILY = "metarl/Navigation2D-v0"
QUICKSTART: dict[str, Any] = {"iterations": 25}  # what differs from the default config
MOST_FPS = 240.0  # of a film
FAMILY_TASKS, DATASET_TASKS = 40, 600  # test tasks of an evaluation unless told otherwise


@dataclass(frozen=True)
class QuickstartOptions:
    """Train MAML-TRPO on 2D navigation, adapt to goals it has never seen, draw the curve.

    Attributes:
        out: folder of the run; a finished one is evaluated again, an interrupted one continued.
        seed: names every random stream.
    """

    out: Path = Path("runs/quickstart")
    seed: int = 0


@dataclass(frozen=True)
class ListOptions:
    """Show what there is.

    Attributes:
        json: print JSON.
    """

    json: bool = False


@dataclass(frozen=True)
class TrainOptions:
    """Train an agent into a run folder.

    Attributes:
        out: the run folder; absent or empty, or an interrupted run with --resume.
        family: id of the task family (metarl list families).
        dataset: name of the data set (metarl list datasets).
        seed: names every random stream.
        device: a torch device, such as cpu or cuda.
        resume: continue the run in --out; give the other options as before (--iterations may be raised).
        preset_config: a named set of defaults for the agent's options; by default that of the data set.
    """

    out: Path
    family: Id = None
    dataset: Name = None
    seed: int = 0
    device: str = "cpu"
    resume: bool = False
    preset_config: Name = None


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure an adaptation curve on frozen tasks.

    Attributes:
        family: id of the task family; for an agent that needs no training.
        dataset: name of the data set; for an agent that needs no training.
        split: which frozen tasks: validation, test, ood or train.
        tasks: how many of them; 40 of a family and 600 of a data set unless given. A finite family may have fewer:
            then all are measured, and few get a row and a picture each.
        steps: K, the bits of adaptation.
        episodes: fresh episodes a bit of adaptation may use, and as many that judge each score.
        seed: names the streams of the evaluation.
        oracle: an evaluated ppo-oracle run (or its curve's JSON) whose mean is the reference line; by default
            the optimum, where it is known in closed form.
        json: write the curve here too.
        csv: write a row a seed, task and step here.
        plot: draw the curve here too (.png, .svg or .pdf).
        ways: classes a task; few-shot runs, unless as in training.
        shots: support images a class; few-shot runs, unless as in training.
        queries: query images a class; few-shot runs, unless as in training.
        within_groups: all classes of a task from one group (an alphabet); few-shot runs.
        data_root: the folder that holds the data sets; otherwise that of the training.
    """

    family: Id = None
    dataset: Name = None
    split: str = "test"
    tasks: Count = None
    steps: int = 3
    episodes: int = 40
    seed: int = 0
    oracle: File = None
    json: File = None
    csv: File = None
    plot: File = None
    ways: Count = None
    shots: Count = None
    queries: Count = None
    within_groups: bool = False
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None


@dataclass(frozen=True)
class PredictOptions:
    """Learn new classes from a few pictures each, and classify others.

    Attributes:
        support: folder with a folder of pictures for each class, named as the class.
        query: pictures to classify.
        json: write the probabilities of all classes here too.
        batch_norm: what pictures are normalised with, unless as in training: transductive or support.
    """

    support: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    query: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")]
    json: File = None
    batch_norm: Literal["transductive", "support"] | None = None


@dataclass(frozen=True)
class CompareOptions:
    """Compare evaluated runs of the same problem; those that differ only in the seed are one curve.

    Attributes:
        out: the picture (.png, .svg or .pdf).
        json: write the curves and every number of the comparison here.
        markdown: write the tables here.
        profile: draw the performance profiles here (.png, .svg or .pdf).
        against: the agent, or the RUN, that the others are compared to; by default the first. The p-value, corrected
            for the number of comparisons, needs 5 seeds of each trained agent.
        reach: report how much adaptation each agent needs to reach this score (accuracies are between 0 and 1).
        axis: what to draw them against (final: the last scores alone); by default what all of them count.
    """

    out: Path
    json: File = None
    markdown: File = None
    profile: File = None
    against: Annotated[str | None, tyro.conf.arg(metavar="RUN|AGENT")] = None
    reach: Annotated[float | None, tyro.conf.arg(metavar="SCORE")] = None
    axis: Literal["gradient_steps", "env_steps", "shots", "final"] | None = None


@dataclass(frozen=True)
class VideoOptions:
    """Film an agent before and after it adapts to a frozen task, side by side.

    Attributes:
        out: the film (.mp4, which needs the video extra, or .gif).
        task: which of the split's frozen tasks, from 0.
        split: which frozen tasks: validation, test, ood or train.
        steps: K, the bits of adaptation before the second episode.
        episodes: fresh episodes a bit of adaptation may use.
        seed: names the streams of adaptation and of the filmed episodes.
        fps: pictures a second; by default 20, or fewer so that a short episode lasts five seconds.
    """

    out: Path
    task: int = 0
    split: str = "test"
    steps: int = 3
    episodes: int = 40
    seed: int = 0
    fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None


@dataclass(frozen=True)
class ReportOptions:
    """Write one self-contained HTML page about runs: comparison, training curves, configs, versions and videos.

    Attributes:
        out: the folder that gets index.html; it is made if need be.
    """

    out: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: words after `metarl`; those of the process by default.

    Returns:
        The exit code: 0; 2 after bad input, 3 where a number became NaN or infinite (one line on stderr says
        what); 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        say(_usage())
        return 0
    if words[0] == "--version":
        say(__version__)
        return 0
    try:
        if words[0] not in COMMANDS:
            refuse("command", words[0], COMMANDS)
        keep_freed_memory()
        with _warnings_in_one_line():
            return COMMANDS[words[0]][0](words[1:])
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except SystemExit as done:  # tyro has printed its help
        return int(done.code or 0)
    except (UserError, NonFiniteError) as error:
        complain(str(error))
        return 2 if isinstance(error, UserError) else 3


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show each warning of ours as it comes, in one line; those of others as ever."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category.__module__.startswith("metarl."):
                complain(f"warning: {message}")
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = show
        warnings.filterwarnings("always", category=UserWarning, module=r"metarl\.")
        yield


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items())
    return (
        f"usage: metarl COMMAND ...\n\n{rows}\n\nmetarl COMMAND --help shows its options; metarl --version the version."
    )


# Rooms


def resolve(where: str) -> Any:
    """The module, or the attribute of one, at `module` or `module:attribute`."""
    module, _, attribute = where.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def source_group(entry: Entry, agent: str, words: Sequence[str]) -> Group:
    """The family or data set that the words name, as a group of options."""
    family, dataset = peek(words, "--family"), peek(words, "--dataset")
    if entry.source == "dataset":
        if dataset is None or family is not None:
            fail(f"{agent} learns from a data set: give --dataset, one of {', '.join(DATASETS)}")
        if dataset not in DATASETS:
            refuse("data set", dataset, DATASETS)
        group = Group("dataset", resolve(DATASETS[dataset]))
    else:
        from metarl.envs import FAMILIES, family_class

        if family is None or dataset is not None:
            fail(f"{agent} acts in a task family: give --family, one of {', '.join(FAMILIES)}")
        if family not in FAMILIES:
            refuse("family", family, FAMILIES)
        group = Group("family", family_class(family))
    presets = getattr(group.kind, "presets", None)
    preset = peek(words, "--preset")
    if presets and preset is not None and preset not in presets:
        refuse(f"preset of {family or dataset}", preset, presets)
    return group


def make_source(name: str, options: Mapping[str, Any]) -> Source:
    """The family or data set that a run was trained on."""
    from metarl.envs import FAMILIES, make_family

    try:
        if name in DATASETS:
            made: Source = resolve(DATASETS[name])(**options)
            return made
        if name in FAMILIES:
            return make_family(name, **options)
    except (TypeError, ValueError) as error:
        fail(f"cannot make {name} with {json.dumps(dict(options))}: {error}")
    refuse("family or data set", name, [*FAMILIES, *DATASETS])


def make_untrained(name: str, source: Source) -> Adaptable:
    """The agent of that name in `UNTRAINED`, for a family.

    Raises:
        UserError: it cannot act there.
    """
    where, refusals = UNTRAINED[name].where, []
    for place in where.split(","):
        found = resolve(place)
        try:
            made: Adaptable = found(source) if ":" in place else found.solver(name, source)
            return made
        except UserError as refusal:
            refusals.append(str(refusal))
    fail("; ".join(refusals))


def check_device(name: str) -> str:
    """The name of a device that this machine has."""
    from metarl.parallel import has_device

    if not has_device(name):
        fail(f"this machine has no device {name!r}; --device cpu always works")
    return name


# Commands


def quickstart(words: Sequence[str]) -> int:
    """Train, evaluate and draw in one go."""
    (options,) = parse("metarl quickstart", words, Group("command", QuickstartOptions))
    again = shlex.join(["metarl", "quickstart", *words])
    from metarl.envs import make_family
    from metarl.runs.record import CONFIG
    from metarl.runs.run import Run

    learner = resolve(LEARNERS["maml-trpo"].where)
    family = make_family(QUICKSTART_FAMILY)
    config = dataclasses.replace(learner.Config(), **QUICKSTART)
    begin = Run.resume if (options.out / CONFIG).exists() else Run.create
    run = begin(options.out, learner="maml-trpo", config=config, source=family, seed=options.seed)
    restored = run.restore()
    done = restored[0] if restored is not None else 0
    if done >= config.iterations:
        say(f"{options.out} is already trained; evaluating it again")
    else:
        so_far = f", {done} of them done before" if done else ""
        say(f"training maml-trpo on {family.name} for {config.iterations} iterations{so_far}, into {options.out}")
        try:
            learner.train(config, family, run)
        except KeyboardInterrupt:
            complain(f"interrupted; continue with: {again}")
            return 130
    say("evaluating on goals it has never seen")
    _evaluate_run(options.out, EvaluateOptions())
    return 0


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
        refuse("list", kind, kinds)
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
    from metarl.envs import FAMILIES, family_class

    rows = []
    for name in FAMILIES:
        kind = family_class(name)
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
    for table, trained in ((LEARNERS, True), (UNTRAINED, False)):
        for name, entry in table.items():
            rows.append({"agent": name, "trained": trained, "tasks from": entry.source, "what": entry.about})
    return rows


def _datasets() -> list[dict[str, Any]]:
    rows = []
    for name, where in DATASETS.items():
        fields = dataclasses.fields(resolve(where))  # the data themselves may be absent: make none
        options = {f.name: None if f.default is dataclasses.MISSING else f.default for f in fields}
        rows.append({"dataset": name, "options": options})
    return rows


def train(words: Sequence[str]) -> int:
    """Train an agent into a run folder."""
    if asks_for_help(words):
        say(f"AGENT is one of {', '.join(LEARNERS)}.")
        say("With AGENT and --family or --dataset given, --help shows their options too.\n")
        parse("metarl train AGENT", ["--help"], Group("command", TrainOptions))
    agent, rest = first(words, "AGENT", "train")
    if agent in UNTRAINED:
        fail(f"{agent} needs no training: metarl evaluate {agent} {_where(UNTRAINED[agent])}")
    if agent not in LEARNERS:
        refuse("agent", agent, LEARNERS)
    entry = LEARNERS[agent]
    learner = resolve(entry.where)
    config_group = Group("agent", learner.Config, _default_config(learner, agent, rest))
    groups = [Group("command", TrainOptions), config_group]
    wants_help = "--help" in rest or "-h" in rest
    if not wants_help or peek(rest, "--family") or peek(rest, "--dataset"):
        groups.append(source_group(entry, agent, rest))
    options, config, *sources = parse(f"metarl train {agent}", rest, *groups)
    from metarl.runs.run import Run

    begin = Run.resume if options.resume else Run.create
    device = check_device(options.device)
    run = begin(options.out, learner=agent, config=config, source=sources[0], seed=options.seed, device=device)
    if (root := getattr(sources[0], "data_root", None)) is not None:
        run.remember("data_root", str(root.resolve()))  # a hint for `evaluate`, no part of the source's identity
    try:
        learner.train(config, sources[0], run)
    except KeyboardInterrupt as stopped:
        again = ["metarl", "train", *words, *([] if options.resume else ["--resume"])]
        complain(f"interrupted{_after(stopped)}; resume with: {shlex.join(again)}")
        return 130
    except UserError:
        if not options.resume:
            run.withdraw()
        raise
    say(f"trained {agent} into {options.out}; measure it with: metarl evaluate {shlex.quote(str(options.out))}")
    return 0


def _after(stopped: KeyboardInterrupt) -> str:
    iteration = getattr(stopped, "iteration", None)
    return "" if iteration is None else f" after {iteration} iterations"


def _default_config(learner: Any, agent: str, words: Sequence[str]) -> Any:
    """The named config that the words ask for, that of their data set, or the learner's only one."""
    name = peek(words, "--preset-config")
    named: Mapping[str, Any] = getattr(learner, "DEFAULTS", {})
    if name is None:
        return named.get(peek(words, "--dataset") or "") or learner.Config()
    if name not in named:
        refuse(f"config preset of {agent}", name, named)
    return named[name]


def evaluate(words: Sequence[str]) -> int:
    """Measure a run, or an agent that needs no training."""
    if asks_for_help(words):
        say("RUN is a run folder; its curve.json and curve.png are written into it.")
        say(f"AGENT is one of {', '.join(UNTRAINED)} and needs --family or --dataset.\n")
        parse("metarl evaluate RUN|AGENT", ["--help"], Group("command", EvaluateOptions))
    target, rest = first(words, "RUN|AGENT", "evaluate")
    command = Group("command", EvaluateOptions)
    if target not in UNTRAINED:
        folder = _existing_run(target)
        (options,) = parse("metarl evaluate RUN", rest, command)
        if options.family is not None or options.dataset is not None:
            fail("a run knows its tasks: --family and --dataset go with an agent that needs no training")
        _evaluate_run(folder, options)
        return 0
    entry = UNTRAINED[target]
    group = source_group(entry, target, rest)
    options, source = parse(f"metarl evaluate {target}", rest, command, group)
    source = _asked_for(source, options)
    _check_outputs(options)
    curve = _measure(make_untrained(target, source), target, source, options, trained=False)
    _report(curve, {"json": options.json, "csv": options.csv, "plot": options.plot})
    return 0


def _existing_run(target: str, instead: Sequence[str] = tuple(UNTRAINED)) -> Path:
    """The run folder; `instead` are agents that the command takes in its place."""
    folder = Path(target)
    if folder.exists():
        return folder
    if target in LEARNERS:
        fail(f"{target} must be trained first (metarl train {target} ...); then give the run folder")
    nearest = difflib.get_close_matches(target, instead, n=1, cutoff=0.5)
    hint = f" (did you mean {nearest[0]}?)" if nearest else ""
    others = f", or one of {', '.join(instead)} with --family or --dataset" if instead else ""
    fail(f"there is no run {target!r}{hint}; give a run folder{others}")


def _where(entry: Entry) -> str:
    return "--family ID" if entry.source == "family" else "--dataset NAME"


def _asked_for(source: Source, options: EvaluateOptions) -> Source:
    """The source with the ways, shots, queries, groups and folder that the options name."""
    given = {name: getattr(options, name) for name in ("ways", "shots", "queries", "data_root")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.within_groups:
        given["within_groups"] = True
    if not given:
        return source
    fields = {field.name for field in dataclasses.fields(source)}  # type: ignore[arg-type]  # every source is one
    if foreign := [f"--{name.replace('_', '-')}" for name in given if name not in fields]:
        fail(f"{source.name} has no {', '.join(foreign)}")
    asked: Source = dataclasses.replace(source, **given)  # type: ignore[type-var]  # as above
    return asked


def _data_root(run: Run, given: Path | None) -> dict[str, Path]:
    """Where the run's data set lies, as an option of its class: the folder given, or that of the training."""
    remembered = run.recall("data_root")
    if given is None and remembered is not None and not Path(remembered).exists():
        fail(f"{run.folder} was trained on data in {remembered}, which is not there: give --data-root")
    root = given or (Path(remembered) if remembered is not None else None)
    return {} if root is None else {"data_root": root}


def _apart(options: EvaluateOptions) -> str:
    """What a curve's file is called beside "curve", so that curves of different problems keep apart."""
    words = [options.split] if options.split != "test" else []
    words += [f"{value}-{name}" for name in ("ways", "shots", "queries") if (value := getattr(options, name))]
    words += ["within-groups"] if options.within_groups else []
    return "".join(f"-{word}" for word in words)


def _open_run(folder: Path, data_root: Path | None = None) -> tuple[Any, Run, Source]:
    """The learner, the run and its source."""
    from metarl.runs.run import Run

    name = Run.open(folder).learner
    if name not in LEARNERS:
        refuse(f"agent in {folder}", name, LEARNERS)
    learner = resolve(LEARNERS[name].where)
    run = Run.open(folder, learner.Config)
    place = _data_root(run, data_root)
    return learner, run, make_source(run.source.get("name", ""), {**run.source.get("options", {}), **place})


def _evaluate_run(folder: Path, options: EvaluateOptions) -> None:
    """Measure a run and write the curve into its folder."""
    learner, run, trained_on = _open_run(folder, options.data_root)
    source = _asked_for(trained_on, options)
    stem = "curve" + _apart(options)
    _check_outputs(options)
    check_output(folder / f"{stem}.json")
    if source.name in DATASETS:
        from metarl.fewshot.learners.training import check_unseen

        if options.split in source.splits:
            check_unseen(run, source, options.split)
    config = dataclasses.asdict(run.config)
    curve = _measure(learner.load(run, trained_on), run.learner, source, options, seed=run.seed, config=config)
    files = {"json": folder / f"{stem}.json", "plot": folder / f"{stem}.png"}
    _report(curve, files)
    _report(curve, {"json": options.json, "csv": options.csv, "plot": options.plot}, table=False)


def _check_outputs(options: EvaluateOptions) -> None:
    if options.plot is not None:
        from metarl.reporting.figures.style import check_picture

        check_picture(options.plot)
    for path in (options.json, options.csv, options.plot):
        check_output(path)
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
    from metarl.evaluation.measure import curve_of
    from metarl.learning.contract import Budget

    if options.split not in source.splits:
        refuse(f"split of {source.name}", options.split, source.splits)
    count = options.tasks
    if count is None:
        count = DATASET_TASKS if source.name in DATASETS else FAMILY_TASKS
    if count < 1:
        fail(f"--tasks is {count}; it must be at least 1")
    budget = Budget(options.steps, options.episodes)
    tasks = source.fixed(options.split, count)
    measured = None if options.oracle is None else _oracle_score(options.oracle, source, options.split, tasks)
    scores = agent.curve(tasks, budget, options.seed)
    if len(tasks) < count:
        number = f"{len(tasks)} {options.split} task{'s' * (len(tasks) != 1)}"
        say(f"{source.name} has {number}, fewer than {count}: all were measured")
    return curve_of(
        scores,
        agent=name,
        source=source,
        split=options.split,
        tasks=tasks,
        seeds=(seed,),
        random=_reference("random", source, tasks, budget, options.seed),
        oracle=_reference("oracle", source, tasks, budget, options.seed) if measured is None else measured,
        evaluation_seed=options.seed,
        budget=budget,
        config=config,
        trained=trained,
    )


def _reference(name: str, source: Source, tasks: Tasks, budget: Budget, seed: int) -> float | None:
    """Mean score of a baseline on the same tasks, by its nature for classification; None where there is none."""
    from metarl.evaluation.measure import curve_of
    from metarl.tasks import TaskFamily

    if not isinstance(source, TaskFamily):
        ways = getattr(source, "ways", None)  # of a classifier: one that guesses, one that knows
        return None if ways is None else {"random": 1 / ways, "oracle": 1.0}[name]
    try:
        agent = make_untrained(name, source)
        scores = agent.curve(tasks, dataclasses.replace(budget, steps=0), seed)
    except UserError:
        return None
    curve = curve_of(scores, agent=name, source=source, split=tasks.split, tasks=tasks)
    if curve.diverged.any():
        complain(f"the reference {name!r} got scores that are not finite on these tasks, and is left out")
        return None
    return float(curve.mean[0])


def _oracle_score(path: Path, source: Source, split: str, tasks: Tasks) -> float:
    """Mean score of an evaluated oracle; refused unless it is one and was measured on these very tasks."""
    curve = saved_curve(path)
    if curve.agent != ORACLE:
        fail(f"--oracle {path} is a curve of {curve.agent}; give an evaluated run of {ORACLE}")
    asked = source.options()
    wanted = {
        "family": source.name,
        "preset": asked.pop("preset", None),
        "family options": asked,
        "split": split,
        "tasks": tasks.sha256(),
    }
    found = {
        "family": curve.family,
        "preset": curve.preset,
        "family options": dict(curve.options),
        "split": curve.split,
        "tasks": curve.task_hash,
    }
    for what, value in wanted.items():
        if found[what] != value:
            fail(
                f"the oracle {path} was measured on another problem ({what}: {found[what]}, not {value}); "
                f"measure it on the same {split} tasks: metarl evaluate RUN --split {split} --tasks {len(tasks)}"
            )
    if curve.diverged.any():
        fail(f"the oracle {path} has scores that diverged; a reference must be finite")
    return float(curve.mean.mean())


def _report(curve: AdaptationCurve, files: Mapping[str, Path | None], *, table: bool = True) -> None:
    """Print the curve and write its files."""
    if table:
        from metarl.reporting.tables import evaluation_table, task_table

        say(evaluation_table(curve).rich())
        if (each := task_table([curve], [curve.agent])) is not None:
            say("")
            say(each.rich())
    for kind, path in files.items():
        if path is None:
            continue
        if kind == "plot":
            from metarl.reporting.plots import plot_curves

            plot_curves(curve, path)
        else:
            curve.save(path)
        say(f"wrote {path}")


def predict(words: Sequence[str]) -> int:
    """Learn new classes from pictures and classify others."""
    if asks_for_help(words):
        say("RUN is the folder of a few-shot run.\n")
        parse("metarl predict RUN", ["--help"], Group("command", PredictOptions))
    target, rest = first(words, "RUN", "predict")
    (options,) = parse("metarl predict RUN", rest, Group("command", PredictOptions))
    check_output(options.json)
    files = _class_folders(options.support)
    if not options.query:
        fail("--query names no picture; give at least one file")
    if missing := [path for path in options.query if not path.is_file()]:
        fail(f"there is no picture {missing[0]}")
    from metarl.evaluation.storage import dump_json, write_atomically
    from metarl.fewshot.classifier import FewShotClassifier, load_run

    run, learner = load_run(target, options.batch_norm)
    from metarl.fewshot.datasets.archives import some

    known = [label for label in files if label in (run.recall("trained_on") or {}).get("classes", ())]
    if known:
        complain(
            f"warning: {target} was trained on {len(known)} of these classes ({some(known)}): they are not new to it"
        )
    pictures = [path for members in files.values() for path in members]
    labels = [name for name, members in files.items() for _ in members]
    classifier = FewShotClassifier(learner).fit(pictures, labels)
    probabilities = classifier.predict_proba(list(options.query))
    names = [str(name) for name in classifier.classes_]
    best = probabilities.argmax(1)
    widths = [max(map(len, column)) for column in ([str(path) for path in options.query], names)]
    for path, chosen, row in zip(options.query, best, probabilities, strict=True):
        say(f"{path!s:{widths[0]}}  {names[chosen]:{widths[1]}}  {row[chosen]:.3f}")
    others = "; a prediction depends on the other pictures given" if classifier.batch_norm_ == "transductive" else ""
    say(
        f"{run.learner} trained on {run.source['name']}, {len(pictures)} support pictures of {len(names)} classes; "
        f"batch norm: {classifier.batch_norm_}{others}"
    )
    if options.json is not None:
        document = {
            "version": 1,
            "run": target,
            "agent": run.learner,
            "dataset": run.source["name"],
            "batch_norm": classifier.batch_norm_,
            "support": {name: len(members) for name, members in files.items()},
            "predictions": [
                {
                    "file": str(path),
                    "class": names[chosen],
                    "probabilities": dict(zip(names, row.tolist(), strict=True)),
                }
                for path, chosen, row in zip(options.query, best, probabilities, strict=True)
            ],
        }
        write_atomically(options.json, dump_json(document).encode())
        say(f"wrote {options.json}")
    return 0


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class, in the order of names."""
    from metarl.fewshot.datasets.archives import FolderStore, some, warn
    from metarl.fewshot.datasets.folder import EMPTY, classes_of

    if not folder.is_dir():
        fail(f"there is no folder {folder}; give --support a folder with a folder of pictures for each class")
    members, passed_over = classes_of(FolderStore(folder))
    if empty := passed_over[EMPTY]:
        fail(f"{folder} has folders without a picture: {some(empty)}; put some in, or remove them")
    if len(members) < 2:
        fail(f"{folder} holds folders of pictures of {len(members)} classes; at least 2 are needed")
    warn(str(folder), passed_over)
    return {label: [folder / name for name in names] for label, names in members.items()}


def compare(words: Sequence[str]) -> int:
    """Compare several evaluated runs."""
    if asks_for_help(words):
        say(
            "usage: metarl compare RUN [RUN ...] --out FILE.png [options]; RUN is a run folder, or the JSON of a curve "
            "or of a comparison.\n"
        )
        parse("metarl compare RUN...", ["--help"], Group("command", CompareOptions))
    first(words, "RUN", "compare")
    end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    (options,) = parse("metarl compare RUN...", words[end:], Group("command", CompareOptions))
    from metarl.evaluation import comparison
    from metarl.evaluation.merging import merge_seeds
    from metarl.evaluation.storage import dump_json, write_atomically
    from metarl.reporting.figures.style import check_picture
    from metarl.reporting.plots import plot_curves, plot_profiles
    from metarl.reporting.tables import protocol_table, score_table, summary_table, task_table

    for picture in (options.out, options.profile):
        check_output(picture and check_picture(picture))
    check_output(options.json)
    check_output(options.markdown)
    saved = {word: saved_curves(Path(word)) for word in words[:end]}
    curves = merge_seeds([curve for found in saved.values() for curve in found])
    against = 0 if options.against is None else _named(options.against, curves, saved)
    found = comparison.compare(curves, against=against, reach=options.reach, axis=options.axis)
    each = task_table(found.curves, found.labels)
    tables = [summary_table(found), score_table(found), *([each] if each is not None else []), protocol_table(found)]
    for table in tables:
        say(table.rich())
        say("")
    plot_curves(found.curves, options.out, found.axis)
    if options.profile is not None:
        plot_profiles(found.curves, options.profile)
    if options.json is not None:
        document = {
            "version": 1,
            "comparison": found.to_dict(),
            "curves": [curve.to_dict() for curve in found.curves],
        }
        write_atomically(options.json, dump_json(document).encode())
    if options.markdown is not None:
        write_atomically(options.markdown, "\n".join(table.markdown() for table in tables).encode())
    for path in (options.out, options.profile, options.json, options.markdown):
        if path is not None:
            say(f"wrote {path}")
    return 0


def report(words: Sequence[str]) -> int:
    """Write a page about several runs."""
    if asks_for_help(words):
        say(
            "usage: metarl report RUN [RUN ...] --out DIR; RUN is a run folder, evaluated or not, or the JSON of a "
            "curve or of a comparison.\n"
        )
        parse("metarl report RUN...", ["--help"], Group("command", ReportOptions))
    first(words, "RUN", "report")
    end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    (options,) = parse("metarl report RUN...", words[end:], Group("command", ReportOptions))
    from metarl.reporting.page import PAGE, Subject, write_report
    from metarl.runs.run import Run

    if options.out.exists() and not options.out.is_dir():
        fail(f"cannot write a report into {options.out}: it is a file; give a folder")
    if options.out.is_dir():
        check_output(options.out / PAGE)
    subjects = []
    for word in dict.fromkeys(words[:end]):
        folder = Path(word) if Path(word).is_dir() else None
        evaluated = folder is None or (folder / "curve.json").exists()
        curves = tuple(saved_curves(Path(word))) if evaluated else ()
        subjects.append(Subject(word, None if folder is None else Run.open(folder), curves))
    say(f"wrote {write_report(subjects, options.out)}")
    return 0


def _named(name: str, curves: Sequence[AdaptationCurve], saved: Mapping[str, Sequence[AdaptationCurve]]) -> int:
    """The index of the curve with a label, of an agent, or of a RUN as typed."""
    from metarl.evaluation.merging import labels, mergeable

    known = labels(curves)
    if name in known:
        return known.index(name)
    if name in saved:
        return next(i for i, curve in enumerate(curves) if mergeable(curve, saved[name][0]))
    refuse("agent or RUN to compare with", name, [*known, *saved])


def saved_curve(path: Path) -> AdaptationCurve:
    """The only curve of a run folder or of a JSON file."""
    curves = saved_curves(path)
    if len(curves) != 1:
        fail(f"{path} holds {len(curves)} curves, not one")
    return curves[0]


def saved_curves(path: Path) -> list[AdaptationCurve]:
    """The curves of a run folder, of a curve's JSON, or of a comparison's."""
    from metarl.evaluation.curve import load_curves

    if not path.exists():
        fail(f"there is no run or curve {str(path)!r}")
    if path.is_dir():
        if not (path / "curve.json").exists():
            fail(f"{path} has no curve.json yet: metarl evaluate {shlex.quote(str(path))}")
        path = path / "curve.json"
    return load_curves(path)


def video(words: Sequence[str]) -> int:
    """Film a run before and after adaptation."""
    if asks_for_help(words):
        say("RUN is the folder of a run that acts in a task family.\n")
        parse("metarl video RUN", ["--help"], Group("command", VideoOptions))
    target, rest = first(words, "RUN", "video")
    (options,) = parse("metarl video RUN", rest, Group("command", VideoOptions))
    from metarl.learning.contract import Budget, Filmable
    from metarl.reporting.films import check_film, draw_without_display, write
    from metarl.tasks import FROZEN

    if not 0 <= options.task < FROZEN:
        fail(f"--task is {options.task}; it must be from 0 to {FROZEN - 1}")
    if options.fps is not None and not 0 < options.fps <= MOST_FPS:
        fail(f"--fps is {options.fps:g}; it must be above 0, at most {MOST_FPS:g}")
    budget = Budget(options.steps, options.episodes)
    check_output(check_film(options.out))
    draw_without_display()
    learner, run, source = _open_run(_existing_run(target, instead=()))
    if options.split not in source.splits:
        refuse(f"split of {source.name}", options.split, source.splits)
    agent = learner.load(run, source)
    if not isinstance(agent, Filmable):
        fail(f"{run.learner} in {target} cannot be filmed: only agents that act in a task family can")
    tasks = source.fixed(options.split, options.task + 1)
    if options.task >= len(tasks):
        fail(f"--task is {options.task}; {source.name} has {len(tasks)} {options.split} tasks, 0 to {len(tasks) - 1}")
    recordings = agent.film(tasks[options.task :], budget, options.seed)
    write(recordings, options.out, options.fps)
    for recording in recordings:
        say(f"{recording.title}; filmed: {sum(recording.rewards):.1f} in {len(recording.rewards)} steps")
    say(f"wrote {options.out}")
    return 0


# Printing


def print_json(document: Any) -> None:
    """Print JSON on stdout."""
    say(json.dumps(document, indent=2))


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={entry}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "quickstart": (quickstart, "train MAML-TRPO on 2D navigation, test on unseen goals, draw the curve"),
    "list": (list_things, "show families, agents or data sets"),
    "train": (train, "train an agent into a run folder"),
    "evaluate": (evaluate, "measure the adaptation curve of a run, or of an agent that needs no training"),
    "predict": (predict, "learn new classes from a few pictures each, and classify others"),
    "video": (video, "film an agent before and after adaptation, side by side"),
    "compare": (compare, "compare evaluated runs of one problem: a figure, tables, intervals and p-values"),
    "report": (report, "write one self-contained HTML page about runs"),
}
