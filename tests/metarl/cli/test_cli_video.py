from __future__ import annotations

from pathlib import Path

import pytest
from command_line import NAVIGATION, QUICK, SMALL, contents, metarl, refused, train
from PIL import Image

from metarl.reporting.films import GAP, PANE


def test_a_run_is_filmed(trained: Path, tmp_path: Path) -> None:
    before = contents(trained / "0")
    said = metarl("video", trained / "0", "--out", tmp_path / "film.gif", *QUICK[2:], "--task", 4)
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0].startswith("before adaptation: mean return -")
    assert lines[1].startswith("after 1 gradient step: mean return -")
    assert lines[2] == f"wrote {tmp_path / 'film.gif'}"
    assert (tmp_path / "film.gif").read_bytes().startswith(b"GIF8")
    assert contents(trained / "0") == before


def test_several_tasks_are_rows_of_one_film(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    said = metarl("video", trained / "0", "--out", path, "--steps", 1, "--episodes", 2, "--tasks", 2)
    assert said.code == 0, said
    begins = [line.partition(":")[0] for line in said.out.splitlines()]
    assert begins[:4] == [
        "task 0, before adaptation",
        "task 0, after 1 gradient step",
        "task 1, before adaptation",
        "task 1, after 1 gradient step",
    ]
    with Image.open(path) as film:
        assert film.width == 2 * PANE + GAP
        assert film.height > 2 * 360


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "film.avi"], "cannot film film.avi: the name must end in .mp4 or .gif"),
        (["--out", "nowhere/film.gif"], "cannot write nowhere/film.gif: there is no folder nowhere"),
        (["--out", "film.gif", "--task", "-1"], "--task is -1; it must be from 0 to 999"),
        (["--out", "film.gif", "--task", "1000"], "--task is 1000; it must be from 0 to 999"),
        (["--out", "film.gif", "--tasks", "0"], "--tasks is 0; from task 0 on it must be from 1 to 6"),
        (["--out", "film.gif", "--tasks", "7"], "--tasks is 7; from task 0 on it must be from 1 to 6"),
        (["--out", "film.gif", "--task", "998", "--tasks", "3"], "from task 998 on it must be from 1 to 2"),
        (["--out", "film.gif", "--fps", "0"], "--fps is 0; it must be above 0, at most 240"),
        (["--out", "film.gif", "--steps", "-1"], "a budget needs steps >= 0 and episodes >= 1, got -1 and 40"),
        (
            ["--out", "film.gif", "--split", "tset"],
            f"unknown split of {NAVIGATION} 'tset'; did you mean test?",
        ),
    ],
)
def test_a_film_with_bad_options_is_refused(
    words: list[str], told: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refused(metarl("video", trained / "0", *words))
    assert list(tmp_path.iterdir()) == []


def test_a_film_of_a_task_that_a_finite_family_lacks_is_refused(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--preset", "promp").code == 0
    error = refused(metarl("video", tmp_path / "run", "--out", tmp_path / "film.gif", "--task", "4"))
    assert f"--task is 4; {NAVIGATION} has 4 test tasks, 0 to 3" in error
    error = refused(metarl("video", tmp_path / "run", "--out", tmp_path / "film.gif", "--task", "2", "--tasks", "3"))
    assert f"the last task asked for is 4; {NAVIGATION} has 4 test tasks, 0 to 3" in error
    assert not (tmp_path / "film.gif").exists()


def test_what_is_no_filmable_run_is_refused(tmp_path: Path) -> None:
    film = ["--out", tmp_path / "film.gif"]
    assert "there is no run 'random'; give a run folder" in refused(metarl("video", "random", *film))
    assert "maml-trpo must be trained first" in refused(metarl("video", "maml-trpo", *film))
    assert "RUN comes first: metarl video RUN" in refused(metarl("video", *film))
    small = ["--iterations", "1", "--tasks", "2", "--checkpoint-every", "1"]
    assert metarl("train", "maml", "--dataset", "sinusoid", "--out", tmp_path / "sine", *small).code == 0
    assert "maml in " in (said := refused(metarl("video", tmp_path / "sine", *film)))
    assert "cannot be filmed: only agents that act in a task family can" in said


def test_without_opengl_a_film_of_mujoco_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--family", "metarl/HalfCheetahVelocity-v0", "--out", tmp_path / "run", *SMALL]
    assert metarl("train", "maml-trpo", *options).code == 0
    monkeypatch.setattr("metarl.envs.mujoco.rendering.opengl_problem", lambda: "no library")
    said = refused(metarl("video", tmp_path / "run", "--out", tmp_path / "film.gif", *QUICK[2:]))
    assert "MuJoCo found no OpenGL (no library)" in said
    assert "MUJOCO_GL=osmesa" in said
    assert "libegl1" in said
    assert not (tmp_path / "film.gif").exists()
