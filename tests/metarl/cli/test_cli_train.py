from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import NAVIGATION, QUICK, SMALL, contents, metarl, refused, train

from metarl import registry
from metarl.evaluation.curve import AdaptationCurve
from metarl.runs.loop import Interrupted
from metarl.runs.run import Run


def wait_for_a_line(log: Path, meanwhile: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.05)


@pytest.mark.skipif(os.name == "nt", reason="signals are others on Windows")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_leaves_a_run_that_the_printed_command_resumes(name: str, tmp_path: Path) -> None:
    signum = getattr(signal, name)
    command = [Path(sys.executable).with_name("metarl"), "train", "maml-trpo", "--family", NAVIGATION]
    options = ["--out", "run", "--iterations", "100000", *SMALL[2:]]
    log = tmp_path / "run" / "metrics.jsonl"
    with subprocess.Popen([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_for_a_line(log)
        process.send_signal(signum)
        process.send_signal(signum)  # `timeout` does so: it signals the process and then its group
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, err
    last = err.splitlines()[-1]
    assert "Traceback" not in err
    assert last.startswith("metarl: interrupted after ")
    resume = last.partition("resume with: ")[2]
    assert resume == "metarl train --resume run"
    completed = Run.open(tmp_path / "run").restore()
    assert completed is not None
    assert completed[0] >= 1


def test_options_of_the_learner_and_the_family_reach_them(tmp_path: Path) -> None:
    words = ["--preset=pearl", "--hidden", "8", "4", "--inner_step_size", "0.25", "--preset-config", "paper"]
    assert train(tmp_path / "run", *words).code == 0
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["source"] == {"name": NAVIGATION, "options": {"preset": "pearl"}}
    assert record["config"]["hidden"] == [8, 4]
    assert record["config"]["inner_step_size"] == 0.25
    assert record["config"]["activation"] == "relu"  # from the paper's preset


def test_resume_goes_on_to_more_iterations(tmp_path: Path) -> None:
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    assert train(straight, "--iterations", "2").code == 0
    assert train(halted).code == 0
    assert train(halted, "--iterations", "2", "--resume").code == 0
    assert (halted / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()


def test_a_data_set_is_learned_by_the_same_commands(tmp_path: Path) -> None:
    run = tmp_path / "sine"
    words = ["--iterations", "20", "--strategy", "loop", "--shots", "5", "--seed", "3"]
    said = metarl("train", "maml", "--dataset", "sinusoid", "--out", run, *words)
    assert said.code == 0, said.err
    said = metarl("evaluate", run, "--tasks", "8", "--steps", "2")
    assert said.code == 0, said.err
    curve = AdaptationCurve.load(run / "curve.json")
    assert (curve.agent, curve.family, curve.preset, curve.score) == ("maml", "sinusoid", None, "mse")
    assert curve.options == {"shots": 5, "queries": 10}
    assert curve.per_task.shape == (1, 8, 3)
    assert curve.seeds == (3,)
    assert (curve.random, curve.oracle) == (None, None)
    assert (run / "curve.png").exists()


BAD: list[tuple[list[str], str]] = [
    (["train"], "AGENT comes first"),
    (["train", "maml-trp"], "unknown agent 'maml-trp'; did you mean maml-trpo?"),
    (["train", "random", "--out", "x"], "random needs no training: metarl evaluate random"),
    (["train", "gittins", "--out", "x"], "gittins needs no training: metarl evaluate gittins --family ID"),
    (["train", "maml-trpo", "--out", "x"], f"give --family, one of {NAVIGATION}"),
    (["train", "maml-trpo", "--family", "Navigation2D", "--out", "x"], f"did you mean {NAVIGATION}?"),
    (["train", "maml-trpo", "--dataset", "omniglot", "--out", "x"], "acts in a task family"),
    (["train", "maml-trpo", "--family", NAVIGATION], "--out"),
    (["train", "maml-trpo", "--family", NAVIGATION, "--out"], "--out"),
    (["train", "maml", "--out", "x"], "maml learns from a data set: give --dataset, one of sinusoid"),
    (["train", "maml", "--family", NAVIGATION, "--out", "x"], "maml learns from a data set"),
    (["train", "maml", "--dataset", "sinus", "--out", "x"], "unknown data set 'sinus'; did you mean sinusoid?"),
    (["train", "maml", "--dataset", "sinusoid", "--out", "x", "--shots", "0"], "--shots is 0"),
    (["train", "maml", "--dataset", "sinusoid", "--out", "x", "--preset", "a"], "unknown option '--preset'"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_of_train(words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(metarl(*words))
    assert not list(tmp_path.iterdir())


BAD_OPTIONS: list[tuple[list[str], str]] = [
    (["--preset", "perl"], "unknown preset of metarl/Navigation2D-v0 'perl'; did you mean pearl? choose from maml2017"),
    (["--preset-config", "papr"], "unknown config preset of maml-trpo 'papr'; did you mean paper?"),
    (["--iteration", "3"], "unknown option '--iteration'; did you mean --iterations? choose from --activation"),
    (["--inner-stepsize=3"], "unknown option '--inner-stepsize'; did you mean --inner-step-size?"),
    (["--iterations", "many"], "--iterations: 'many' is not an integer"),
    (["--gamma", "x"], "--gamma: 'x' is not a number"),
    (["--gamma", "1.5"], "--gamma is 1.5; it must be between 0 and 1"),
    (["--iterations", "0"], "--iterations is 0; it must be at least 1"),
    (["--order", "3"], "'--order'. Expected one of ('1', '2')"),
    (["--resume=yes"], "--resume RUN takes its options from the run: give neither --config nor --out"),
    (["surplus"], "surplus"),
    (["--device", "abacus"], "this machine has no device 'abacus'"),
    (["--resume"], "no config.json"),
]


@pytest.mark.parametrize(("words", "message"), BAD_OPTIONS, ids=[" ".join(words) for words, _ in BAD_OPTIONS])
def test_bad_options(words: list[str], message: str, tmp_path: Path) -> None:
    said = metarl("train", "maml-trpo", "--family", NAVIGATION, "--out", tmp_path / "run", *words)
    assert message in refused(said)
    assert not list(tmp_path.iterdir())


def test_another_run_in_the_folder_is_left_alone(trained: Path) -> None:
    before = contents(trained / "0")
    assert "already holds a run" in refused(train(trained / "0"))
    assert "seed is 0 there and 5 here" in refused(train(trained / "0", "--resume", "--seed", "5"))
    assert "holds another run" in refused(train(trained / "0", "--resume", "--preset", "pearl"))
    assert contents(trained / "0") == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "cannot" in refused(train(tmp_path / "run"))
        words = ["evaluate", "random", "--family", NAVIGATION, *QUICK, "--json", tmp_path / "a.json"]
        assert "writing there is not allowed" in refused(metarl(*words))
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("stopped", "message"),
    [
        (Interrupted(Path("run"), 7), "interrupted after 7 iterations; resume with: "),
        (KeyboardInterrupt(), "interrupted; "),
    ],
)
def test_interrupted_training_says_how_to_resume(
    stopped: KeyboardInterrupt, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = registry.learner("maml-trpo")

    def stop(*_: Any) -> None:
        raise stopped

    monkeypatch.setattr(learner, "train", stop)
    said = train(tmp_path / "a run")
    assert said.code == 130
    assert said.err.startswith(f"metarl: {message}")
    assert said.err.count("\n") == 1
    assert said.err.endswith(f"metarl train --resume '{tmp_path / 'a run'}'\n")
    quick = metarl("quickstart", "--out", tmp_path / "quick")
    assert quick.code == 130
    assert f"continue with: metarl quickstart --out {tmp_path / 'quick'}" in quick.err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")
def test_a_terminal_that_is_gone_leaves_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    words = ["train", "maml-trpo", "--family", NAVIGATION, *SMALL, "--iterations", "100000", "--out", "run"]
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("metarl"), *words],
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    os.set_blocking(ours, False)
    wait_for_a_line(tmp_path / "run" / "metrics.jsonl", lambda: drain(ours))
    os.close(ours)
    assert process.wait(timeout=60) == 129
    completed = Run.open(tmp_path / "run").restore()
    assert completed is not None
    assert completed[0] >= 1


def drain(descriptor: int) -> None:
    """Read what is there, so that who writes is not kept waiting."""
    with contextlib.suppress(BlockingIOError):
        os.read(descriptor, 1 << 16)


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_signal_before_and_after_the_loop_says_how_to_go_on(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, folder = registry.learner("maml-trpo"), tmp_path / "run"
    whole = learner.train

    def stop(config: Any, source: Any, run: Run) -> None:
        if at == "after":
            whole(config, source, run)
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(learner, "train", stop)
    said = train(folder)
    assert (said.code, said.err) == (143, f"metarl: interrupted; resume with: metarl train --resume {folder}\n")
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr(learner, "train", whole)
    assert metarl("train", "--resume", folder).code == 0
    monkeypatch.setattr(Run, "create", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    assert train(tmp_path / "none").err == "metarl: interrupted; nothing has begun\n"
