"""Runs of the command line: trained, continued from what is committed, and kept where they are small."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from reproduction.description import ROOT

KEEP = 2 * 2**20  # bytes of a run that is committed, at most


def metarl(*words: str, minutes: float | None = None) -> str:
    """Run the command line and return the command, as typed; stop where it fails.

    Args:
        words: after `metarl`.
        minutes: then it gets Ctrl-C, which leaves a run that can be judged and resumed.
    """
    executable = Path(sys.executable).with_name("metarl")
    process = subprocess.Popen([str(executable), *words], cwd=ROOT)
    try:
        process.wait(None if minutes is None else 60 * minutes)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
    interrupted = minutes is not None and process.returncode == 130
    if process.returncode and not interrupted:
        raise SystemExit(f"metarl {' '.join(words)} failed with exit code {process.returncode}")
    return "metarl " + " ".join(words)


def train(run: Path, kept: Path, words: Sequence[str], minutes: float | None) -> str:
    """Train a run to its end, or for so many minutes; the command that does it from nothing."""
    if not (ROOT / run / "config.json").exists() and kept.is_dir():
        shutil.copytree(kept, ROOT / run)
    resume = ["--resume"] if (ROOT / run / "config.json").exists() else []
    if minutes != 0:
        metarl("train", *words, *resume, minutes=minutes)
    return "metarl train " + " ".join(words)


def progress(run: Path) -> tuple[int, int | None, float]:
    """Iterations done, iterations planned, and minutes of training so far."""
    record = json.loads((run / "config.json").read_text())
    done = json.loads((run / "checkpoints" / "latest.json").read_text())["iteration"]
    lines = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    seconds = sum(value for line in lines for name, value in line.items() if name != "iteration")
    return done, record["config"].get("iterations"), seconds / 60


def keep(run: Path, kept: Path) -> bool:
    """Copy what resuming a run needs, its last checkpoint, where it is small enough to commit."""
    shutil.rmtree(kept, ignore_errors=True)
    checkpoints = [run / "checkpoints" / "latest.json", *sorted((run / "checkpoints").glob("*.pt"))[-1:]]
    files = [run / "config.json", run / "metrics.jsonl", run / "timings.jsonl", *checkpoints]
    files = [path for path in files if path.exists()]
    if sum(path.stat().st_size for path in files) > KEEP:
        return False
    for path in files:
        (kept / path.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kept / path.relative_to(run))
    return True
