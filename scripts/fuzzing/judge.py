"""Runs one input as the command line would, and says what became of it."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import re
import signal
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

from fuzzing.case import Case, Place

LONGEST = 20.0  # seconds an input may take
AGAIN = 3.0  # seconds after Ctrl-C until it is sent once more, for who waits until an iteration ends
LARGEST = 2 << 30  # bytes of memory it may take
FAULTS = ("traceback", "code run", "overwritten", "slow", "large", "untidy")
# What Python says where Ctrl-C comes while it tidies up.
IGNORED = (
    r"Exception ignored in: .*\nTraceback \(most recent call last\):\n"
    r"(?:[ ].*\n|\n)*\S*(?:KeyboardInterrupt|Stopped).*\n"
)
STOPPING = "stopping after this iteration"  # said to the Ctrl-C of an input whose patience is over
OUT_OF_MEMORY = "not enough memory"  # how the command line begins to say that an allocation failed


class TooSlow(BaseException):
    """An input took longer than it may; no `except Exception` catches it."""


@dataclass(frozen=True)
class Verdict:
    """What became of an input.

    Attributes:
        kind: "refused" (exit code 2 and one line), "accepted", or one of `FAULTS`.
        why: what was said, or what is wrong.
        seconds: that it took.
        peak: bytes of resident memory at most, beyond those that the process began with.
    """

    kind: str
    why: str
    seconds: float
    peak: int


def judge(case: Case, place: Place, own: int | None = None) -> Verdict:
    """Run an input in this process, which began with `own` bytes of resident memory; None: with those of now."""
    before = _files(place.folder)
    _reset_peak()
    own, started = resident() if own is None else own, time.perf_counter()
    code, said, trace = _run(case, place)
    seconds, peak = time.perf_counter() - started, resident("VmHWM") - own
    after = _files(place.folder)
    kind, why = _kind(case, code, said, trace)
    changed = [name for name, seen in before.items() if after.get(name) != seen and not _any(name, case.may_change)]
    saved = {name.partition("/")[0] for name in after if name.endswith("/latest.json")}  # a run that can go on
    new = [name for name in after.keys() - before.keys() if name.partition("/")[0] not in saved]
    new = [name for name in new if not _any(name, case.leaves)]
    if place.marker.exists():
        place.marker.unlink()
        kind, why = "code run", f"{place.marker.name} was written; {why}"
    elif changed:
        kind, why = "overwritten", f"{', '.join(changed[:8])} changed; {why}"
    elif seconds > LONGEST:
        kind, why = "slow", f"{seconds:.1f} s; {why}"
    elif peak > LARGEST or (OUT_OF_MEMORY in said[1] and not case.hungry):
        kind, why = "large", f"{peak >> 20} MiB; {why}"
    elif kind == "refused" and new:
        kind, why = "untidy", f"refused, and left {', '.join(sorted(new)[:8])}; {why}"
    return Verdict(kind, why, seconds, peak)


def _kind(case: Case, code: int | None, said: tuple[str, str], trace: str) -> tuple[str, str]:
    out, err = said
    err = re.sub(IGNORED, "", err)
    if code is None:
        return ("slow" if trace.endswith("TooSlow\n") else "traceback"), trace
    lines = [line for line in err.splitlines() if not line.startswith(("metarl: warning: ", STOPPING))]
    if strange := sorted({mark for mark in out + err if unicodedata.category(mark) == "Cc" and mark not in "\n\t"}):
        return "untidy", f"{strange} in what was said: {(out + err)[-2000:]!r}"
    if "Traceback (most recent call last)" in out + err:
        return "traceback", err
    if code == 2 and len(lines) == 1 and lines[0].startswith("metarl: "):
        return "refused", lines[0]
    if code in (0, 3) or (code == 130 and case.patience is not None):
        return "accepted", " | ".join(lines)[-300:]
    return "untidy", f"exit code {code}: {err[-2000:]!r}"


def _run(case: Case, place: Place) -> tuple[int | None, tuple[str, str], str]:
    """The exit code, or None and a traceback; what was said on stdout and stderr."""
    from metarl.cli import main

    out, err = io.StringIO(), io.StringIO()
    modules, path, here = set(sys.modules), list(sys.path), Path.cwd()
    os.chdir(place.folder)
    try:
        with (
            mock.patch.dict(os.environ, case.environment),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            _watched(case.patience),
        ):
            code = main(case.words) if case.call is None else _called(case.call)
        return code, (out.getvalue(), err.getvalue()), ""
    except BaseException:
        return None, (out.getvalue(), err.getvalue()), traceback.format_exc()
    finally:
        os.chdir(here)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(place.folder)):
                del sys.modules[name]


def _called(call: Callable[[], object]) -> int:
    """The exit code that the command line would give, for what is called from Python."""
    from metarl.errors import NonFiniteError, UserError

    try:
        call()
    except KeyboardInterrupt:
        return 130
    except (UserError, NonFiniteError) as error:
        print(f"metarl: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 3
    return 0


@contextlib.contextmanager
def _watched(patience: float | None) -> Iterator[None]:
    """Send Ctrl-C when patience is at an end, and stop what takes too long."""
    then = [] if patience is None else [AGAIN, LONGEST]  # seconds after the first Ctrl-C and after the second

    def ring(number: int, frame: FrameType | None) -> None:
        if then:
            signal.setitimer(signal.ITIMER_REAL, then.pop(0))
            signal.raise_signal(signal.SIGINT)
        else:
            raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, patience or LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _files(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Every file and folder below a folder: what tells that it was changed."""
    seen: dict[str, tuple[Any, ...]] = {}
    waiting = [folder]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            status = entry.stat(follow_symlinks=False)
            name = os.path.relpath(entry.path, folder)
            if entry.is_dir(follow_symlinks=False):
                seen[name] = (status.st_ino,)
                waiting.append(Path(entry.path))
            else:
                seen[name] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return seen


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _reset_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def resident(what: str = "VmRSS") -> int:
    """Bytes of this process in memory now; the most there were is `VmHWM`."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(what))
