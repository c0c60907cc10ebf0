"""Kill training runs with SIGKILL at random moments, resume them, compare each with an uninterrupted one.

    python scripts/kill_and_resume.py --learners all --rounds 100 --json results/kill_and_resume/rounds.json

A round trains and evaluates the same small run (`small_runs.py`) twice through the command line, with a seed of its
own: once undisturbed, once killed and resumed until it is done. Parameters, the optimiser's state and everything else
in the last checkpoint, metrics.jsonl, the choices in config.json and curve.json must be equal, bit for bit.

Every round kills the training several times and the evaluation once, each time in one of three ways: in the first
moments; at a moment of the time that the undisturbed one took; just before the n-th time that a file of the run's
folder is opened, renamed, cut or removed, which is how half-written checkpoints are made. Most processes are forked
from this one, which has loaded everything, so that little of their time is start-up; --real of the rounds start anew.

The learner `seeds` is `metarl train rl2 --seeds ... --jobs 2`, killed with all its processes: every seed must be equal.

Exit 1 if a round differs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from benchmark import machine, versions
from small_runs import PICTURES, RUNS, lasting, words

from metarl import cli, registry
from metarl.runs.run import Run

ITERATIONS, EVERY = 12, 2
SEEDS = "seeds"
START = 0.2  # seconds, the first moments
EVENTS = ("open", "os.rename", "os.truncate", "os.remove", "os.mkdir")  # what Python says of what is done with files
COMPARED = ("learner", "config", "source", "seed", "device", "choices")  # of config.json


@dataclass
class Round:
    """What one round saw."""

    learner: str
    seed: int
    real: bool  # each process began anew
    kills: int = 0
    at_files: int = 0  # of them: before something was done with a file of the run
    at_checkpoints: int = 0  # of them: before something was done with one of the checkpoints
    differs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Moment:
    """When a process is killed: after some seconds, or before the n-th event with a file of its run; or all of it."""

    seconds: float | None = None
    event: int | None = None


def moment(draw: random.Random, whole: Moment, kills: int) -> Moment:
    """One of the three ways, for what has so many seconds and events where it is undisturbed, to be killed so often."""
    match draw.randrange(4):
        case 0:
            return Moment(seconds=draw.uniform(0, START))
        case 1:
            return Moment(seconds=draw.uniform(0, (whole.seconds or 0) / kills))
        case _:
            return Moment(event=draw.randint(1, max(1, round((whole.event or 1) / kills))))


class Watch:
    """Counts the events with files of a folder in this process, and kills it before the one that is its last."""

    def __init__(self, folder: Path, last: int | None) -> None:
        self.count, self.last, self.inside = 0, last, f"{folder}{os.sep}"
        sys.addaudithook(self.see)

    def see(self, name: str, arguments: tuple[Any, ...]) -> None:
        """An event of Python's."""
        if name in EVENTS and str(arguments[0]).startswith(self.inside):
            self.count += 1
            if self.count == self.last:
                self.tell(f"{name} {arguments[0]}")
                os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, what: str) -> None:
        """Leave word beside the folder."""
        descriptor = os.open(told(Path(self.inside)), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, what.encode())


def told(folder: Path) -> Path:
    """Where a watch leaves word."""
    return folder.with_name(f"{folder.name}.told")


def run_command(command: list[str], folder: Path, when: Moment, real: bool) -> tuple[int, str]:
    """Run `metarl COMMAND ...` until it ends or its moment comes; its exit code (negative: killed) and what it said."""
    log = folder.with_name(f"{folder.name}.log")
    with log.open("wb") as said:
        if real:
            start = [sys.executable, __file__, "--child", str(when.event or 0), str(folder), *command]
            child = subprocess.Popen(start, stdout=said, stderr=said).pid
        elif (child := os.fork()) == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os._exit(in_child(command, folder, when.event))
    deadline = time.monotonic() + (3600 if when.seconds is None else when.seconds)
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(ended[1]), log.read_text(errors="replace")


def in_child(command: list[str], folder: Path, event: int | None) -> int:
    """The command in this process, whatever happens to it."""
    watch = Watch(folder, event)
    try:
        code = cli.main(command)
        watch.tell(str(watch.count))
        return code
    except BaseException:
        import traceback

        traceback.print_exc()
        return 70


