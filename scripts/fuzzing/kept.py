"""Runs and curves that inputs point at: small, one of each kind of learner, made once."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

NAVIGATION, BANDIT = "metarl/Navigation2D-v0", "metarl/BernoulliBandit-v0"
SMALL = ["--iterations", "1", "--checkpoint-every", "1"]
RUNS = {
    "navigation": ["maml-trpo", "--family", NAVIGATION, *SMALL, "--tasks", "2", "--episodes", "2", "--threads", "1"],
    "bandit": ["rl2", "--family", BANDIT, *SMALL, "--trials", "4", "--minibatches", "2", "--hidden", "4"],
    "glyphs": ["protonet", "--dataset", "glyphs", *SMALL, "--tasks", "1", "--ways", "2", "--queries", "1"],
    "sinusoid": ["maml", "--dataset", "sinusoid", *SMALL, "--tasks", "2"],
}
QUICK = ["--tasks", "2", "--episodes", "2", "--steps", "1"]


def make(folder: Path) -> None:
    """Train and measure them."""
    folder.mkdir()
    for name, words in RUNS.items():
        said("train", *words, "--out", str(folder / name))
        said("evaluate", str(folder / name), *QUICK)
    said("evaluate", "random", "--family", NAVIGATION, *QUICK, "--json", str(folder / "random.json"))


def said(*words: str) -> str:
    """What a command that must succeed says."""
    from metarl.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(list(words))
    if code != 0:
        raise RuntimeError(f"metarl {' '.join(words)}: {out.getvalue()}")
    return out.getvalue()


def digest(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, by name."""
    return {os.path.relpath(path, folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
