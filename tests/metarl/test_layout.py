"""Whatever things are called, a picture shows it whole."""

from __future__ import annotations

import dataclasses
import re
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from metarl.evaluation.comparison import compare
from metarl.evaluation.curve import AdaptationCurve
from metarl.reporting.figures.layout import LONGEST, readable
from metarl.reporting.figures.profile import profile_figure
from metarl.reporting.figures.splits import splits_figure
from metarl.reporting.figures.style import render
from metarl.reporting.figures.tasks import tasks_figure
from metarl.reporting.plots import figure

ODD = [
    "_hidden",
    "$\\frac{x",
    "<b>&</b>",
    "two\nlines",
    "x" * 200,
    "word " * 40,
    "名前" * 60,
    "",
    "\x00\u202e",
    "ü" * 95,
]
NUMBER = re.compile(r"[−\d.,%\s]*")  # of a tick, which may lie beyond the axis and then is not drawn
NAMES = st.one_of(st.text(max_size=200), st.sampled_from(ODD))


def curve(agent: str, last: float = 1.0, **changes: Any) -> AdaptationCurve:
    values = np.stack([np.zeros(3), np.arange(3.0) + last], axis=1)[None]
    fields: dict[str, Any] = {
        "agent": agent,
        "family": "metarl/Navigation2D-v0",
        "preset": "maml2017",
        "split": "test",
        "task_hash": "ab" * 32,
        "seeds": (0,),
        "protocol": "as tested",
        "score": "return",
        "gradient_steps": (0, 1),
        "env_steps": (0, 4000),
        "shots": None,
        "per_task": values,
        "random": -1.0,
        "oracle": 9.0,
        "task_of": (0, 1, 2),
    }
    return AdaptationCurve(**(fields | changes))


def cut_off(made: Figure) -> list[str]:
    """The texts of a figure that reach beyond it by more than a pixel."""
    canvas = made.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks
        canvas.draw()
        width, height = made.bbox.width, made.bbox.height
        shown = [text for text in made.findobj(Text) if text.get_visible() and not NUMBER.fullmatch(text.get_text())]
        boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    return [text for text, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1]


@settings(max_examples=2, deadline=None, phases=[Phase.explicit, Phase.generate])
@example(ODD[:5], "x" * 200, "y" * 200)
@example(ODD[5:], "word " * 40, "W" * 99)
@given(st.lists(NAMES, min_size=1, max_size=3), NAMES, NAMES)
def test_no_name_is_cut_off_or_breaks_a_picture(agents: list[str], family: str, task: str) -> None:
    shared = {"family": family, "options": {task: family}}
    curves = [curve(agent, float(i), **shared) for i, agent in enumerate(agents)]
    few = [dataclasses.replace(one, task_arrays={task: [0.0, 1.0, 2.0]}) for one in curves]
    for made in (
        figure([dataclasses.replace(one, task_of=None) for one in curves]),
        figure(few),
        figure(few, "final"),
        profile_figure(few),
        tasks_figure(few),
        splits_figure([compare(few), compare([dataclasses.replace(one, split="ood") for one in few])]),
    ):
        assert cut_off(made) == []
        sizes = [ax.get_window_extent() for ax in made.axes]
        assert min(min(size.width, size.height) for size in sizes) > 60  # pixels: words leave room for the plot


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_every_format_takes_every_name(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks
        assert len(render(lambda: figure([curve(name) for name in ODD]), kind)) > 1000


@given(st.lists(NAMES, max_size=6, unique=True))
def test_names_stay_distinct_and_short(names: list[str]) -> None:
    shown = readable(names)
    assert len(set(shown)) == len(shown)
    assert all(0 < len(name) <= LONGEST + 20 for name in shown)
    for name, short in zip(names, shown, strict=True):
        if name.isalnum() and len(name) <= 30:
            assert short == name


def test_letters_that_the_font_lacks_are_one_warning() -> None:
    with pytest.warns(UserWarning, match="the picture's font lacks 名前: there are boxes instead") as raised:
        render(lambda: figure([curve("名前"), curve("前")]), "png")
    assert len(raised) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "名前" in render(lambda: figure([curve("名前")]), "svg").decode()
