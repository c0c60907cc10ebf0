"""What every learner promises of a run that is resumed: with more iterations, or killed at any moment."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metarl import cli, registry
from metarl.fewshot.learners import reptile

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import kill_and_resume  # noqa: E402 - scripts, found by the line above
from small_runs import RUNS, lasting, words  # noqa: E402

FIXED = ("reptile", "ppo-scratch")  # whose iterations cannot be raised


def metarl(*command):
    """Exit code and what is said on stderr."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = cli.main([str(word) for word in command])
    return code, said.getvalue()


def train(name, folder, iterations, *more):
    return metarl(*words(name), *lasting(name, iterations, 2), "--out", folder, *more)


def whole_folder(folder):
    """Every file that may not change, with its bytes."""
    kept = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".jsonl", ".pt")]
    return {path: path.read_bytes() for path in kept}


def test_every_learner_that_trains_has_a_small_run():
    assert {name.partition(":")[0] for name in RUNS} == registry.agents().keys()


@pytest.mark.parametrize("name", [name for name in RUNS if name not in (*FIXED, "maml-trpo:cheetah")])
def test_a_run_of_3_that_is_raised_to_6_equals_a_run_of_6(name, tmp_path):
    for folder, iterations, more in (("whole", 6, ()), ("parts", 3, ()), ("parts", 6, ("--resume",))):
        assert train(name, tmp_path / folder, iterations, *more)[0] == 0
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "parts") == []


def test_reptile_says_that_more_iterations_would_be_another_training(tmp_path):
    assert train("reptile", tmp_path / "run", 3)[0] == 0
    before = whole_folder(tmp_path / "run")
    code, said = train("reptile", tmp_path / "run", 6, "--resume")
    assert code == 2
    assert said.count("\n") == 1
    assert "config.iterations is 3 there and 6 here" in said
    assert "this learner's schedule depends on them" in said
    assert whole_folder(tmp_path / "run") == before
    assert "--iterations cannot be raised" in reptile.__doc__


@pytest.mark.parametrize("name", ["rl2", "ppo-oracle", "reptile", "baseline"])
def test_fewer_iterations_are_refused_in_a_line(name, tmp_path):
    assert train(name, tmp_path / "run", 4)[0] == 0
    before = whole_folder(tmp_path / "run")
    code, said = train(name, tmp_path / "run", 2, "--resume")
    assert code == 2
    assert said.count("\n") == 1
    assert "config.iterations is 4 there and 2 here" in said
    assert whole_folder(tmp_path / "run") == before


def test_killed_at_any_moment_and_resumed_it_is_the_same():
    learners = ["ppo-pretrained", "rl2:chunked", "meta-sgd"]
    command = [sys.executable, SCRIPTS / "kill_and_resume.py", "--rounds", "3", "--real", "0", "--learners", *learners]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 equal" in done.stdout


def changed_log(folder):
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    return "metrics.jsonl"


def changed_curve(folder):
    path = folder / "curve.json"
    path.write_bytes(path.read_bytes() + b"\n")
    return "curve.json"


def changed_device(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    return "config.json: device"


@pytest.mark.parametrize("change", [changed_log, changed_curve, changed_device])
def test_a_difference_is_seen(change, tmp_path):
    for folder in ("one", "other"):
        assert train("meta-sgd", tmp_path / folder, 4)[0] == 0
        assert metarl(*kill_and_resume.judged("meta-sgd", tmp_path / folder))[0] == 0
    assert kill_and_resume.differences(tmp_path / "one", tmp_path / "other") == []
    told = change(tmp_path / "other")
    assert told in kill_and_resume.differences(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ({"a": torch.zeros(2)}, {"a": -torch.zeros(2)}, "/a"),
        ({"a": torch.zeros(2)}, {"a": torch.zeros(2).double()}, "/a"),
        ([0.1 + 0.2], [0.3], "/0"),
        ((1, 2), (1, 2, 3), ": 2 and 3 entries"),
        ({"a": 1}, {"b": 1}, ": other names"),
        ({"a": 1}, {"a": 1.0}, "/a: int and float"),
    ],
)
def test_states_that_differ_in_a_bit_are_told_apart(one, other, where):
    assert kill_and_resume._unequal(one, other, "state") == [f"state{where}"]
    assert kill_and_resume._unequal(one, one, "state") == []