def finish(command: list[str], folder: Path, result: Round, draw: random.Random, whole: Moment, kills: int) -> None:
    """Run a command until it is done, killed a few times on the way; a training is resumed."""
    train = command[0] == "train"
    killed = 0
    while True:
        when = moment(draw, whole, kills) if killed < kills else Moment()
        resume = ["--resume"] if train and folder.exists() else []
        told(folder).unlink(missing_ok=True)
        code, said = run_command([*command, *resume], folder, when, result.real)
        if code == -signal.SIGKILL:
            killed += 1
            result.kills += 1
            if told(folder).exists():
                result.at_files += 1
                result.at_checkpoints += "/checkpoints/" in told(folder).read_text()
        elif code == 0:
            return
        else:
            raise AssertionError(f"{' '.join([*command, *resume])} ended with {code}: {said.strip()[-300:]}")


def judged(name: str, folder: Path) -> list[str]:
    """The command that evaluates a run."""
    episodes = ["--episodes", "2"] if "--family" in RUNS[name] else []
    return ["evaluate", str(folder), "--tasks", "3", "--steps", "2", *episodes]


def differences(one: Path, other: Path) -> list[str]:
    """What of two runs is not the same, bit for bit."""
    logs = {name: [(folder / name) for folder in (one, other)] for name in ("metrics.jsonl", "curve.json")}
    unequal = [name for name, both in logs.items() if len({p.read_bytes() if p.exists() else None for p in both}) > 1]
    records = [Run.open(folder).record for folder in (one, other)]
    unequal += [f"config.json: {name}" for name in COMPARED if records[0][name] != records[1][name]]
    return unequal + _unequal(Run.open(one).restore(), Run.open(other).restore(), "checkpoint")


