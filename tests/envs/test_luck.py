import numpy as np
import pytest

from metarl.envs.luck import Luck
from metarl.seeding import Key


@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_a_column_depends_on_its_place_and_reset_but_not_on_those_after_it(name):
    draw = getattr(Luck(Key(3)), name)
    block = draw(5, 7, 40)
    assert block.shape == (7, 40)
    assert np.array_equal(draw(5, 7, 13), block[:, :13])
    assert not np.isin(draw(6, 7, 40), block).any()
    assert not np.isin(getattr(Luck(Key(4)), name)(5, 7, 40), block).any()
    assert np.array_equal(draw(5, 7, 40), block)


def test_uniform_numbers_are_uniform():
    u = Luck(Key(0)).uniform(0, 5, 20_000)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = .001


def test_normal_numbers_are_normal_and_independent():
    z = Luck(Key(0)).normal(0, 5, 20_000).astype(np.float64)
    n = z.size
    assert abs(z.mean()) < 3.3 / np.sqrt(n)
    assert abs(z.var() - 1) < 3.3 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 3.3 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 3.3 * np.sqrt(96 / n)
    assert np.abs(np.corrcoef(z) - np.eye(5)).max() < 4 / np.sqrt(20_000)


@pytest.mark.parametrize("value", [0, 2**32 - 1])
def test_the_extreme_bits_give_finite_normals(value, monkeypatch):
    monkeypatch.setattr(Luck, "bits", lambda self, reset, size, rows: np.full((size, rows), value, np.uint32))
    assert np.isfinite(Luck(Key(0)).normal(0, 3, 2)).all()
