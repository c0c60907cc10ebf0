import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metarl.envs.chart import BLUE, SQUARE, Chart, bar_scale, round_numbers

numbers = st.floats(-1e6, 1e6)


@given(low=numbers, span=st.floats(1e-3, 1e6), most=st.integers(2, 9), whole=st.booleans())
def test_the_numbers_of_an_axis_are_round_and_lie_on_it(low, span, most, whole):
    high = low + span
    values = round_numbers(low, high, most, whole=whole)
    assert len(values) <= most
    slack = 1e-6 * max(abs(low), abs(high))
    assert all(low - slack <= value <= high + slack for value in values)
    if not whole:
        assert values, "an axis without a number says nothing"
    if len(values) > 1:
        steps = np.diff(values)
        power = 10.0 ** np.floor(np.log10(steps[0]) + 1e-9)
        assert np.allclose(steps, steps[0], rtol=1e-3)
        assert min(abs(steps[0] / power - k) for k in (1, 2, 5, 10)) < 1e-2
    if whole:
        assert all(value == round(value) for value in values)


def test_the_numbers_of_an_axis_by_hand():
    assert round_numbers(-0.6, 0.6, 7) == pytest.approx([-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6])
    assert round_numbers(0, 1.2, 3) == pytest.approx([0, 0.5, 1])
    assert round_numbers(-0.5, 1.5, 7, whole=True) == [0, 1]


def test_bars_have_room_for_their_numbers():
    assert bar_scale([0, 1, 0.5]) == pytest.approx((0, 1.2))
    assert bar_scale([-1, 1]) == pytest.approx((-1.4, 1.4))


def test_a_point_lies_where_the_axes_say():
    chart = Chart((-2, 2), (0, 10))
    left, top, right, bottom = SQUARE
    assert chart.at((-2, 0)) == (left, bottom)
    assert chart.at((2, 10)) == (right, top)
    chart.dot((1, 5), 6, BLUE)
    rows, columns = np.nonzero((chart.picture() == (0x1F, 0x77, 0xB4)).all(-1))
    assert (columns.mean(), rows.mean()) == pytest.approx((left + 225, top + 150), abs=1)


def ink(chart, box):
    """How many pixels of a part of the picture are not white."""
    left, top, right, bottom = box
    return int((chart.picture()[top:bottom, left:right] < 200).all(-1).sum())


def test_axes_have_names_and_numbers_outside_the_frame():
    chart = Chart((0, 1), (0, 1))
    left, _, right, bottom = SQUARE
    below, beside, above = (left, bottom + 6, right, bottom + 18), (0, 40, left - 5, bottom), (left, 0, right, 22)
    assert ink(chart, below) == ink(chart, beside) == ink(chart, above) == 0
    chart.axes("across", "up")
    assert min(ink(chart, below), ink(chart, beside), ink(chart, above)) > 20
    assert ink(chart, (left, bottom + 20, right, 360)) > 20  # the name
    bare = Chart((0, 1), (0, 1))
    bare.axes(numbers=False)
    assert ink(bare, below) == 0


@pytest.mark.parametrize(("x", "side"), [(0.1, 1), (0.95, -1)])
def test_a_label_stands_where_there_is_room(x, side):
    chart = Chart((0, 1), (0, 1))
    chart.label((x, 0.5), "goal")
    columns = np.nonzero((chart.picture() < 100).all(-1))[1]
    at = chart.at((x, 0.5))[0]
    assert ((columns - at) * side > 0).all()
    assert columns.max() < SQUARE[2]


def test_an_arrow_ends_before_its_point_and_one_between_neighbours_is_left_out():
    chart = Chart((0, 300), (0, 300))
    chart.arrow((0, 150), (300, 150), BLUE, 20)
    columns = np.nonzero((chart.picture() == (0x1F, 0x77, 0xB4)).all(-1))[1]
    assert (columns.min(), columns.max()) == pytest.approx((SQUARE[0] + 20, SQUARE[2] - 20), abs=2)
    short = Chart((0, 300), (0, 300))
    short.arrow((0, 150), (30, 150), BLUE, 20)
    assert (short.picture() == 255).all()
