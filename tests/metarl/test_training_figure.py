from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.reporting.figures.training import POINTS, band, training_figure


def log(**metrics: list[float | None]) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; None where a line lacks a metric."""
    length = max(map(len, metrics.values()))
    lines = [{name: values[i] for name, values in metrics.items() if i < len(values)} for i in range(length)]
    return [{"iteration": i} | {n: v for n, v in line.items() if v is not None} for i, line in enumerate(lines)]


def test_a_band_by_hand() -> None:
    seeds = [log(r=[1.0, 2.0, None, 4.0]), log(r=[3.0, None, None, 0.0, 7.0])]
    x, mean, low, high = band(seeds, "r")
    assert x.tolist() == [0, 1, 3, 4]
    assert mean.tolist() == [2, 2, 2, 7]
    assert low.tolist() == [1, 2, 0, 7]
    assert high.tolist() == [3, 2, 4, 7]


def test_nothing_logged_and_numbers_that_are_none() -> None:
    assert all(len(part) == 0 for part in band([log(r=[1.0])], "other"))
    assert all(len(part) == 0 for part in band([[]], "r"))
    x, mean, *_ = band([log(r=[1.0, float("nan"), float("inf"), 4.0])], "r")
    assert (x.tolist(), mean.tolist()) == ([0, 3], [1, 4])


@given(
    seeds=st.lists(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=40), min_size=1, max_size=4),
    repeat=st.sampled_from([1, 20]),
)
@settings(max_examples=50, deadline=None)
def test_a_band_holds_its_mean_and_what_every_seed_did(seeds: list[list[float | None]], repeat: int) -> None:
    logs = [log(r=values * repeat) for values in seeds]
    x, mean, low, high = band(logs, "r")
    assert len(x) == len(mean) <= POINTS
    assert (np.diff(x) > 0).all()
    slack = 1e-6 * (1 + np.abs(mean))
    assert (low <= mean + slack).all()
    assert (mean <= high + slack).all()
    numbers = [value for values in seeds for value in values if value is not None]
    if numbers:
        assert low.min() >= min(numbers) - 1e-6 * (1 + abs(min(numbers)))
        assert high.max() <= max(numbers) + 1e-6 * (1 + abs(max(numbers)))
    if repeat == 1 and len(x):
        assert (low.min(), high.max()) == (min(numbers), max(numbers))


def test_a_panel_a_metric_and_a_band_an_agent() -> None:
    agents = {"a": [log(r=[0.0, 1.0]), log(r=[0.0, 3.0])], "b": [log(r=[5.0, 5.0], only=[1.0, 2.0])]}
    figure = training_figure(agents, ["r", "only"], large=True)
    first, second = figure.axes
    assert [len(ax.get_lines()) for ax in figure.axes] == [2, 1]
    assert first.get_lines()[0].get_ydata().tolist() == [0, 2]
    [shaded, _] = first.collections
    assert shaded.get_paths()[0].vertices[:, 1].max() == 3
    assert second.get_title(loc="left") == "only"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert not training_figure({"a": agents["a"]}, ["r"]).legends


def test_large_panels_are_larger() -> None:
    agents, metrics = {"a": [log(r=[0.0, 1.0])]}, ["r", "s", "t"]
    large, small = (training_figure(agents, metrics, large=size).get_size_inches() for size in (True, False))
    assert large[0] > small[0] / 3 * 2
    assert large[1] > 2 * small[1]  # two rows of two beside one row of three
