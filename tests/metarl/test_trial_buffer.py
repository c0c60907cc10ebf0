"""The trials that a learner keeps, and the moments of what it saw."""

import numpy as np
import pytest
import torch

from metarl.learning.trial_buffer import TrialBuffer
from metarl.ops.running_moments import LEAST, RunningMoments
from metarl.seeding import Key


def trials(*marks, horizon=2):
    """Trials that are told apart by the number they hold."""
    obs = torch.tensor(marks, dtype=torch.float32)[None, :, None].expand(horizon, -1, 3).clone()
    return obs, torch.ones(horizon, len(marks), dtype=torch.bool)


def marks(obs):
    assert (obs == obs[:1, :, :1]).all()
    return sorted(obs[0, :, 0].tolist())


def test_the_oldest_are_replaced():
    buffer = TrialBuffer(3, 2, 3)
    sizes = []
    for update in range(4):
        buffer.add(*trials(update), 1, Key(0))
        sizes.append(len(buffer))
    assert sizes == [1, 2, 3, 3]
    assert marks(buffer.obs) == [1, 2, 3]


def test_some_trials_of_an_update_are_kept_whole_and_others_by_another_key():
    kept = []
    for seed in range(6):
        buffer = TrialBuffer(8, 2, 3)
        obs, valid = trials(*range(1, 21))
        valid[1, 4] = False
        buffer.add(obs, valid, 3, Key(seed))
        assert len(buffer) == len(set(marks(buffer.obs[:, :3]))) == 3
        assert ((buffer.obs[0, :, 0] != 5) == buffer.valid[1])[:3].all()
        kept.append(marks(buffer.obs[:, :3]))
    assert len(set(map(tuple, kept))) > 3
    buffer.add(*trials(7, 8), 5, Key(0))
    assert len(buffer) == 5  # fewer than asked for, so all


def test_fresh_trials_and_those_kept_are_drawn_alike():
    buffer, (obs, valid) = TrialBuffer(10, 2, 3), trials(1, 2, 3)
    buffer.add(*trials(10, 20), 2, Key(0))
    drawn = [marks(buffer.draw(obs, valid, 2, np.random.default_rng(i))[0]) for i in range(400)]
    shares = np.bincount(np.array(drawn, int).ravel(), minlength=21)[[1, 2, 3, 10, 20]] / 400
    assert shares == pytest.approx([0.4] * 5, abs=0.1)
    assert marks(buffer.draw(obs, valid, 9, np.random.default_rng(0))[0]) == [1, 2, 3, 10, 20]


def test_a_buffer_of_none_keeps_none():
    buffer = TrialBuffer(0, 2, 3)
    buffer.add(*trials(1, 2), 0, Key(0))
    assert (len(buffer), buffer.added) == (0, 0)
    assert marks(buffer.draw(*trials(1, 2), 5, np.random.default_rng(0))[0]) == [1, 2]


def test_moments_are_those_of_all_vectors():
    values = torch.randn(50, 3, generator=Key(0).torch(), dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.0]) + 2
    moments = RunningMoments.none(3)
    assert moments.deviation.tolist() == [LEAST**0.5] * 3
    for part in values.split([1, 30, 19]):
        moments = moments.update(part)
    torch.testing.assert_close(moments.mean, values.mean(0))
    torch.testing.assert_close(moments.deviation, (values.var(0, unbiased=False) + LEAST).sqrt())
    assert (moments.count, moments.mean.dtype) == (50, torch.float64)
