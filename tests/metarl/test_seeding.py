"""Keyed streams: literals, so that no stream can change unnoticed, and independence of what ran before."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.seeding import Key, Rows

PARTS = st.one_of(st.integers(-(2**40), 2**40), st.text(max_size=5))


def test_literals():
    key = Key(0)("x")
    assert key.digest().hex() == "faeac6664ead155eb91f22cd0758eebb"
    assert key.integer() == 3389757683159758205
    assert key.uniform((3,)).tolist() == [0.4474774304608605, 0.013388054212352785, 0.229184529598623]
    assert key.numpy().random(2).tolist() == [0.4474774304608605, 0.013388054212352785]
    assert Key(7)("support", 3, "task", 1).uniform((2,)).tolist() == [0.5027941571986073, 0.7114719558101202]
    assert torch.rand(2, generator=key.torch(), dtype=torch.float64).tolist() == [
        0.24205274035788782,
        0.5663487916652925,
    ]


def test_uniform_is_the_philox_stream_scaled():
    raw = Key(3)("bits").philox().random_raw(4)
    expected = np.array([int(r) >> 11 for r in raw]) / 2.0**53
    np.testing.assert_array_equal(Key(3)("bits").uniform((2, 2)), expected.reshape(2, 2))
    np.testing.assert_array_equal(Key(3)("bits").numpy().random(4), expected)


def test_uniforms_goes_on_where_uniform_starts_again():
    key = Key(1)("stream")
    draw = key.uniforms()
    np.testing.assert_array_equal(np.concatenate([draw((2,)), draw((3,))]), key.uniform((5,)))
    np.testing.assert_array_equal(key.uniform((2,)), key.uniform((2,)))
    assert draw(()).shape == ()


def test_a_stream_does_not_depend_on_what_was_drawn_before():
    expected = Key(5)("a", 2).uniform((4,))
    Key(5)("a", 1).numpy().random(100)
    Key(5)("a", 2).numpy().random(100)
    torch.rand(3)
    np.testing.assert_array_equal(Key(5)("a", 2).uniform((4,)), expected)


def test_calls_compose():
    assert Key(1)("a")(2, "b") == Key(1)("a", 2, "b") == Key(1, ("a", 2, "b"))


@given(st.lists(PARTS, max_size=4), st.lists(PARTS, max_size=4), st.integers(0, 3), st.integers(0, 3))
def test_different_paths_are_different_streams(one, other, seed, seed_):
    same = (seed, one) == (seed_, other) and [type(p) for p in one] == [type(p) for p in other]
    assert (Key(seed)(*one).digest() == Key(seed_)(*other).digest()) == same


@pytest.mark.parametrize(
    ("one", "other"), [((1,), ("1",)), (("ab",), ("a", "b")), ((1, 2), (12,)), ((), ("",)), (("a\x1fsb",), ("a", "b"))]
)
def test_look_alikes_are_different_streams(one, other):
    assert Key(0)(*one).digest() != Key(0)(*other).digest()


def test_numpy_integers_and_negative_seeds_name_streams_too():
    assert Key(0)(np.int64(3)).digest() == Key(0)(3).digest()
    assert Key(np.int64(4)).digest() == Key(4).digest()
    assert Key(-1).digest() != Key(1).digest()


def test_integers_fit_every_library():
    values = [Key(0)(i).integer() for i in range(200)]
    assert all(0 <= value < 2**63 for value in values)
    assert len(set(values)) == 200
    assert max(values) > 2**62


def test_streams_are_equal_in_another_process():
    code = "from metarl.seeding import Key; print(Key(0)('x').digest().hex())"
    env = {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == Key(0)("x").digest().hex()


def test_uniform_numbers_look_uniform():
    u = Key(0)("many").uniform((20_000,))
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(u))
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-square, 19 degrees of freedom: p < .001 above 43.8


@given(st.lists(st.integers(0, 2**62), max_size=8))
def test_a_place_of_a_stream_depends_on_the_key_and_the_place_alone(places):
    alone = [next(Key(3)("x").at([place])).random(5).tolist() for place in places]
    assert [rng.random(5).tolist() for rng in Key(3)("x").at(places)] == alone
    assert len({tuple(numbers) for numbers in alone}) == len(set(places))


def test_places_do_not_overlap_and_the_first_begins_the_stream():
    first, second = (rng.random(100_000) for rng in Key(3)("x").at([0, 1]))
    assert np.array_equal(first, Key(3)("x").numpy().random(100_000))
    assert len(np.unique([first, second])) == 200_000


def test_rows_are_drawn_for_each_task_from_its_own_generator():
    def draws(*names):
        rows = Rows([Key(0)(name).numpy() for name in names], 2)
        size = (2 * len(names), 3)
        shape = 1.0 + np.arange(6.0).reshape(2, 3)
        shapes = np.concatenate([shape] * len(names))
        parts = (
            rows.random(size),
            rows.standard_normal(size),
            rows.beta(shapes, shapes + 1),
            rows.standard_gamma(shapes),
        )
        return np.stack(parts, axis=1)

    own = Key(0)("b").numpy()
    shape = 1.0 + np.arange(6.0).reshape(2, 3)
    expected = [own.random((2, 3)), own.standard_normal((2, 3)), own.beta(shape, shape + 1), own.standard_gamma(shape)]
    assert np.array_equal(draws("a", "b")[2:], np.stack(expected, axis=1))
    assert np.array_equal(draws("b"), draws("a", "b")[2:])
    assert len(np.unique(draws("a", "b"))) == 4 * 4 * 3
