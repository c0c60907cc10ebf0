"""`--device`, in every command that computes."""

import pytest
from command_line import NAVIGATION, QUICK, SMALL, metarl, refused

from metarl.parallel import choose_device


def test_auto_is_said_in_training_and_judging(tmp_path):
    said = metarl("train", "maml-trpo", "--family", NAVIGATION, "--out", tmp_path / "run", *SMALL, "--device", "auto")
    assert (said.code, said.err) == (0, "")
    assert f"--device auto: {choose_device('auto')}\n" in said.out
    said = metarl("evaluate", tmp_path / "run", *QUICK, "--device", "auto")
    assert (said.code, said.err) == (0, "")
    assert f"--device auto: {choose_device('auto')}\n" in said.out


def test_a_device_that_is_not_there_is_refused_in_one_line(tmp_path):
    run = tmp_path / "run"
    assert metarl("train", "maml-trpo", "--family", NAVIGATION, "--out", run, *SMALL).code == 0
    absent = tmp_path / "absent"
    for words in (
        ["train", "rl2", "--family", NAVIGATION, "--out", absent],
        ["evaluate", run],
        ["video", run, "--out", tmp_path / "film.gif"],
    ):
        line = refused(metarl(*words, "--device", "abacus"))
        assert line.startswith("metarl: this machine has no device 'abacus'; it has "), words
    assert not absent.exists()


@pytest.mark.parametrize("agent", ["random", "oracle"])
def test_what_needs_no_training_computes_on_the_cpu_alone(agent):
    line = refused(metarl("evaluate", agent, "--family", NAVIGATION, "--device", "cuda"))
    assert line == f"metarl: {agent} needs no training and computes on the CPU alone: leave --device cuda out\n"
