"""The baselines by Stable-Baselines3 from the command line, and their curves as reference lines."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from metarl import cli
from metarl.evaluation.curve import AdaptationCurve

PROMP = ["--family", "metarl/Navigation2D-v0", "--preset", "promp"]  # no optimum is known in closed form
PPO = ["--iterations", "1", "--envs", "2", "--epochs", "1", "--minibatches", "2", "--hidden", "8"]
CHOICE = ["--step-sizes", "0.1", "--validation-tasks", "2", "--adaptation-steps", "1", "--adaptation-episodes", "2"]
QUICK = ["--tasks", "3", "--episodes", "2", "--steps", "1"]


def metarl(*words: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each, trained; the oracle evaluated on test tasks. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    for agent, words in {"scratch": CHOICE, "pretrained": PPO + CHOICE, "oracle": PPO}.items():
        code, _, err = metarl("train", f"ppo-{agent}", *PROMP, "--out", folder / agent, *words)
        assert code == 0, err
    assert metarl("evaluate", folder / "oracle", *QUICK)[0] == 0
    return folder


def test_the_reference_is_the_oracle_s_own_curve(runs: Path, tmp_path: Path) -> None:
    oracle = AdaptationCurve.load(runs / "oracle" / "curve.json")
    assert oracle.oracle is None
    assert not oracle.adapts
    for given in (runs / "oracle", runs / "oracle" / "curve.json"):
        code, out, err = metarl("evaluate", runs / "scratch", *QUICK, "--oracle", given, "--json", tmp_path / "c.json")
        assert code == 0, err
        assert AdaptationCurve.load(tmp_path / "c.json").oracle == pytest.approx(oracle.mean.mean())
        assert f"oracle {oracle.mean.mean():.2f}" in out
    assert metarl("evaluate", runs / "scratch", *QUICK, "--json", tmp_path / "c.json")[0] == 0
    assert AdaptationCurve.load(tmp_path / "c.json").oracle is None


def test_all_three_and_random_compare_on_one_plot(runs: Path, tmp_path: Path) -> None:
    random = tmp_path / "random.json"
    for words in ([runs / "pretrained"], [runs / "scratch"], ["random", *PROMP, "--json", random]):
        assert metarl("evaluate", *words, *QUICK, "--oracle", runs / "oracle")[0] == 0
    every = [runs / "pretrained", runs / "scratch", runs / "oracle", random]
    code, _, err = metarl("compare", *every, "--out", tmp_path / "c.png")
    assert code == 0, err


def of_another(folder: Path, **changes: Any) -> Path:
    """The oracle's curve with other fields."""
    document = json.loads((folder / "oracle" / "curve.json").read_text())
    path = folder / f"{'-'.join(changes)}.json"
    path.write_text(json.dumps(document | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "validation"}, "(split: validation, not test)"),
        ({"task_hash": "0" * 64}, "(tasks: 0000"),
        ({"preset": "maml2017"}, "(preset: maml2017, not promp)"),
        ({"family": "metarl/AntGoal-v0"}, "(family: metarl/AntGoal-v0, not metarl/Navigation2D-v0)"),
        ({"options": {"arms": 3}}, "(family options: {'arms': 3}, not {})"),
        ({"agent": "maml-trpo"}, "is a curve of maml-trpo; give an evaluated run of ppo-oracle"),
    ],
)
def test_an_oracle_of_another_problem_is_caught(
    runs: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    before = sorted((tmp_path / "runs").rglob("*"))
    path = of_another(tmp_path / "runs", **changes)
    code, _, err = metarl("evaluate", tmp_path / "runs" / "scratch", *QUICK, "--oracle", path)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert sorted((tmp_path / "runs").rglob("*")) == sorted([*before, path])


def test_an_oracle_measured_on_another_split_or_on_fewer_tasks_is_caught(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "oracle", tmp_path / "oracle")
    assert metarl("evaluate", tmp_path / "oracle", *QUICK, "--split", "ood")[0] == 0
    for words, path, message in (
        ([], tmp_path / "oracle" / "curve-ood.json", "(split: ood, not test)"),
        (["--tasks", "4"], tmp_path / "oracle", "(tasks: "),
        ([], runs / "pretrained" / "none", "there is no run or curve"),
        ([], tmp_path, "has no curve.json yet"),
    ):
        code, _, err = metarl("evaluate", runs / "scratch", *QUICK, *words, "--oracle", path)
        assert code == 2
        assert message in err


def test_a_run_resumes_to_more_iterations_from_the_command_line(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "pretrained", tmp_path / "run")
    words = [*PROMP, "--out", tmp_path / "run", *PPO[2:], *CHOICE, "--iterations", "2", "--resume"]
    code, _, err = metarl("train", "ppo-pretrained", *words)
    assert code == 0, err
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert metarl("evaluate", tmp_path / "run", *QUICK)[0] == 0
