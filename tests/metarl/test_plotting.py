from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from metarl.evaluation import AdaptationCurve
from metarl.learner import Budget, UserError
from metarl.plotting import common_axis, figure, plot_curves, title


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
    (band,) = ax.collections
    corners = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
    assert {(0.0, drawn.interval.low[0]), (2.0, drawn.interval.high[2])} <= corners
    assert ax.get_xlabel() == "gradient steps"
    assert ax.get_ylabel() == "return"


def test_the_axis_can_be_chosen() -> None:
    (ax,) = figure(curve(), axis="env_steps").axes
    assert np.asarray(ax.get_lines()[0].get_xdata()).tolist() == [0, 4000, 8000]
    assert ax.get_xlabel() == "environment steps a task"
    with pytest.raises(UserError, match="learner consumes no shots"):
        figure(curve(), axis="shots")


def test_agents_that_adapt_share_an_axis() -> None:
    recurrent = curve(agent="recurrent", gradient_steps=None)
    assert common_axis([curve(), recurrent]) == "env_steps"
    assert common_axis([curve()]) == "gradient_steps"
    assert common_axis([idle(gradient_steps=None)]) == "k"
    assert common_axis([curve(), idle(gradient_steps=None)]) == "gradient_steps"
    shots = curve(gradient_steps=None, env_steps=None, shots=(1, 5, 10))
    assert common_axis([shots]) == "shots"


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
    lines = title([curve()]).splitlines()
    assert lines == ["Navigation2D-v0, pearl", "5 test tasks, 2 seeds, mean and 95 % interval"]
    assert "tasks reused, not unseen" not in title([curve()])
    assert "5 test tasks (tasks reused, not unseen), 2 seeds" in title([curve(unseen=False)])
    assert title([curve(preset=None, options={"arms": 5})]).startswith("Navigation2D-v0, arms=5\n")
    one = curve(seeds=(3,), per_task=np.zeros((1, 1, 3)), split="ood")
    assert "1 ood task, 1 seed, " in title([one])
    assert ", 1 to 2 seeds, " in title([curve(), curve(agent="b", seeds=(3,), per_task=np.zeros((1, 5, 3)))])


def test_scores_that_are_not_finite_are_drawn_as_gaps(tmp_path: Path) -> None:
    plot_curves(curve(per_task=np.full((2, 5, 3), np.nan), random=None, oracle=None), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_curves_of_other_problems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="split test is not ood"):
        plot_curves([curve(), curve(split="ood")], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_global_state_is_untouched(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    plot_curves(curve(), tmp_path / "a.svg")
    assert dict(mpl.rcParams) == before
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, metarl.plotting; print('matplotlib.pyplot' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "False"
