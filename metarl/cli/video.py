"""`metarl video`: an agent before and after it adapts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl import registry
from metarl.cli.options import Group, asks_for_help, fail, first, parse
from metarl.cli.outputs import check_outputs
from metarl.cli.targets import chosen_device, existing_run
from metarl.cli.terminal import say
from metarl.errors import unknown

MOST_FPS = 240.0  # of a film
MOST_TASKS = 6  # rows that a film may have


@dataclass(frozen=True)
class VideoOptions:
    """Film an agent before and after it adapts to frozen tasks, side by side.

    Attributes:
        out: the film (.mp4, which needs the video extra, or .gif).
        task: which of the split's frozen tasks, from 0.
        tasks: how many of them from that one on, a row each.
        split: which frozen tasks: validation, test, ood or train.
        steps: K, the bits of adaptation before the second episode.
        episodes: fresh episodes a bit of adaptation may use.
        seed: names the streams of adaptation and of the filmed episodes.
        device: where the agent computes, as for train; by default the CPU, wherever it was trained.
        trust: let the run import code of somebody else's that it names: say so only where you know that code.
        fps: pictures a second; by default 20, or fewer so that a short episode lasts five seconds.
    """

    out: Path
    task: int = 0
    tasks: int = 1
    split: str = "test"
    steps: int = 3
    episodes: int = 40
    seed: int = 0
    device: str = "cpu"
    trust: bool = False
    fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None


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
    most = min(MOST_TASKS, FROZEN - options.task)
    if not 1 <= options.tasks <= most:
        fail(f"--tasks is {options.tasks}; from task {options.task} on it must be from 1 to {most}")
    if options.fps is not None and not 0 < options.fps <= MOST_FPS:
        fail(f"--fps is {options.fps:g}; it must be above 0, at most {MOST_FPS:g}")
    budget = Budget(options.steps, options.episodes)
    check_outputs({"--out": check_film(options.out)})
    draw_without_display()
    opened = registry.open_run(existing_run(target), device=chosen_device(options.device), trust=options.trust)
    run, source = opened.run, opened.source
    if options.split not in source.splits:
        raise unknown(f"split of {source.name}", options.split, source.splits)
    agent = opened.load()
    if not isinstance(agent, Filmable):
        fail(f"{run.learner} in {target} cannot be filmed: only agents that act in a task family can")
    last = options.task + options.tasks - 1
    tasks = source.fixed(options.split, last + 1)
    if last >= len(tasks):
        wrong = f"--task is {options.task}" if options.tasks == 1 else f"the last task asked for is {last}"
        fail(f"{wrong}; {source.name} has {len(tasks)} {options.split} tasks, 0 to {len(tasks) - 1}")
    films = [agent.film(tasks[i : i + 1], budget, options.seed) for i in range(options.task, last + 1)]
    write([recording for film in films for recording in film], options.out, options.fps, columns=len(films[0]))
    for i, film in enumerate(films, options.task):
        for recording in film:
            which = f"task {i}, " * (options.tasks > 1)
            say(f"{which}{recording.title}; filmed: {sum(recording.rewards):.1f} in {len(recording.rewards)} steps")
    say(f"wrote {options.out}")
    return 0
