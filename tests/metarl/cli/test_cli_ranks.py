"""`metarl train` under torchrun: one run of several processes."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metarl.cli import main

HERE = Path(__file__).parent
SMALL = {"iterations": 4, "tasks": 4, "episodes": 3, "hidden": 4, "threads": 1, "checkpoint-every": 2}
WORDS = ["train", "maml-trpo", "--family", "metarl/BernoulliBandit-v0"]
WORDS += [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


def torchrun(n, *words, restarts=0, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    command += [f"--max-restarts={restarts}", "-m", "metarl", *words]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith("metarl:")]
    return done, said


def state(folder):
    manifest = json.loads((folder / "checkpoints" / "latest.json").read_text())
    return torch.load(folder / "checkpoints" / manifest["file"], weights_only=True)["state"]["params"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main([*WORDS, "--out", str(folder)]) == 0
    return state(folder)


def test_a_killed_rank_is_started_again_and_the_run_ends_as_one_process_would(tmp_path, alone):
    """Killed after iteration 3, it goes on from the checkpoint of 2; nothing is said twice, and one process writes."""
    run = tmp_path / "run"
    words = [*WORDS, "--callback", "killed_rank:Killed", "--out", str(run)]
    done, said = torchrun(2, *words, restarts=1, METARL_TEST_KILLED_AFTER="3")
    assert done.returncode == 0, done.stderr
    assert [line for line in said if "lost another process of this training" not in line] == []
    assert done.stdout.count("trained maml-trpo into") == 1
    assert [row["iteration"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())] == [
        0,
        1,
        2,
        3,
    ]
    for name, value in state(run).items():
        assert torch.equal(value, alone[name]), name
    assert json.loads((run / "config.json").read_text())["choices"]["ranks"] == 2
    # Another start of torchrun is no restart, though it may restart as often as it likes; the run stays as it is.
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    done, said = torchrun(1, *WORDS, "--out", str(run), restarts=1)
    assert said == [f"metarl: {run} already holds a run; resume it, or choose another folder"] * 2
    assert "exitcode  : 2" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def by_hand(monkeypatch, **environment):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["evaluate", "runs/x"], "metarl evaluate runs in one process, and torchrun started 2"),
        (["quickstart"], "metarl quickstart runs in one process, and torchrun started 2"),
    ],
)
def test_other_commands_run_in_one_process(monkeypatch, capsys, words, error):
    by_hand(monkeypatch, RANK="0", WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="1")
    assert main(words) == 2
    assert error in capsys.readouterr().err
    by_hand(monkeypatch, RANK="1", WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="1")
    assert main(words) == 2
    assert capsys.readouterr().err == ""  # rank 0 says it


def test_half_an_environment_is_one_line_where_processes_matter(monkeypatch, capsys, tmp_path):
    by_hand(monkeypatch, RANK="0")
    assert main([*WORDS, "--out", str(tmp_path / "run")]) == 2
    assert "WORLD_SIZE is not set" in capsys.readouterr().err
    assert main(["list", "agents"]) == 0
