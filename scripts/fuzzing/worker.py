"""Many inputs of a door: a process a batch, with limits of time and memory, and a watch beside it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from fuzzing.case import Case, Place
from fuzzing.doors import DOORS
from fuzzing.judge import LARGEST, LONGEST, Verdict, judge, resident

BATCH = 100  # inputs a process
KEPT = 256 << 20  # bytes that a process may keep of its inputs' memory before another takes its place
GRACE = 15.0  # seconds that an input gets beyond the longest to end by itself


@dataclass(frozen=True)
class Tried:
    """An input that was tried: where it comes from, and what became of it."""

    door: str
    seed: int
    index: int
    words: list[str]
    verdict: Verdict


def batch(door: str, seed: int, count: int, room: Path, only: int | None = None) -> Iterator[Tried]:
    """The inputs of a seed, in order; `room` holds the folder `kept`, and gets one for each input.

    A process that hangs is killed, and another one goes on with the input after; so it does where one has grown.

    Args:
        door: one of `DOORS`.
        seed: of hypothesis.
        count: inputs.
        room: a folder that is ours.
        only: the index of the one input to run.
    """
    context = multiprocessing.get_context("fork")
    done = 0
    while done < count:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(door, seed, count, done, room, sender, only), daemon=True)
        process.start()
        sender.close()
        words: list[str] = []
        message: tuple[object, ...] = ("nothing yet",)
        try:
            while receiver.poll(LONGEST + GRACE):
                message = receiver.recv()
                if message[0] == "ended":
                    return
                if message[0] == "broken":
                    raise RuntimeError(f"the door {door!r} is broken: {message[1]}")
                if message[0] == "begins":
                    done, words = message[1], message[2]
                elif message[0] == "judged":
                    yield Tried(door, seed, done, words, message[1])
                else:
                    break
            if message[0] == "full":
                done += 1
                continue
            verdict = Verdict("slow", "hangs: the process had to be killed", LONGEST + GRACE, 0)
        except EOFError:
            verdict = Verdict("traceback", "the process died", 0.0, 0)
        finally:
            process.kill()
            process.join()
        yield Tried(door, seed, done, words, verdict)
        done += 1


def _work(door: str, seed: int, count: int, skip: int, room: Path, sender: Connection, only: int | None) -> None:
    """Make and run the inputs of a seed but for the first ones, in a process of its own."""
    _limit()
    index, own = -1, resident()

    def one(case: Case, place: Place) -> None:
        sender.send(("begins", index, case.words))
        sender.send(("judged", judge(case, place, own)))
        if only is None and resident() - own > KEPT:
            _remove(place.folder)
            sender.send(("full",))
            os._exit(0)  # not an exception, which hypothesis would take for a failing input

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(st.data())
    def each(data: st.DataObject) -> None:
        nonlocal index
        index += 1
        with scratch(room, f"{door}-{seed}-{index}", keep=only is not None) as place:
            case = DOORS[door](data.draw, place)
            if index >= skip and only in (None, index):
                one(case, place)

    try:
        each()
        sender.send(("ended",))
    except BaseException:  # of the door itself
        sender.send(("broken", traceback.format_exc()))


@contextlib.contextmanager
def scratch(room: Path, name: str, keep: bool = False) -> Iterator[Place]:
    """A place for an input."""
    folder = room / name
    folder.mkdir()
    try:
        yield Place(folder, room / "kept", room / "MARKER")
    finally:
        if not keep:
            _remove(folder)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder, onerror=_let_me)
    except RecursionError:  # folders in folders
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def _let_me(function: Callable[[str], object], path: str, _: object) -> None:
    """Remove what a folder without rights keeps from being removed."""
    os.chmod(os.path.dirname(path), 0o700)
    os.chmod(path, 0o700)
    function(path) if function is not os.open else shutil.rmtree(path)


def _limit() -> None:
    """At most so much memory more than now; nothing said reaches the terminal, but for what is captured."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + LARGEST, now + LARGEST))
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)


def to_json(tried: Tried) -> str:
    """An input and what became of it, as a line."""
    fields = {"door": tried.door, "seed": tried.seed, "index": tried.index, "words": tried.words}
    return json.dumps(fields | vars(tried.verdict))
