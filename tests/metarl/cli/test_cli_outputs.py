"""What a command writes destroys nothing: no file of a run, no input, no other output, no other measurement."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import NAVIGATION, QUICK, SMALL, contents, metarl, refused

from metarl.evaluation.curve import AdaptationCurve

OWN = ["config.json", "metrics.jsonl", "timings.jsonl", "nonfinite.pt", "curve.json", "checkpoints/latest.json"]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "0", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", [*OWN, "Config.json", "checkpoints/new.json", "tensorboard/x.json"])
def test_no_output_takes_the_place_of_a_runs_file(run: Path, still: Path, name: str) -> None:
    before = contents(run)
    line = refused(metarl("evaluate", "stand-still", "--family", NAVIGATION, *QUICK, "--json", run / name))
    assert f"--json {run / name} would overwrite a file of the run {run}" in line
    assert "would overwrite" in refused(metarl("compare", run, still, "--out", "x.svg", "--json", run / name))
    assert "would overwrite" in refused(metarl("evaluate", run, *QUICK, "--json", run / name))
    assert contents(run) == before
    assert not Path("x.svg").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["evaluate", "RUN", "--plot", "RUN/curve.png"], "a file of the run"),
        (["evaluate", "RUN", "--plot", "RUN/tasks.png"], "a file of the run"),
        (["evaluate", "RUN", "--csv", "RUN/x.csv", "--json", "RUN/../run/x.csv"], "--json and --csv both name"),
        (["compare", "RUN", "--out", "x.svg", "--json", "x.svg"], "--out and --json both name x.svg"),
        (["compare", "RUN", "--out", "x.svg", "--markdown", "./x.svg"], "--out and --markdown both name x.svg"),
        (["compare", "RUN", "--out", "x.svg", "--profile", "link/x.svg"], "--out and --profile both name"),
        (["compare", "RUN", "STILL", "--out", "x.svg", "--json", "STILL"], "would overwrite what this command reads"),
        (["evaluate", "RUN", "--oracle", "STILL", "--json", "STILL"], "would overwrite what this command reads"),
        (["video", "RUN", "--out", "RUN/checkpoints/film.gif"], "a file of the run"),
        (["report", "RUN", "--out", "RUN/checkpoints"], "a file of the run"),
        (["report", "RUN", "--out", "RUN/tensorboard/new"], "that place is the run's"),
        (["train", "maml-trpo", "--family", NAVIGATION, *SMALL, "--out", "RUN/inside"], "lies inside the run"),
        (["train", "maml-trpo", "--family", NAVIGATION, *SMALL, "--out", "RUN/checkpoints/x/y"], "lies inside the run"),
        (["quickstart", "--out", "RUN/inside"], "lies inside the run"),
    ],
)
def test_outputs_that_would_destroy_something_are_refused_before_any_work(
    run: Path, still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(still, "still.json")
    Path("link").symlink_to(tmp_path, target_is_directory=True)
    before = contents(tmp_path)
    said = metarl(*(word.replace("RUN", "run").replace("STILL", "still.json") for word in words))
    assert line in refused(said)
    assert contents(tmp_path) == before


def test_pictures_to_learn_from_are_not_written_over(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "support" / name).mkdir(parents=True)
        (tmp_path / "support" / name / "1.png").write_bytes(b"a picture")
    query = tmp_path / "query.png"
    query.write_bytes(b"another")
    before = contents(tmp_path)
    for target in (query, tmp_path / "support/a/1.png"):
        words = ["predict", tmp_path / "run", "--support", tmp_path / "support", "--query", query, "--json", target]
        assert "would overwrite" in refused(metarl(*words))
    assert contents(tmp_path) == before


def test_files_of_their_own_kind_are_written_again(run: Path, still: Path, tmp_path: Path) -> None:
    before = {path.name for path in run.glob("curve*")} | {"curve.json", "curve.png"}
    for _ in range(2):
        assert metarl("compare", run, still, "--out", run / "both.svg", "--json", run / "both.json").code == 0
        assert metarl("report", run, "--out", run).code == 0
        assert metarl("evaluate", run, *QUICK, "--json", tmp_path / "a.json").code == 0
    assert {path.name for path in run.glob("curve*")} == before


def test_a_link_in_an_outputs_place_is_replaced_and_what_it_names_stays(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(run / "config.json")
    before = contents(run)
    assert metarl("evaluate", "stand-still", "--family", NAVIGATION, *QUICK, "--json", tmp_path / "link.json").code == 0
    assert contents(run) == before
    assert not (tmp_path / "link.json").is_symlink()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--tasks", "2"], "it is of other tasks"),
        (["--steps", "2"], "its budget was Budget(steps=1, episodes=2)"),
        (["--seed", "1"], "its evaluation seed was 0; this one's is 1"),
    ],
)
def test_a_curve_of_another_measurement_is_kept_and_said(run: Path, words: list[str], why: str) -> None:
    before = (run / "curve.json").read_bytes()
    said = metarl("evaluate", run, *QUICK, *words)
    assert f"kept as {run / 'curve.1.json'}" in said.out
    assert why in said.out
    assert (run / "curve.1.json").read_bytes() == before
    new = (run / "curve.json").read_bytes()
    assert new != before
    assert f"kept as {run / 'curve.2.json'}" in metarl("evaluate", run, *QUICK).out
    assert (run / "curve.2.json").read_bytes() == new
    assert (run / "curve.json").read_bytes() == before
    assert AdaptationCurve.load(run / "curve.1.json").tasks == 3
    (run / "curve.json").write_text("{")
    assert "it cannot be read" in metarl("evaluate", run, *QUICK).out
    assert (run / "curve.3.json").read_text() == "{"
