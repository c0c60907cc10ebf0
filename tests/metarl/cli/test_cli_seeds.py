"""Several seeds by one command, each in a process and a folder of its own."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import NAVIGATION, SMALL, metarl, refused

from metarl import interrupts
from metarl.cli import seeds
from metarl.evaluation import measure
from metarl.evaluation.curve import AdaptationCurve
from metarl.learning.contract import Budget
from metarl.runs.run import Run

WORDS = ["train", "maml-trpo", "--family", NAVIGATION, *SMALL]


def test_seeds_are_trained_measured_and_one_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "Budget", lambda: Budget(1, 2))
    (tmp_path / "x-1").mkdir()
    (tmp_path / "x-1" / "mine.txt").write_text("not empty")
    file = tmp_path / "my.yaml"
    file.write_text("seeds: [0, 1, 2]\njobs: 2\nhidden: [3]\n")
    said = metarl(*WORDS, "--out", tmp_path / "x", "--config", file)
    assert said.code == 2
    assert said.err == (
        f"metarl: seed 1 ended with exit code 2: {tmp_path / 'x-1'} is not an empty folder; "
        "choose another one for the run\n"
    )
    for seed in (0, 2):
        run = Run.open(tmp_path / f"x-{seed}")
        assert (run.seed, run.config["hidden"]) == (seed, [3])
        assert AdaptationCurve.load(tmp_path / f"x-{seed}" / "curve-validation.json").seeds == (seed,)
    assert "2 seeds" in said.out
    assert f"metarl compare {tmp_path / 'x-0'} {tmp_path / 'x-2'}" in said.out
    assert [path.name for path in (tmp_path / "x-1").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds", "0", "0"], "--seeds names a seed twice: 0 0"),
        (["--seeds", "0", "--jobs", "0"], "--jobs is 0; it must be at least 1"),
        (["--seeds", "0", "--seed", "1"], "give --seed or --seeds, not both"),
        (["--seeds", "0", "--device", "abacus"], "this machine has no device 'abacus'"),
        (["--seeds", "one"], "--seeds: "),
        (["--seeds"], "--seeds names no seed: give at least one"),
        (["--seeds", "0", "--out", "."], "--out is .; with --seeds it needs a name"),
        (["--seeds", "0", "--out", "/"], "--out is /; with --seeds it needs a name"),
    ],
)
def test_what_no_seed_could_begin_with_is_refused_at_once(words: list[str], told: str, tmp_path: Path) -> None:
    assert told in refused(metarl(*WORDS, "--out", tmp_path / "x", *words))
    assert not list(tmp_path.iterdir())


def test_seeds_are_named_in_their_order_whichever_ends_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ends(training: object, folder: Path, logs: object, codes: dict[int, int]) -> None:
        codes.update({2: 0, 0: 0, 1: 0})

    monkeypatch.setattr(seeds, "_run", ends)
    said = metarl(*WORDS, "--seeds", "0", "1", "2", "--measure-on", "none", "--out", tmp_path / "x")
    assert f"metarl report {' '.join(str(tmp_path / f'x-{seed}') for seed in (0, 1, 2))} --out page" in said.out


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent otherwise on Windows")
def test_a_signal_reaches_every_seed_once_and_leaves_each_resumable(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("metarl"), *WORDS, "--iterations", "100000", "--seeds", "0", "1"]
    logs = [tmp_path / f"x-{seed}" / "metrics.jsonl" for seed in (0, 1)]
    options = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--jobs", "2", "--out", "x"], **options) as process:
        deadline = time.monotonic() + 120
        while not all(log.exists() and log.stat().st_size for log in logs) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.count("\n") == 1
    assert "interrupted; 0 of 2 seeds are trained; resume the others with: metarl train maml-trpo" in err
    assert err.endswith("--jobs 2 --out x --resume\n")
    for seed in (0, 1):
        restored = Run.open(tmp_path / f"x-{seed}").restore()
        assert restored is not None
        assert restored[0] >= 1


@pytest.mark.skipif(os.name == "nt", reason="signals are others on Windows")
def test_a_second_signal_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "ECHO", dict.fromkeys(interrupts.SIGNALS, 0.0))
    made: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **more: Any) -> None:
            deaf = functools.partial(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # from its first moment on
            super().__init__(*args, preexec_fn=deaf, **more)
            made.append(self)
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(seeds, "command", lambda *_: ["sleep", "30"])
    monkeypatch.setattr(seeds.subprocess, "Popen", Recorded)
    said = metarl(*WORDS, "--seeds", "0", "1", "--out", tmp_path / "x")
    assert (said.code, said.err.count("\n")) == (143, 1)
    assert [process.poll() for process in made] == [-signal.SIGKILL]
