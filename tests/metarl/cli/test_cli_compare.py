from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import NAVIGATION, QUICK, metarl, refused

from metarl.evaluation.curve import AdaptationCurve


def test_compare_makes_seeds_one_curve(trained: Path, still: Path, tmp_path: Path) -> None:
    picture, numbers = tmp_path / "all.png", tmp_path / "all.json"
    said = metarl("compare", trained / "0", trained / "1" / "curve.json", still, "--out", picture, "--json", numbers)
    assert said.code == 0, said.err
    assert picture.exists()
    curves = [AdaptationCurve.from_dict(entry) for entry in json.loads(numbers.read_text())["curves"]]
    assert [(curve.agent, curve.seeds) for curve in curves] == [("maml-trpo", (0, 1)), ("stand-still", (0,))]


def test_compare_writes_tables_and_every_number(trained: Path, still: Path, tmp_path: Path) -> None:
    picture, numbers, text, profile = (tmp_path / name for name in ("a.svg", "a.json", "a.md", "profile.png"))
    files = ("--out", picture, "--json", numbers, "--markdown", text, "--profile", profile)
    said = metarl(
        "compare", trained / "0", trained / "1", still, *files, "--reach", "-1000", "--against", "stand-still"
    )
    assert said.code == 0, said.err
    assert profile.exists()
    found = json.loads(numbers.read_text())["comparison"]
    assert (found["against"], found["axis"]) == ("stand-still", "gradient_steps")
    maml, other = found["agents"]
    assert (maml["agent"], maml["seeds"], other["agent"]) == ("maml-trpo", [0, 1], "stand-still")
    last = np.mean([AdaptationCurve.load(trained / seed / "curve.json").mean[-1] for seed in "01"])
    assert maml["score"]["value"][-1] == pytest.approx(last)
    assert maml["difference"]["value"] == pytest.approx(last - AdaptationCurve.load(still).mean[-1])
    assert (other["difference"]["value"], other["p_value"]) == (0.0, None)
    assert (maml["p_value"], other["gain"]) == (None, None)
    assert maml["without_p_value"] == "it needs at least 5 training seeds of each trained agent"
    assert maml["reached"] == {"k": 0, "gradient_steps": 0, "env_steps": 0}
    written = text.read_text()
    for value in (maml["score"]["value"][1], maml["interquartile_mean"]["low"], maml["difference"]["high"]):
        assert f"{value:.2f}" in said.out
        assert f"{value:.2f}" in written
    assert "| maml-trpo | 2 |" in written


def test_the_worst_tenth_is_in_every_output(tmp_path: Path) -> None:
    files = [tmp_path / f"{agent}.json" for agent in ("random", "stand-still")]
    for file in files:
        words = (
            "--family",
            NAVIGATION,
            "--preset",
            "pearl",
            "--tasks",
            10,
            "--episodes",
            2,
            "--steps",
            0,
            "--json",
            file,
        )
        assert metarl("evaluate", file.stem, *words).code == 0
    numbers, text = tmp_path / "all.json", tmp_path / "all.md"
    said = metarl("compare", *files, "--out", tmp_path / "all.png", "--json", numbers, "--markdown", text)
    assert said.code == 0, said.err
    for agent, file in zip(json.loads(numbers.read_text())["comparison"]["agents"], files, strict=True):
        worst = float(AdaptationCurve.load(file).per_task[0, :, -1].min())
        assert agent["worst_tenth"]["value"] == pytest.approx(worst)  # one task of ten
        assert f"{worst:.2f} [" in text.read_text()
        assert f"{worst:.2f}" in said.out
    assert "| worst tenth |" in text.read_text()
    assert "Worst tenth: mean of the worst tenth of the scores (CVaR 10 %)" in text.read_text()


