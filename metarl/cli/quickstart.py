"""`metarl quickstart`: train, evaluate and draw in one go."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl import registry
from metarl.cli.evaluate import EvaluateOptions, evaluate_run
from metarl.cli.options import Group, parse
from metarl.cli.terminal import say
from metarl.interrupts import Stopped, signal_of

FAMILY = "metarl/Navigation2D-v0"
CHANGES: dict[str, Any] = {"iterations": 25}  # what differs from the default config


@dataclass(frozen=True)
class QuickstartOptions:
    """Train MAML-TRPO on 2D navigation, adapt to goals it has never seen, draw the curve.

    Attributes:
        out: folder of the run; a finished one is evaluated again, an interrupted one continued.
        seed: names every random stream.
    """

    out: Path = Path("runs/quickstart")
    seed: int = 0


def quickstart(words: Sequence[str]) -> int:
    """Train, evaluate and draw in one go."""
    (options,) = parse("metarl quickstart", words, Group("command", QuickstartOptions))
    again = shlex.join(["metarl", "quickstart", *words])
    from metarl.runs.environment import as_begun
    from metarl.runs.record import CONFIG
    from metarl.runs.run import Run

    learner = registry.learner("maml-trpo")
    family = registry.make_source(FAMILY, {})
    config = dataclasses.replace(learner.Config(), **CHANGES)
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
            with as_begun(run.record):
                learner.train(config, family, run)
        except KeyboardInterrupt as stopped:
            raise Stopped(f"interrupted; continue with: {again}", signal_of(stopped)) from None
    say("evaluating on goals it has never seen")
    evaluate_run(options.out, EvaluateOptions())
    return 0