def _unequal(one: Any, other: Any, where: str) -> list[str]:
    if type(one) is not type(other):
        return [f"{where}: {type(one).__name__} and {type(other).__name__}"]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return [] if same and one.numpy().tobytes() == other.numpy().tobytes() else [where]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{where}: other names"]
        return [line for key in one for line in _unequal(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} entries"]
        return [line for i in range(len(one)) for line in _unequal(one[i], other[i], f"{where}/{i}")]
    return [] if repr(one) == repr(other) else [where]  # a float's repr names its bits


def play(name: str, seed: int, kills: int, real: bool, scratch: Path) -> Round:
    """One round."""
    draw, result = random.Random(f"{name} {seed}"), Round(name, seed, real)
    command = [*words(name), *lasting(name, ITERATIONS, EVERY), "--seed", str(seed)]
    whole, parts = scratch / "whole", scratch / "parts"
    took = {}
    for what in ([*command, "--out", str(whole)], judged(name, whole)):
        began = time.monotonic()
        code, said = run_command(what, whole, Moment(), real)
        if code:
            raise AssertionError(f"the undisturbed {what[0]} of {name} ended with {code}: {said.strip()[-300:]}")
        took[what[0]] = Moment(time.monotonic() - began, int(told(whole).read_text()))
    try:
        finish([*command, "--out", str(parts)], parts, result, draw, took["train"], kills)
        finish(judged(name, parts), parts, result, draw, took["evaluate"], 1)
        result.differs = differences(whole, parts)
    except AssertionError as error:
        result.differs = [str(error)]
    return result


def play_seeds(seed: int, kills: int, scratch: Path) -> Round:
    """A round of a training of three seeds, two at a time, each a process."""
    draw, result = random.Random(f"seeds {seed}"), Round(SEEDS, seed, True)
    seeds = [str(3 * seed + i) for i in range(3)]
    command = [*words("rl2"), *lasting("rl2", ITERATIONS, EVERY), "--jobs", "2", "--measure-on", "none", "--seeds"]
    command = [sys.executable, "-m", "metarl", *command, *seeds, "--out"]
    began = time.monotonic()
    subprocess.run([*command, scratch / "whole"], check=True, stdout=subprocess.DEVNULL)
    longest = time.monotonic() - began
    while True:
        log = scratch / "log"
        with log.open("wb") as said:
            again = ["--resume"] if result.kills else []
            process = subprocess.Popen([*command, scratch / "parts", *again], stdout=said, stderr=said)
        try:
            process.wait(draw.uniform(0, longest) if result.kills < kills else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGSTOP)  # so that it starts no other
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for each in (process.pid, *map(int, children)):
                os.kill(each, signal.SIGKILL)
            process.wait()
            wait_for(children)
            result.kills += 1
            continue
        if process.returncode:
            result.differs = [f"ended with {process.returncode}: {log.read_text().strip()[-300:]}"]
        else:
            pairs = [[scratch / f"{name}-{each}" for name in ("whole", "parts")] for each in seeds]
            result.differs = [line for one, other in pairs for line in differences(one, other)]
        return result


def wait_for(processes: Sequence[str]) -> None:
    """Until none of these, which others must reap, runs any more."""
    for each in processes:
        status = Path(f"/proc/{each}/stat")
        with contextlib.suppress(OSError):
            while status.read_text().rpartition(")")[2].split()[0] not in "ZX":
                time.sleep(0.01)


def load_everything(names: Sequence[str]) -> None:
    """Load what the children need, and compute nothing: what is forked has none of this process's threads."""
    for name in names:
        registry.learner(name.partition(":")[0])
    for module in ("cli.train", "cli.evaluate", "evaluation.measure", "reporting.plots", "integrations.trackers"):
        importlib.import_module(f"metarl.{module}")
    for module in ("torch.utils.tensorboard", "torch._dynamo"):
        importlib.import_module(module)
    for name in (*registry.families(), *registry.datasets()):
        registry.source_class(name)
    if any(PICTURES[1] in RUNS[name] for name in names):
        pictures: Any = registry.make_source(PICTURES[1], {})
        assert pictures.images


def table(rounds: list[Round]) -> str:
    """A row a learner."""
    lines = [f"{'learner':18} rounds  kills  at files  at checkpoints  equal"]
    for name in dict.fromkeys(r.learner for r in rounds):
        mine = [r for r in rounds if r.learner == name]
        kills, files, points = (sum(getattr(r, n) for r in mine) for n in ("kills", "at_files", "at_checkpoints"))
        equal = sum(not r.differs for r in mine)
        lines.append(f"{name:18} {len(mine):6} {kills:6} {files:9} {points:15} {equal:6}")
    equal, kills = sum(not r.differs for r in rounds), sum(r.kills for r in rounds)
    return "\n".join([*lines, f"{equal} of {len(rounds)} equal, {kills} kills"])


def main() -> None:
    """Rounds of killing, spread over the learners."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", nargs="+", choices=("all", *RUNS, SEEDS), default=["all"], metavar="LEARNER")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--kills", type=int, default=4, help="of the training, a round at most")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each has its own")
    parser.add_argument("--real", type=float, default=0.1, help="share of the rounds whose processes start anew")
    parser.add_argument("--json", type=Path, help="where to write what was seen")
    args = parser.parse_args()
    names = list(RUNS) if "all" in args.learners else args.learners
    load_everything([name for name in names if name != SEEDS])
    rounds: list[Round] = []
    for i in range(args.rounds):
        real = int((i + 1) * args.real) > int(i * args.real)
        with tempfile.TemporaryDirectory() as scratch:
            name, seed = names[i % len(names)], args.seed + i
            one = play_seeds(seed, args.kills, Path(scratch)) if name == SEEDS else None
            rounds.append(one or play(name, seed, args.kills, real, Path(scratch)))
        last = rounds[-1]
        outcome = "DIFFERENT: " + "; ".join(last.differs[:3]) if last.differs else "equal"
        print(f"round {i + 1}: {last.learner}, seed {last.seed}, killed {last.kills} times: {outcome}", flush=True)
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            report = {"machine": machine(), "versions": versions(), "rounds": [asdict(r) for r in rounds]}
            args.json.write_text(json.dumps(report, indent=2) + "\n")
    print(table(rounds))
    sys.exit(1 if any(r.differs for r in rounds) else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:  # a process of a round that starts anew
        sys.exit(in_child(sys.argv[4:], Path(sys.argv[3]), int(sys.argv[2])))
    main()
