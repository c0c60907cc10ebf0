"""The command as typed, for the tests of its commands."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl import cli

NAVIGATION = "metarl/Navigation2D-v0"
DIRECTION = "metarl/HalfCheetahDirection-v0"
BANDIT, MDP = "metarl/BernoulliBandit-v0", "metarl/TabularMDP-v0"


SMALL = ["--iterations", "1", "--tasks", "2", "--episodes", "2", "--threads", "1"]


QUICK = ["--tasks", "3", "--episodes", "2", "--steps", "1"]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def metarl(*words: Any) -> Said:
    """The command as typed, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return Said(code, out.getvalue(), err.getvalue())


def refused(said: Said) -> str:
    """The one line of an error that ended with exit code 2."""
    assert said.code == 2, said
    assert said.err.startswith("metarl: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    return said.err


def train(out: Path, *words: Any) -> Said:
    return metarl("train", "maml-trpo", "--family", NAVIGATION, "--out", out, *SMALL, *words)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
