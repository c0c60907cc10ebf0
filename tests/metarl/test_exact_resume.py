"""What every learner promises of a run that is resumed: with more iterations, or killed at any moment."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import kill_and_resume
import pytest
import torch
from small_runs import RUNS, lasting, words

from metarl import cli, registry
from metarl.fewshot.learners import reptile
from metarl.runs import checkpoints
from metarl.runs.run import Run

SCRIPTS = Path(__file__).parents[2] / "scripts"
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
def test_a_run_of_4_that_is_raised_to_6_equals_a_run_of_6(name, tmp_path):
    for folder, iterations, more in (("whole", 6, ()), ("parts", 4, ()), ("parts", 6, ("--resume",))):
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


def test_how_often_a_run_is_saved_and_threads_that_decide_nothing_may_change(tmp_path):
    assert train("promp", tmp_path / "whole", 6)[0] == 0
    assert train("promp", tmp_path / "parts", 3)[0] == 0
    code, said = train("promp", tmp_path / "parts", 6, "--resume", "--checkpoint-every", "1", "--threads", "1")
    assert code == 0, said
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "parts") == ["config.json: config"]
    assert train("promp", tmp_path / "parts", 6, "--resume", "--threads", "3")[0] == 0  # writes no checkpoint more
    assert Run.open(tmp_path / "parts").restore()[0] == 6


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("ppo-oracle", "threads", "2"), ("rl2", "validate-every", "1"), ("meta-sgd", "log-every", "1")],
)
def test_what_numbers_depend_on_may_not(name, option, value, tmp_path):
    assert train(name, tmp_path / "run", 2)[0] == 0
    before = whole_folder(tmp_path / "run")
    code, said = train(name, tmp_path / "run", 2, "--resume", f"--{option}", value)
    assert code == 2
    assert said.count("\n") == 1
    assert f"config.{option.replace('-', '_')} is" in said
    assert whole_folder(tmp_path / "run") == before


def test_a_run_that_was_killed_before_its_first_checkpoint_may_be_saved_more_often(tmp_path, monkeypatch):
    def power_cut(*_, **__):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", power_cut)
        with pytest.raises(ZeroDivisionError):
            train("rl2", tmp_path / "run", 6, "--checkpoint-every", "6")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6
    for folder, more in (("run", ("--resume",)), ("whole", ())):
        code, said = train("rl2", tmp_path / folder, 6, *more)
        assert code == 0, said
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "run") == []


@pytest.mark.filterwarnings("error::UserWarning")  # nothing is damaged, and nothing passed over
def test_who_reads_a_run_while_it_is_trained_gets_a_whole_checkpoint(tmp_path):
    folder, seen = tmp_path / "run", set()
    command = [sys.executable, "-m", "metarl", *words("meta-sgd"), *lasting("meta-sgd", 100, 1), "--out", folder]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while training.poll() is None:
            if (folder / "checkpoints" / checkpoints.MANIFEST).exists():
                iteration, state = Run.open(folder).restore()
                assert {float(each["step"]) for each in state["optimiser"]["state"].values()} == {iteration}
                registry.open_run(folder).load()
                seen.add(iteration)
    finally:
        training.kill()
    assert training.wait() == 0
    assert len(seen) > 3
