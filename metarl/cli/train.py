"""`metarl train`: an agent into a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl import registry
from metarl.cli.options import Group, Id, Name, asks_for_help, fail, first, parse, peek
from metarl.cli.targets import source_flag, source_group, usable
from metarl.cli.terminal import complain, say
from metarl.errors import UserError, unknown
from metarl.plugins import plugins


@dataclass(frozen=True)
class TrainOptions:
    """Train an agent into a run folder.

    Attributes:
        out: the run folder; absent or empty, or an interrupted run with --resume.
        family: id of the task family (metarl list families), or your own as module:Name.
        dataset: name of the data set (metarl list datasets), or your own as module:Name.
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


def train(words: Sequence[str]) -> int:
    """Train an agent into a run folder."""
    if asks_for_help(words):
        names = ", ".join([*registry.agents(), *plugins("agents")])
        say(f"AGENT is one of {names}, or a learner of your own as module or module:Name.")
        say("With AGENT and --family or --dataset given, --help shows their options too.\n")
        parse("metarl train AGENT", ["--help"], Group("command", TrainOptions))
    name, rest = first(words, "AGENT", "train")
    agent = registry.find_agent(name)
    if agent is None:
        raise unknown("agent", name, [*registry.agents(), *plugins("agents")])
    if agent.learner is None:
        fail(f"{name} needs no training: metarl evaluate {name} {source_flag(agent.source)}")
    learner = agent.learner
    config_group = Group("agent", learner.Config, _default_config(learner, name, rest))
    groups = [Group("command", TrainOptions), config_group]
    wants_help = "--help" in rest or "-h" in rest
    if not wants_help or peek(rest, "--family") or peek(rest, "--dataset"):
        groups.append(source_group(agent.source, name, rest))
    options, config, *sources = parse(f"metarl train {name}", rest, *groups)
    from metarl.runs.run import Run

    source = usable(sources[0], options.family or options.dataset)
    begin = Run.resume if options.resume else Run.create
    device = check_device(options.device)
    run = begin(options.out, learner=name, config=config, source=source, seed=options.seed, device=device)
    if (root := getattr(source, "data_root", None)) is not None:
        run.remember("data_root", str(root.resolve()))  # a hint for `evaluate`, no part of the source's identity
    try:
        learner.train(config, source, run)
    except KeyboardInterrupt as stopped:
        again = ["metarl", "train", *words, *([] if options.resume else ["--resume"])]
        complain(f"interrupted{_after(stopped)}; resume with: {shlex.join(again)}")
        return 130
    except UserError:
        if not options.resume:
            run.withdraw()
        raise
    say(f"trained {name} into {options.out}; measure it with: metarl evaluate {shlex.quote(str(options.out))}")
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
        raise unknown(f"config preset of {agent}", name, named)
    return named[name]


def check_device(name: str) -> str:
    """The name of a device that this machine has."""
    from metarl.parallel import has_device

    if not has_device(name):
        fail(f"this machine has no device {name!r}; --device cpu always works")
    return name
