from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.learning.contract import Budget
from metarl.reporting.figures.profile import profile_figure
from metarl.reporting.figures.style import render
from metarl.reporting.plots import figure, plot_curves, plot_profiles
from metarl.reporting.wording import problem, setting


def curve(**changes: Any) -> AdaptationCurve:
    values = np.array([-40.0, -12.0, -4.0]) + np.arange(5.0)[:, None] + np.arange(2.0)[:, None, None]
    given: dict[str, Any] = {
        "agent": "learner",
        "family": "metarl/Navigation2D-v0",
        "preset": "pearl",
        "split": "test",
        "task_hash": "ab" * 32,
        "seeds": (0, 1),
        "protocol": "as tested",
        "score": "return",
        "gradient_steps": (0, 1, 2),
        "env_steps": (0, 4000, 8000),
        "shots": None,
        "per_task": values,
        "random": -73.0,
        "oracle": -0.5,
        "budget": Budget(2, 40),
    }
    return AdaptationCurve(**(given | changes))


def idle(**changes: Any) -> AdaptationCurve:
    return curve(agent="stand-still", seeds=(0,), per_task=np.full((1, 5, 3), -39.0), env_steps=None, **changes)


SIGNATURES = {"png": b"\x89PNG\r\n", "svg": b"<?xml", "pdf": b"%PDF-", "PNG": b"\x89PNG\r\n"}


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_the_suffix_chooses_the_format_and_files_repeat(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    plot_curves(curve(), first)
    plot_curves([curve()], second)
    assert first.read_bytes().startswith(SIGNATURES[suffix])
    assert first.read_bytes() == second.read_bytes()


def test_the_picture_is_not_blank(tmp_path: Path) -> None:
    plot_curves(curve(), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 900
        colours = {colour for _, colour in picture.convert("RGB").getcolors(maxcolors=2**24) or []}
    assert (0, 0x72, 0xB2) in colours


@pytest.mark.parametrize("name", ["a.gif", "a", "png"])
def test_an_unknown_format_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"must end in \.png, \.svg, \.pdf"):
        plot_curves(curve(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_curve_band_and_references_are_where_the_numbers_are() -> None:
    drawn = curve()
    (ax,) = figure(drawn).axes
    lines = {str(line.get_label()): np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()}
    assert lines["learner"].tolist() == drawn.mean.tolist()
    assert set(lines["oracle"]) == {-0.5}
    assert set(lines["random"]) == {-73.0}
    (bars,) = ax.collections
    ends = [[(float(x), float(y)) for x, y in path.vertices] for path in bars.get_paths()]
    assert ends == [[(k, drawn.interval.low[k]), (k, drawn.interval.high[k])] for k in range(3)]
    assert ax.get_xlabel() == "gradient steps"
    assert ax.get_ylabel() == "return"


def test_the_axis_can_be_chosen() -> None:
    (ax,) = figure(curve(), axis="env_steps").axes
    assert np.asarray(ax.get_lines()[0].get_xdata()).tolist() == [0, 4000, 8000]
    assert ax.get_xlabel() == "environment steps a task"
    with pytest.raises(UserError, match="learner consumes no shots"):
        figure(curve(), axis="shots")


def test_agents_that_adapt_share_an_axis() -> None:
    recurrent = curve(agent="recurrent", gradient_steps=None, env_steps=(0, 100, 200))
    (ax,) = figure([curve(), recurrent]).axes
    assert np.asarray(ax.get_lines()[1].get_xdata()).tolist() == [0, 100, 200]
    assert ax.get_xscale() == "symlog"  # 8,000 steps beside 200
    assert "logarithmic from 100" in ax.get_xlabel()
    (ax,) = figure([curve(), curve(agent="b", gradient_steps=None, env_steps=(0, 3000, 6000))]).axes
    assert (ax.get_xscale(), ax.get_xlabel()) == ("linear", "environment steps a task")


def test_agents_without_a_common_axis_are_drawn_by_their_last_scores() -> None:
    one = curve(agent="gradient", score="accuracy", env_steps=None, shots=(0, 5, 5), oracle=None, random=None)
    other = curve(agent="shots", score="accuracy", gradient_steps=None, env_steps=None, shots=(0, 1, 5))
    better = AdaptationCurve(**{**vars(other), "per_task": other.per_task + 1, "oracle": None, "random": None})
    (ax,) = figure([one, better]).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["shots", "gradient"]  # the best on top
    dots = {str(line.get_label()): float(line.get_xdata()[0]) for line in ax.get_lines() if line.get_marker() == "o"}
    assert dots == {"gradient": one.interval.value[-1], "shots": better.interval.value[-1]}
    written = {text.get_text() for text in ax.texts}
    assert any(text.startswith(f"{100 * one.interval.value[-1]:.2f} [") for text in written)


def two_tasks(**changes: Any) -> AdaptationCurve:
    values = np.array([[[-86.8, -40.0, -15.4], [24.1, 99.0, 217.3]]])
    given = {"per_task": values, "seeds": (0,), "task_of": (0, 1), "task_arrays": {"direction": [1.0, -1.0]}}
    return curve(**(given | {"random": -18.0, "oracle": None, "unseen": False} | changes))


def test_few_tasks_have_a_panel_each() -> None:
    drawn = two_tasks()
    other = two_tasks(agent="other", per_task=drawn.per_task + 5)
    panels = figure([drawn, other]).axes
    assert [ax.get_title(loc="left") for ax in panels] == ["mean of the tasks", "direction=+1", "direction=-1"]
    shown = [[np.asarray(line.get_ydata(), float).tolist() for line in ax.get_lines()[:2]] for ax in panels]
    assert shown[0] == [drawn.mean.tolist(), other.mean.tolist()]
    for d in range(2):
        assert shown[1 + d] == [drawn.per_task[0, d].tolist(), other.per_task[0, d].tolist()]
    assert [len(ax.get_lines()) for ax in panels] == [3, 2, 2]  # random is the mean of both tasks
    assert len(figure(two_tasks(task_of=None, task_arrays=None)).axes) == 1  # a file of old
    odd = two_tasks(task_arrays={r"$\frac{$": [1.0, -1.0]})  # whatever a user names it
    for axis in (None, "final"):
        assert render(lambda axis=axis: figure(odd, axis), "svg")


def test_few_tasks_have_a_row_each_among_last_scores() -> None:
    made = figure([two_tasks(), two_tasks(agent="better", per_task=two_tasks().per_task + 9)], axis="final")
    (ax,) = made.axes
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows == ["better", "direction=+1", "direction=-1", "learner", "direction=+1", "direction=-1"]


def test_what_diverged_is_said_in_the_legend_and_never_on_top() -> None:
    values = curve().per_task.copy()
    values[0, 1, 2] = np.nan
    failed = curve(agent="failed", per_task=values + 50)
    (ax,) = figure([curve(), failed]).axes
    label = "failed (without 10 % diverged)"
    line = next(line for line in ax.get_lines() if line.get_label() == label)
    assert np.asarray(line.get_ydata(), float).tolist() == failed.mean.tolist()
    (ax,) = figure([curve(), failed], axis="final").axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["learner", label]
    (ax,) = profile_figure([curve(), failed]).axes
    assert max(np.asarray(ax.get_lines()[1].get_ydata(), float)) == 0.9


def test_an_agent_that_does_not_adapt_is_a_level_line() -> None:
    (ax,) = figure([curve(), idle(gradient_steps=None)]).axes
    level = next(line for line in ax.get_lines() if "does not adapt" in str(line.get_label()))
    assert set(np.asarray(level.get_ydata(), dtype=float)) == {-39.0}
    assert len(ax.collections) == 1


def test_a_reference_that_is_a_curve_is_drawn_once() -> None:
    oracle = idle(gradient_steps=None)
    (ax,) = figure([curve(), AdaptationCurve(**{**vars(oracle), "agent": "oracle"})]).axes
    assert [str(line.get_label()) for line in ax.get_lines()] == ["learner", "oracle (does not adapt)", "random"]


def test_the_title_says_what_was_measured() -> None:
    lines = problem([curve()]).splitlines()
    assert lines == ["Navigation2D-v0, pearl", "5 test tasks, 2 seeds, mean and 95 % interval"]
    assert "tasks reused, not unseen" not in problem([curve()])
    assert "5 test tasks (tasks reused, not unseen), 2 seeds" in problem([curve(unseen=False)])
    assert problem([curve(preset=None, options={"arms": 5})]).startswith("Navigation2D-v0, arms=5\n")
    one = curve(seeds=(3,), per_task=np.zeros((1, 1, 3)), split="ood")
    assert "1 ood task, 1 seed, mean and 95 % interval over tasks" in problem([one])
    assert problem([two_tasks(trained=False)]).endswith(
        "2 test tasks (tasks reused, not unseen), mean and 95 % interval over tasks"
    )
    assert "2 test tasks in 5 rows, " in problem([curve(task_of=(0, 0, 2, 0, 2))])
    assert ", 1 to 2 seeds, " in problem([curve(), curve(agent="b", seeds=(3,), per_task=np.zeros((1, 5, 3)))])


@pytest.mark.parametrize(
    ("family", "preset", "options", "title"),
    [
        ("omniglot", "vinyals", {"ways": 5, "shots": 1, "queries": 15, "min_ways": None}, "omniglot, 5-way 1-shot"),
        ("omniglot", "lake", {"ways": 20, "shots": 1, "queries": 2}, "omniglot, lake, 20-way 1-shot, queries=2"),
        ("sinusoid", None, {"shots": 10, "queries": 10}, "sinusoid"),
        ("sinusoid", None, {"shots": 5, "queries": 10}, "sinusoid, shots=5"),
        ("metarl/BernoulliBandit-v0", "duan2016", {"arms": 5, "pulls": 100}, "BernoulliBandit-v0, pulls=100"),
        ("metarl/Navigation2D-v0", "maml2017", {}, "Navigation2D-v0"),
        ("antigravity:Family", "own", {"mass": 2.0}, "antigravity:Family, own, mass=2.0"),  # not imported for a title
    ],
)
def test_titles_leave_defaults_out(family: str, preset: str | None, options: dict[str, Any], title: str) -> None:
    assert setting(curve(family=family, preset=preset, options=options)) == title
    assert "antigravity" not in sys.modules


def test_scores_that_are_not_finite_are_drawn_as_gaps(tmp_path: Path) -> None:
    plot_curves(curve(per_task=np.full((2, 5, 3), np.nan), random=None, oracle=None), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_curves_of_other_problems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="split test is not ood"):
        plot_curves([curve(), curve(split="ood")], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_reference_is_one_line_though_evaluations_measured_it_twice() -> None:
    (ax,) = figure([curve(random=-73.0), curve(agent="b", random=-71.0, oracle=None)]).axes
    level = {str(line.get_label()): set(np.asarray(line.get_ydata(), float)) for line in ax.get_lines()[2:]}
    assert level == {"oracle": {-0.5}, "random": {-72.0}}


def test_profiles_are_drawn_where_the_numbers_are(tmp_path: Path) -> None:
    low = curve(agent="low", per_task=curve().per_task - 8)
    (ax,) = profile_figure([curve(), low]).axes
    first, second = ax.get_lines()
    x, y = np.asarray(first.get_xdata(), float), np.asarray(first.get_ydata(), float)
    scores = (curve().per_task[..., -1] + 73.0) / 72.5
    assert y.tolist() == [float((scores > threshold).mean()) for threshold in x]
    assert (np.asarray(second.get_ydata()) <= y).all()
    assert "normalised" in ax.get_xlabel()
    plot_profiles([curve(), low], tmp_path / "profile.svg")
    assert (tmp_path / "profile.svg").read_bytes().startswith(b"<?xml")


def test_the_profile_of_an_error_gets_better_to_the_right() -> None:
    errors = np.array([[[1.0], [2.0], [3.0], [4.0]]])
    fields = {"score": "mse", "gradient_steps": None, "env_steps": None, "random": None, "oracle": None}
    (ax,) = profile_figure([curve(per_task=errors, seeds=(0,), **fields)]).axes
    (line,) = ax.get_lines()
    x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    assert y.tolist() == [float((errors < threshold).mean()) for threshold in x]
    assert ax.xaxis_inverted()


def test_a_dark_page_has_its_own_colours() -> None:
    light, dark = (render(lambda: figure(curve()), "svg", dark=dark).decode() for dark in (False, True))
    assert "#333333" in light
    assert "#333333" not in dark
    assert "#d5d8dc" in dark
    assert light == render(lambda: figure(curve()), "svg").decode()
    many = [curve(agent=f"agent {i}") for i in range(8)]
    light, dark = (render(lambda: figure(many), "svg", dark=dark).decode() for dark in (False, True))
    assert "#444444" in light
    assert not {"#444444", "#0072b2"} & set(re.findall("#[0-9a-f]{6}", dark))  # they could not be seen


def test_global_state_is_untouched(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    plot_curves(curve(), tmp_path / "a.svg")
    assert dict(mpl.rcParams) == before
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, metarl.reporting.plots; print('matplotlib.pyplot' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "False"
