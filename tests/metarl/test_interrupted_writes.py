"""A write that is stopped, by a signal or by a disk, costs no more than itself."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl import cli, files
from metarl.errors import UserError
from metarl.interrupts import Stopped, raising
from metarl.runs import checkpoints, logs, run
from metarl.runs.run import Run


@dataclass(frozen=True)
class Config:
    iterations: int = 4
    checkpoint_every: int = 1


@dataclass(frozen=True)
class Source:
    name: str = field(default="nothing", init=False)

    def options(self) -> dict[str, Any]:
        return {}


def walk(folder: Path) -> None:
    """Train, or go on: every number depends on all before it."""
    begin = Run.resume if folder.exists() else Run.create
    made = begin(folder, learner="walk", config=Config(), source=Source(), seed=0)
    restored = made.restore()
    state = restored[1] if restored else {"place": torch.zeros(50)}
    with made.loop(Config.iterations, checkpoint_every=1, state=lambda: state) as loop:
        for iteration in loop:
            state = {"place": state["place"] * 0.9 + iteration}
            loop.log({"return/place": state["place"].sum()}, {})


def lines_written(folder: Path) -> bytes:
    return (folder / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    walk(folder)
    return folder


@contextlib.contextmanager
def at_line(number: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """Act before one of the lines that this thread runs in what writes; how many it has run."""
    traced = {str(module.__file__) for module in (checkpoints, files, logs, run)}
    count = [0]

    def local(frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            count[0] += 1
            if count[0] == number:
                act()
        return local

    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename in traced else None)
    try:
        yield count
    finally:
        sys.settrace(before)


@pytest.mark.filterwarnings("ignore::metarl.runs.recovery.RecoveryWarning")
@pytest.mark.skipif(sys.gettrace() is not None, reason="coverage traces too")
def test_a_signal_that_ends_at_once_tears_no_file(tmp_path: Path, whole: Path) -> None:
    """The second signal of two comes at a line of what writes, each in turn."""
    with at_line(0, lambda: None) as count:
        walk(tmp_path / "count")
    struck = 0
    for line in range(1, count[0], 61):
        folder = tmp_path / str(line)

        def stop() -> None:
            raise Stopped(signum=signal.SIGTERM)

        with contextlib.suppress(Stopped), at_line(line, stop):
            walk(folder)
        struck += not (folder / "metrics.jsonl").exists() or lines_written(folder) != lines_written(whole)
        walk(folder)
        assert lines_written(folder) == lines_written(whole), line
        assert not list(folder.rglob("*.tmp")), line
        shutil.rmtree(folder)
    assert struck > 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("limit", [0, 300, 1500, 2000])
def test_a_full_disk_is_one_line_and_what_was_written_goes_on(limit: int, tmp_path: Path, whole: Path) -> None:
    """No file may be longer than the limit: config.json, TensorBoard's, a checkpoint or a log cannot be written."""
    import resource

    folder = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    hook, threading.excepthook = threading.excepthook, lambda told: None  # TensorBoard's own thread
    try:
        with pytest.raises(UserError, match="File too large") as caught:
            walk(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        threading.excepthook = hook
    assert "\n" not in str(caught.value)
    walk(folder)
    assert lines_written(folder) == lines_written(whole)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_folder_that_is_deleted_under_a_training_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = Run.create(folder, learner="walk", config=Config(), source=Source(), seed=0)

    def delete(metrics: dict[str, Any]) -> None:
        if metrics["iteration"] == 1:
            shutil.rmtree(folder)

    def train() -> None:
        made.attach([delete])
        with made.loop(4, checkpoint_every=1, state=dict) as loop:
            for _ in loop:
                loop.log({"return/place": 0.0}, {})

    with pytest.raises(UserError, match="cannot write ") as caught:
        train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x.png"), PermissionError(13, "Denied", "y")])
def test_what_a_machine_refuses_is_one_line_whatever_was_being_written(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(words: Any) -> int:
        raise error

    monkeypatch.setattr("metarl.cli.listing.list_things", refused)
    assert cli.main(["list", "agents"]) == 2
    assert capsys.readouterr().err == f"metarl: {error.filename}: {error.strerror}\n"


def test_a_signal_while_last_words_are_said_adds_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(words: Any) -> int:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError

    from metarl.cli import dispatch

    said = dispatch.complain
    monkeypatch.setattr("metarl.cli.listing.list_things", stopped)
    monkeypatch.setattr(dispatch, "complain", lambda text: (signal.raise_signal(signal.SIGINT), said(text)))
    with raising():
        assert cli.main(["list", "agents"]) == 143
    assert capsys.readouterr().err == "metarl: interrupted\n"
