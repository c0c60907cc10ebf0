import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metarl.envs.episode_noise import EpisodeNoise, renewed
from metarl.seeding import Key
from metarl.tasks import Tasks


def tasks(n: int, split: str = "train") -> Tasks:
    return Tasks({"number": np.arange(n)}, split=split)


@given(
    rows=st.lists(st.integers(0, 39), min_size=1, max_size=20, unique=True),
    name=st.sampled_from(["uniform", "normal", "bits"]),
    size=st.integers(1, 9),
    replicas=st.integers(1, 4),
)
def test_a_column_depends_on_its_place_alone(rows, name, size, replicas):
    whole = getattr(EpisodeNoise(Key(3), tasks(40), replicas), name)(5, size).reshape(size, 40, replicas)
    part = getattr(EpisodeNoise(Key(3), tasks(40)[rows], replicas), name)(5, size).reshape(size, len(rows), replicas)
    assert np.array_equal(part, whole[:, rows])


@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_every_key_split_place_replica_and_episode_has_numbers_of_its_own(name):
    blocks = [
        getattr(EpisodeNoise(Key(seed), tasks(40, split), 3), name)(episode, 7)
        for seed, split, episode in [(3, "train", 5), (4, "train", 5), (3, "test", 5), (3, "train", 6)]
    ]
    assert blocks[0].shape == (7, 120)
    assert len(np.unique(blocks)) > 0.9999 * 4 * 7 * 120
    assert np.array_equal(getattr(EpisodeNoise(Key(3), tasks(40), 3), name)(5, 7), blocks[0])


def test_uniform_numbers_are_uniform():
    u = EpisodeNoise(Key(0), tasks(20_000), 1).uniform(0, 5)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = .001


def test_normal_numbers_are_normal_and_independent():
    z = EpisodeNoise(Key(0), tasks(20_000), 1).normal(0, 5).astype(np.float64)
    n = z.size
    assert abs(z.mean()) < 3.3 / np.sqrt(n)
    assert abs(z.var() - 1) < 3.3 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 3.3 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 3.3 * np.sqrt(96 / n)
    assert np.abs(np.corrcoef(z) - np.eye(5)).max() < 4 / np.sqrt(20_000)


@pytest.mark.parametrize("value", [0, 2**32 - 1])
def test_the_extreme_bits_give_finite_normals(value, monkeypatch):
    monkeypatch.setattr(EpisodeNoise, "bits", lambda self, episode, size: np.full((size, 2), value, np.uint32))
    assert np.isfinite(EpisodeNoise(Key(0), tasks(2), 1).normal(0, 3)).all()


def test_a_row_that_begins_later_reads_its_block_from_the_beginning():
    held = np.arange(12.0).reshape(4, 3)
    mask, episodes = np.array([False, True, True]), np.array([0, 1, 2])
    block, clock = renewed(held, 3, mask, episodes, lambda episode: 100.0 * episode + np.arange(12).reshape(4, 3))
    assert clock == 3
    read = [block[(clock + t) % 4].tolist() for t in range(4)]
    assert read == [[9, 101, 202], [0, 104, 205], [3, 107, 208], [6, 110, 211]]
    assert held[0].tolist() == [0, 1, 2]
    assert renewed(held, 3, np.ones(3, bool), np.zeros(3, int), lambda episode: -held)[1] == 0