def test_compare_again_from_its_own_numbers(trained: Path, still: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert metarl("compare", trained / "0", still, "--out", tmp_path / "a.png", "--json", first).code == 0
    assert metarl("compare", first, "--out", tmp_path / "b.png", "--json", second).code == 0
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    error = refused(metarl("compare", first, still, "--out", tmp_path / "c.png"))
    assert "a training seed occurs twice in [0, 0]" in error


def test_compare_against_a_run_as_typed(trained: Path, still: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "a.json"
    words = [
        "compare",
        still,
        trained / "1",
        "--out",
        tmp_path / "a.png",
        "--json",
        numbers,
        "--against",
        trained / "1",
    ]
    assert metarl(*words).code == 0
    assert json.loads(numbers.read_text())["comparison"]["against"] == "maml-trpo"


OTHER_PROBLEMS = {
    "--tasks=2": "tasks ",
    "--preset=pearl": "preset maml2017 is not pearl",
    "--family=metarl/GridNavigation-v0": "family metarl/Navigation2D-v0 is not metarl/GridNavigation-v0",
}


@pytest.mark.parametrize("change", OTHER_PROBLEMS)
def test_compare_refuses_another_problem_and_draws_nothing(change: str, trained: Path, tmp_path: Path) -> None:
    agent = "random" if "Grid" in change else "oracle"
    other = tmp_path / "other.json"
    assert metarl("evaluate", agent, "--family", NAVIGATION, *QUICK, change, "--json", other).code == 0
    error = refused(metarl("compare", trained / "0", other, "--out", tmp_path / "all.png"))
    assert f"cannot compare maml-trpo with {agent}: {OTHER_PROBLEMS[change]}" in error
    assert not (tmp_path / "all.png").exists()


def test_budgets_that_change_nothing_forbid_no_comparison(trained: Path, tmp_path: Path) -> None:
    others = []
    for agent, words in (("oracle", ("--steps", 0, "--episodes", 1)), ("random", ("--steps", 4, "--episodes", 3))):
        others.append(tmp_path / f"{agent}.json")
        said = metarl("evaluate", agent, "--family", NAVIGATION, *QUICK, *words, "--json", others[-1])
        assert said.code == 0, said.err
    said = metarl("compare", trained / "0", *others, "--out", tmp_path / "all.png")
    assert said.code == 0, said.err
    tables = [line for line in said.out.splitlines() if not line.startswith("wrote ")]  # a path may be of any length
    assert max(map(len, tables)) <= 80  # a pipe has a width of its own


def test_splits_stand_beside_each_other(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "0"
    shutil.copytree(trained / "0", run, ignore=shutil.ignore_patterns("curve-*"))
    other = tmp_path / "other.json"
    said = metarl("evaluate", "oracle", "--family", NAVIGATION, *QUICK, "--split", "ood", "--json", other)
    assert said.code == 0, said.err
    numbers, text = tmp_path / "all.json", tmp_path / "all.md"
    words = ("--out", tmp_path / "all.png", "--json", numbers, "--markdown", text)
    said = metarl("compare", run, other, *words)
    assert said.code == 0, said.err
    assert said.out.startswith("Navigation2D-v0\nSplits beside each other\n")
    document = json.loads(numbers.read_text())
    assert [[agent["agent"] for agent in each["agents"]] for each in document["comparisons"]] == [
        ["maml-trpo"],
        ["oracle"],
    ]
    assert "| maml-trpo |" in text.read_text()
    again = metarl("compare", numbers, "--out", tmp_path / "again.png", "--axis", "final")
    assert again.code == 0, again.err
    error = refused(metarl("compare", numbers, "--out", tmp_path / "x.png", "--per-task", tmp_path / "y.png"))
    assert "--profile and --per-task draw one split" in error
    lacking = refused(metarl("compare", run, "--splits", "test", "ood", "--out", tmp_path / "x.png"))
    assert f"{run} has no curve-ood.json yet: metarl evaluate {run} --split ood" in lacking


def test_each_task_is_drawn(trained: Path, tmp_path: Path) -> None:
    picture = tmp_path / "tasks.svg"
    said = metarl("compare", trained / "0", "--out", tmp_path / "all.png", "--per-task", picture)
    assert said.code == 0, said.err
    assert f"wrote {picture}" in " ".join(said.out.split("\n"))
    assert "goal[0]" in picture.read_text()


BAD: list[tuple[list[str], str]] = [
    (["compare"], "RUN comes first"),
    (["compare", "nothing", "--out", "x.png"], "there is no run or curve 'nothing'"),
    (["compare", ".", "--out", "x.png"], "has no curve.json yet: metarl evaluate ."),
    (["compare", ".", "--out", "x.txt"], "must end in .png, .svg, .pdf"),
    (["compare", ".", "--out", "x.png", "--profile", "x.txt"], "must end in .png, .svg, .pdf"),
    (["compare", ".", "--out", "x.png", "--markdown", "no/x.md"], "there is no folder no"),
    (["compare", "."], "--out"),
    (["compare", ".", "--out", "x.png", "--reach", "far"], "--reach: 'far' is not a number"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_of_compare(words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(metarl(*words))
    assert not list(tmp_path.iterdir())
