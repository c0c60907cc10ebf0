"""The words after `metarl train`: which agent, with which config, on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from metarl import registry
from metarl.cli.config_file import FileOptions, read_options, run_options
from metarl.cli.durations import MINUTES, spoken
from metarl.cli.options import File, Group, Id, Name, Words, fail, first, parse, parse_last, peek
from metarl.cli.targets import source_flag, source_group, usable
from metarl.cli.terminal import say
from metarl.errors import UserError, unknown
from metarl.learning.brought import Agent
from metarl.naming import consent
from metarl.plugins import plugins


@dataclass(frozen=True)
class TrainOptions:
    """Train an agent into a run folder.

    Attributes:
        out: the run folder; absent or empty, or an interrupted run with --resume.
        family: id of the task family (metarl list families), or your own as module:Name.
        dataset: name of the data set (metarl list datasets), or your own as module:Name.
        seed: names every random stream.
        seeds: train each of these, into --out with the seed behind it: runs/x-0, runs/x-1, ...
        jobs: how many of the seeds at a time.
        measure_on: tasks that the seeds are measured on at the end, for one table: validation, test or none.
        device: where it computes: cpu, cuda, cuda:1, ..., or auto, the first that there is of cuda, mps and cpu.
        resume: continue the run in --out with the options as before (but --iterations may be raised and
            --checkpoint-every changed); --resume RUN alone does so with all that the run was made with.
        checkpoint_minutes: minutes that may pass between two checkpoints, beside the iterations of --checkpoint-every;
            no part of what a run is, so that resuming may take another value.
        minutes: of training, after which it ends with its iteration and a checkpoint, to go on with --resume if wanted;
            otherwise --iterations say when.
        preset_config: a named set of defaults for the agent's options; by default the one that fits the family or
            data set, which is said.
        config: options from a file: YAML or JSON (option: value), or a run's folder or config.json; what is given
            here wins.
        callback: what watches the training and may stop it, your own as module:Name (metarl.Callback); may be repeated.
        track: a tracker of experiments that gets the numbers too; may be repeated.
        trust: let the run of --resume, or the file of --config, import code of somebody else's that it names: say so
            only where you know that code.
    """

    out: Path
    family: Id = None
    dataset: Name = None
    seed: int = 0
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT...")] = ()
    jobs: int = 1
    measure_on: Literal["validation", "test", "none"] = "validation"
    device: str = "cpu"
    resume: bool = False
    checkpoint_minutes: Annotated[float, tyro.conf.arg(metavar="FLOAT")] = 5.0
    minutes: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    preset_config: Name = None
    config: File = None
    callback: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME"), tyro.conf.UseAppendAction] = ()
    track: Annotated[tuple[Literal["wandb", "trackio"], ...], tyro.conf.UseAppendAction] = ()
    trust: bool = False


class Training(NamedTuple):
    """What the words ask for."""

    name: str  # of the agent
    learner: Any
    options: TrainOptions
    config: Any  # of the learner
    source: Any
    words: Words
    note: str | None  # which preset is taken unasked


def understood(words: Sequence[str]) -> Training:
    """What the words ask for."""
    name, typed = _agent_and_words(words)
    agent = registry.find_agent(name)
    if agent is None:
        raise unknown("agent", name, [*registry.agents(), *plugins("agents")])
    learner: Any = agent.learner
    if learner is None:
        fail(f"{name} needs no training: metarl evaluate {name} {source_flag(agent.source)}")
    from metarl.learning.presets import plain_config, preset_for, presets

    groups = [Group("command", TrainOptions), Group("agent", learner.Config)]
    if not typed.ask_for_help or typed.peek("--family") or typed.peek("--dataset"):
        groups.append(source_group(agent.source, name, typed))
    named, preset = presets(learner), typed.peek("--preset-config")
    if preset is not None and preset not in named:
        raise unknown(f"config preset of {name}", preset, named)
    before = None if preset else _config_before(typed, learner)
    unasked = preset is None and before is None and not typed.complete
    if unasked and len(groups) > 2:
        source = parse_last(f"metarl train {name}", typed, *groups)
        preset = preset_for(learner, usable(source, typed.peek("--family") or typed.peek("--dataset") or name))
    default = before or (named[preset] if preset else plain_config(learner))
    if default is not None:
        groups[1] = groups[1]._replace(default=default)
    if typed.ask_for_help:
        _show_presets(agent)
    options, config, source = parse(f"metarl train {name}", typed, *groups)
    note = _note(agent, preset, source) if unasked and len(named) > 1 and preset is not None else None
    return Training(name, learner, options, config, source, typed, note)


def _agent_and_words(words: Sequence[str]) -> tuple[str, Words]:
    """The agent, and the options with those of a file, or of the run that is to be resumed."""
    name, typed = (None, list(words)) if words and words[0].startswith("-") else first(words, "AGENT", "train")
    file: FileOptions | None = None
    consent(part for word in typed for part in (word, word.partition("=")[2]))  # what is typed is the user's own
    trust = "--trust" in typed
    if (run := _run_to_resume(typed)) is not None:
        if peek(typed, "--config") is not None or peek(typed, "--out") is not None:
            fail("--resume RUN takes its options from the run: give neither --config nor --out with it")
        if peek(typed, "--seeds") is not None:
            fail("--resume RUN goes on with one run: give no --seeds with it (--seeds ... --resume goes on with each)")
        file = run_options(Path(run), trust)
    elif (path := peek(typed, "--config")) is not None:
        file = read_options(Path(path), trust)
    name = name or (file and file.agent)
    if name is None:
        first([], "AGENT", "train")
        raise AssertionError
    return name, Words(typed, file.flags, str(file.path), file.complete) if file else Words(typed)


def _run_to_resume(typed: list[str]) -> str | None:
    """The RUN of `--resume RUN`, which is taken out of the words."""
    for i, word in enumerate(typed):
        flag, equals, value = word.partition("=")
        if flag == "--resume" and (equals or (typed[i + 1 : i + 2] and not typed[i + 1].startswith("-"))):
            run = value if equals else typed[i + 1]
            if not run:
                fail("--resume names no run: give its folder")
            del typed[i : i + (1 if equals else 2)]
            return run
    return None


def _config_before(words: Words, learner: Any) -> Any | None:
    """The config of the run that is resumed: its options need not be given again."""
    from metarl.runs.record import CONFIG
    from metarl.runs.run import Run

    out = words.peek("--out")
    resumes = "--resume" in words.typed or "--resume" in words.file
    if not resumes or words.peek("--seeds") or out is None or not (Path(out) / CONFIG).exists():
        return None
    try:
        run = Run.open(out, learner.Config)
    except UserError:  # another learner's, or damaged: resuming says so
        return None
    registry.check_code(run.record, Path(out), "--trust" in words.typed)
    return run.config


def _show_presets(agent: Agent) -> None:
    from metarl.learning.presets import presets, purpose

    named = presets(agent.learner)
    if len(named) < 2:
        return
    say(f"--preset-config of {agent.name}; the one that fits is taken unless given:")
    for name in named:
        minutes = MINUTES.get(agent.name, {}).get(name)
        time = "" if minutes is None else f"; about {spoken(minutes)} on 2 cores"
        say(f"  {name:{max(map(len, named))}}  {purpose(agent.learner, name)}{time}")
    say("")


def _note(agent: Agent, preset: str, source: Any) -> str:
    """One line about the preset that was taken unasked."""
    from metarl.learning.presets import presets, purpose

    named = presets(agent.learner)
    minutes = MINUTES.get(agent.name, {}).get(preset)
    iterations = getattr(named[preset], "iterations", None)
    time = "" if minutes is None else f"; its {iterations:,} iterations take about {spoken(minutes)} on 2 cores"
    others = ", ".join(name for name in named if name != preset)
    what = purpose(agent.learner, preset)
    return f"{source.name}: preset {preset} of {agent.name} ({what}){time}; --preset-config takes {others} instead"
