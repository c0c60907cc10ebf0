"""Several seeds of one training: a process and a run folder each, one table at the end."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metarl.cli.targets import chosen_device
from metarl.cli.terminal import complain, say
from metarl.cli.training import Training, TrainOptions
from metarl.errors import UserError
from metarl.interrupts import Deferred, Stopped, signal_of

if TYPE_CHECKING:
    from metarl.evaluation.curve import AdaptationCurve

ONE_SEED = ("--seeds", "--jobs", "--measure-on", "--seed", "--out", "--config", "--resume")  # said otherwise to each
POLL = 0.2  # seconds between looks at the processes


def train_seeds(training: Training) -> int:
    """Train every seed, measure those that were trained together, and say how to go on.

    Returns:
        0, or the exit code of the first seed that failed.

    Raises:
        Stopped: a signal, which was passed on to all of them, so that they ended in order.
    """
    options = training.options
    check(training)
    codes: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="metarl-seeds-") as folder:
        logs = {seed: Path(folder) / f"{seed}.log" for seed in options.seeds}
        signum = _run(training, Path(folder), logs, codes)
        for seed, code in codes.items():
            if code and signum is None:
                complain(f"seed {seed} ended with exit code {code}: {_last_line(logs[seed])}")
    trained = [seed_folder(options, seed) for seed in options.seeds if codes.get(seed) == 0]
    again = shlex.join(["metarl", "train", training.name, *training.words.typed, *["--resume"] * (not options.resume)])
    if signum is not None:
        count = f"{len(trained)} of {len(options.seeds)} seeds are trained"
        raise Stopped(f"interrupted; {count}; resume the others with: {again}", signum)
    if trained:
        try:
            _measure(training, trained)
        except KeyboardInterrupt as stopped:
            raise Stopped(
                f"interrupted; the seeds are trained; measure them with: {again}", signal_of(stopped)
            ) from None
    return next((code for code in codes.values() if code), 0)


def seed_folder(options: TrainOptions, seed: int) -> Path:
    """The run folder of a seed."""
    return options.out.with_name(f"{options.out.name}-{seed}")


def check(training: Training) -> None:
    """Refuse what no seed could begin with, before any begins."""
    from metarl.runs.record import CONFIG

    options = training.options
    if len(set(options.seeds)) < len(options.seeds):
        raise UserError(f"--seeds names a seed twice: {' '.join(map(str, options.seeds))}")
    if options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}; it must be at least 1")
    if any(word.partition("=")[0] == "--seed" for word in training.words.typed):
        raise UserError("give --seed or --seeds, not both")
    if options.out.name in ("", ".."):
        raise UserError(f"--out is {options.out}; with --seeds it needs a name, which gets the seed behind it")
    chosen_device(options.device)
    for folder in (seed_folder(options, seed) for seed in options.seeds):
        if (folder / CONFIG).exists() and not options.resume:
            raise UserError(f"{folder} already holds a run; --resume continues it, or choose another --out")


def _run(training: Training, folder: Path, logs: Mapping[int, Path], codes: dict[int, int]) -> int | None:
    """Run the processes, `jobs` at a time, with files in a folder; the signal that ended them, if one did.

    The signal is passed on to them, since each has a session of its own: it reaches them once. A second one kills them,
    which tears no file either.
    """
    options = training.options
    if training.note is not None:
        say(training.note)
    waiting, running = list(options.seeds), dict[int, subprocess.Popen[bytes]]()
    passed_on, hurried = False, list[int]()
    say(f"training {training.name} with seeds {', '.join(map(str, waiting))}, {options.jobs} at a time")
    try:
        with Deferred(lambda signum: None, hurried.append) as asked:
            while ((waiting and asked.signum is None) or running) and not hurried:
                while waiting and len(running) < options.jobs and asked.signum is None:
                    seed = waiting.pop(0)
                    with logs[seed].open("wb") as log:
                        running[seed] = subprocess.Popen(
                            command(training, seed, folder), stdout=log, stderr=log, start_new_session=True
                        )
                    say(f"seed {seed} has begun, in {seed_folder(options, seed)}")
                if asked.signum is not None and not passed_on:
                    passed_on = True
                    for process in running.values():
                        process.send_signal(asked.signum)
                for seed, process in list(running.items()):
                    try:
                        codes[seed] = process.wait(POLL / len(running))
                    except subprocess.TimeoutExpired:
                        continue
                    del running[seed]
                    if codes[seed] == 0:
                        say(f"seed {seed} is trained")
            return asked.signum
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def command(training: Training, seed: int, folder: Path) -> list[str]:
    """What trains one seed, in a process of its own; `-P` keeps a folder called metarl here from being imported."""
    from metarl.runs.record import CONFIG

    options, words = training.options, training.words
    file = {flag.removeprefix("--"): values for flag, values in words.file.items() if flag not in ONE_SEED}
    out = seed_folder(options, seed)
    resume = ["--resume"] if options.resume and (out / CONFIG).exists() else []
    own = ["--out", str(out), "--seed", str(seed), *resume]
    if file:
        (folder / "options.json").write_text(json.dumps(file), encoding="utf-8")
        own += ["--config", str(folder / "options.json")]
    start = [sys.executable, "-P", "-m", "metarl", "train", training.name]
    return [*start, *_without(words.typed, ONE_SEED), *own]


def _without(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The words without some flags and the values of those."""
    kept: list[str] = []
    drop = False
    for word in words:
        if word.startswith("--"):
            drop = word.partition("=")[0].replace("_", "-") in flags
        kept += [] if drop else [word]
    return kept


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("metarl: ") if lines else "it said nothing"


def _measure(training: Training, folders: Sequence[Path]) -> None:
    """The curve of all seeds on one split, as a table, and how to go on."""
    options, source = training.options, training.source
    split = options.measure_on
    if split != "none" and split not in source.splits:
        say(f"{source.name} has no {split} tasks to measure on")
        split = "none"
    if split != "none":
        from metarl.evaluation.keeping import save_keeping
        from metarl.evaluation.measure import measure_run
        from metarl.evaluation.merging import merge_seeds
        from metarl.reporting.tables import evaluation_table

        say(f"measuring on {split} tasks")
        curves: list[AdaptationCurve] = []
        for folder in folders:
            curves.append(measure_run(folder, split=split))
            kept = save_keeping(curves[-1], folder / f"curve{'' if split == 'test' else f'-{split}'}.json")
            if kept is not None:
                say(kept)
        for curve in merge_seeds(curves):
            say(evaluation_table(curve).rich())
    names = " ".join(shlex.quote(str(folder)) for folder in folders)
    if split != "test":
        say(f"measure each on test tasks: for run in {names}; do metarl evaluate $run; done")
    say(f"then compare or show them: metarl compare {names} --out curves.png; metarl report {names} --out page")
