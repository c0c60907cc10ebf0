"""`metarl train`: an agent into a run folder, or a folder a seed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from metarl import registry
from metarl.allocator import refusals_in_one_line
from metarl.cli.options import Group, asks_for_help, parse
from metarl.cli.seeds import train_seeds
from metarl.cli.targets import chosen_device
from metarl.cli.terminal import say
from metarl.cli.training import Training, TrainOptions, understood
from metarl.errors import UserError
from metarl.interrupts import Stopped, signal_of
from metarl.learning.brought import blame
from metarl.learning.footprint import check_training
from metarl.learning.sharing import check_shares
from metarl.naming import resolve
from metarl.plugins import plugins
from metarl.ranks import ALONE, Ranks, present


def train(words: Sequence[str]) -> int:
    """Train an agent into a run folder."""
    if asks_for_help(words):
        names = ", ".join([*registry.agents(), *plugins("agents")])
        say(f"AGENT is one of {names}, or a learner of your own as module or module:Name.")
        say("With AGENT and --family or --dataset given, --help shows their options too.\n")
        parse("metarl train AGENT", ["--help"], Group("command", TrainOptions))
    ranks = present()
    training = ranks.together(lambda: _understood(words, ranks))
    if training.options.seeds:
        return train_seeds(training)
    code = train_one(training, ranks)
    ranks.leave()
    return code


def _understood(words: Sequence[str], ranks: Ranks) -> Training:
    """What the words ask these processes for."""
    training = understood(words)
    if not training.options.seeds and "--seeds" in (*training.words.typed, *training.words.file):
        raise UserError("--seeds names no seed: give at least one, such as --seeds 0 1 2")
    if training.options.seeds and ranks.size > 1:
        raise UserError("--seeds trains each seed in a process of its own: give one --seed with torchrun")
    check_shares(training.name, training.learner, training.config, ranks)
    return training


def train_one(training: Training, ranks: Ranks = ALONE) -> int:
    """Train one seed.

    Raises:
        Stopped: a signal; it says how to go on.
    """
    try:
        return _train_one(training, ranks)
    except KeyboardInterrupt as stopped:
        from metarl.runs.record import CONFIG

        out = training.options.out
        begun = (out / CONFIG).exists()
        how = f"resume with: metarl train --resume {shlex.quote(str(out))}" if begun else "nothing has begun"
        raise Stopped(f"interrupted{_after(stopped)}; {how}", signal_of(stopped)) from None


def _train_one(training: Training, ranks: Ranks) -> int:
    from metarl.runs import joint
    from metarl.runs.environment import as_begun

    name, learner, options, config, source, _, note = training
    device = ranks.together(lambda: chosen_device(options.device, ranks))
    callbacks = ranks.together(lambda: _callbacks(options) if ranks.leads else [])
    ranks.together(lambda: check_training(config, source, device))
    of = {"learner": name, "config": config, "source": source, "seed": options.seed, "device": device}
    run = joint.begin(ranks, options.out, **of, resume=options.resume)
    run.checkpoint_minutes, run.minutes = options.checkpoint_minutes, options.minutes
    if (root := getattr(source, "data_root", None)) is not None:
        run.remember("data_root", str(root.resolve()))  # a hint for `evaluate`, no part of the source's identity
    if note is not None:
        say(note)
    run.attach(callbacks, lambda now: learner.load(now, source))
    try:
        with refusals_in_one_line(), as_begun(run.record):
            learner.train(config, source, run)
    except UserError:
        if not options.resume:
            run.withdraw()
        raise
    except Exception as error:
        from metarl.runs.callbacks import RAISED

        if (
            culprit := next((note for note in getattr(error, "__notes__", ()) if note.startswith(RAISED)), None)
        ) is None:
            raise
        raise UserError(f"{culprit}: {blame(error)}; metarl train --resume {shlex.quote(str(options.out))}") from error
    trust = " --trust" if registry.foreign_code(run.record) else ""
    say(f"trained {name} into {options.out}; measure it with: metarl evaluate {shlex.quote(str(options.out))}{trust}")
    return 0


def _callbacks(options: TrainOptions) -> list[Any]:
    """What watches the training: the user's own, then trackers, which see what those add."""
    from metarl.integrations.trackers import TRACKERS
    from metarl.runs.callbacks import check_callbacks

    made = []
    for name in options.callback:
        value = resolve(name, "--callback")
        try:
            made.append(value() if isinstance(value, type) else value)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"--callback {name} cannot be made: {blame(error)}") from error
    return [*check_callbacks(made), *(TRACKERS[name]() for name in options.track)]


def _after(stopped: KeyboardInterrupt) -> str:
    iteration = getattr(stopped, "iteration", None)
    return "" if iteration is None else f" after {iteration} iterations"
