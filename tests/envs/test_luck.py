import numpy as np
import pytest

from metarl.envs import luck
from metarl.seeding import Key


@pytest.mark.parametrize("draw", [luck.uniform, luck.normal])
def test_a_row_depends_on_its_place_and_reset_but_not_on_the_rows_after_it(draw):
    key = Key(3)("luck")
    block = draw(key, 5, 40, 7)
    assert block.shape == (40, 7)
    assert np.array_equal(draw(key, 5, 13, 7), block[:13])
    assert not np.isin(draw(key, 6, 40, 7), block).any()
    assert not np.isin(draw(Key(4)("luck"), 5, 40, 7), block).any()


def test_uniform_numbers_are_uniform():
    u = luck.uniform(Key(0), 0, 20_000, 5)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = .001


def test_normal_numbers_are_normal_and_independent():
    z = luck.normal(Key(0), 0, 20_000, 5).astype(np.float64)
    n = z.size
    assert abs(z.mean()) < 3.3 / np.sqrt(n)
    assert abs(z.var() - 1) < 3.3 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 3.3 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 3.3 * np.sqrt(96 / n)
    assert np.abs(np.corrcoef(z, rowvar=False) - np.eye(5)).max() < 4 / np.sqrt(20_000)


def test_the_extreme_bits_give_finite_normals(monkeypatch):
    for value in (0, 2**32 - 1):
        monkeypatch.setattr(luck, "bits", lambda k, r, n, s, v=value: np.full((n, s), v, np.uint32))
        assert np.isfinite(luck.normal(Key(0), 0, 2, 3)).all()
