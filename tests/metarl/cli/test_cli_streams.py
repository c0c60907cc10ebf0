"""Words that nobody can hear cost no file, end no training and give no traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
from command_line import NAVIGATION, QUICK, SMALL
from hypothesis import given
from hypothesis import strategies as st

from metarl import cli, streams
from metarl.cli import dispatch, quickstart
from metarl.cli.evaluate import EvaluateOptions

METARL = Path(sys.executable).with_name("metarl")
RANDOM = ["evaluate", "random", "--family", NAVIGATION, *QUICK]


def closed_pipe() -> TextIO:
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


def full_disk() -> TextIO:
    return Path("/dev/full").open("w")


def closed() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


LOST = {"pipe": (closed_pipe, 1), "full": (full_disk, 1), "closed": (closed, 1), "none": (lambda: None, 0)}
if not Path("/dev/full").exists():
    del LOST["full"]


def said(words: list[Any], stdout: TextIO | None, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The exit code of the command in this process, and its words on stderr."""
    stderr = io.StringIO()
    with monkeypatch.context() as here:
        here.setattr(sys, "stdout", stdout)
        here.setattr(sys, "stderr", stderr)
        code = cli.main([str(word) for word in words])
        if stdout is not None and not stdout.closed:
            stdout.close()  # as when the process ends: what is still buffered must not fail either
    return code, stderr.getvalue()


@pytest.fixture(scope="session")
def films(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that may be written into."""
    return Path(shutil.copytree(trained / "0", tmp_path_factory.mktemp("films") / "0"))


COMMANDS = {
    "quickstart": (["quickstart", "--out", "{new}"], ["curve.json", "curve.png"]),
    "list": (["list", "families"], []),
    "train": (["train", "maml-trpo", "--family", NAVIGATION, *SMALL, "--out", "{new}"], ["checkpoints/latest.json"]),
    "evaluate": (["evaluate", "{run}", *QUICK], ["{run}/curve.json", "{run}/curve.png"]),
    "inspect": (["inspect", "{new}"], []),
    "predict": (["predict", "{run}", "--support", "{new}", "--query", "x.png"], []),
    "video": (["video", "{run}", "--out", "{new}.gif", "--episodes", "1", "--steps", "1"], ["{new}.gif"]),
    "compare": (["compare", "{run}", "--out", "{new}.png", "--json", "{new}.json"], ["{new}.png", "{new}.json"]),
    "report": (["report", "{run}", "--out", "{new}"], ["index.html"]),
}


@pytest.mark.parametrize("name", dispatch.COMMANDS)
def test_every_command_writes_its_files_though_nobody_listens(
    name: str, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "CHANGES", {"iterations": 1, "tasks": 2, "episodes": 2, "threads": 1})
    monkeypatch.setattr(quickstart, "EvaluateOptions", lambda: EvaluateOptions(tasks=3, episodes=2, steps=1))
    words, files = COMMANDS[name]
    places = {"run": films, "new": tmp_path / "new"}
    for curve in films.glob("curve*") if name == "evaluate" else ():
        curve.unlink()
    code, err = said([word.format(**places) for word in words], closed_pipe(), monkeypatch)
    assert "Traceback" not in err
    assert (code, err) == (1, "") if name not in ("predict", "inspect") else code == 2
    for file in files:
        assert (tmp_path / "new" / file.format(**places)).stat().st_size > 0, file


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list", "datasets"], ["train", "rl2", "--help"], RANDOM])
def test_every_way_to_lose_stdout(kind: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, expected = LOST[kind]
    more = ["--json", str(tmp_path / "curve.json")] if words == RANDOM else []
    code, err = said([*words, *more], make(), monkeypatch)
    assert (code, len(err.splitlines())) == (expected, int(kind in ("full", "closed")))
    assert not more or (tmp_path / "curve.json").exists()


def test_a_lost_stderr_changes_no_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for stderr in (closed_pipe(), closed(), None):
        monkeypatch.setattr(sys, "stderr", stderr)
        assert cli.main(["evaluate", "nothing-there"]) == 2
        assert sys.stderr is stderr


@pytest.mark.skipif(os.name == "nt", reason="a shell of its own")
def test_a_process_without_streams_writes_its_file(tmp_path: Path) -> None:
    words = " ".join([str(METARL), *RANDOM, "--json", "a.json"])
    subprocess.run(["sh", "-c", f"{words} >&- 2>&- <&-; echo $? > code"], cwd=tmp_path, check=True)
    assert (tmp_path / "code").read_text() == "0\n"
    assert json.loads((tmp_path / "a.json").read_text())["agent"] == "random"


class Failing(io.StringIO):
    """Takes so many writes and flushes."""

    def __init__(self, good: int, error: Exception) -> None:
        super().__init__()
        self.good, self.error = good, error

    def write(self, text: str) -> int:
        self._count()
        return super().write(text)

    def flush(self) -> None:
        self._count()

    def _count(self) -> None:
        self.good -= 1
        if self.good < 0:
            raise self.error


@given(
    st.integers(0, 8), st.lists(st.sampled_from(["word", ""]), max_size=6), st.sampled_from([errno.EIO, errno.EPIPE])
)
def test_what_a_stream_took_before_it_was_lost_is_all_that_is_heard(good: int, texts: list[str], number: int) -> None:
    stream = Failing(good, OSError(number, "gone"))
    lossy = streams.Lossy(stream)
    for text in texts:
        assert lossy.write(text) == len(text)
        lossy.flush()
    assert stream.getvalue() == "".join(texts[: (good + 1) // 2])
    assert (lossy.lost is None) == (good >= 2 * len(texts))


def test_characters_that_an_encoding_lacks_are_escaped() -> None:
    raw = io.BytesIO()
    lossy = streams.Lossy(io.TextIOWrapper(raw, encoding="ascii"))
    lossy.write("naïve \udcff\n")
    lossy.flush()
    assert (raw.getvalue(), lossy.lost) == (b"na\\xefve \\udcff\n", None)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = len(os.listdir("/dev/fd"))
    yield
    assert len(os.listdir("/dev/fd")) <= before + 2  # what matplotlib or torch open once
