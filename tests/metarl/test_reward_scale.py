import numpy as np
import pytest
import torch

from metarl.ops.reward_scale import RewardScale


def test_reward_scale_is_the_deviation_of_the_discounted_return_so_far():
    rewards, valid = torch.tensor([[1.0, 2.0, 9.0], [0.0, 4.0, 4.0]]).double(), torch.ones(2, 3, dtype=torch.bool)
    valid[0, 2] = False
    so_far = [1, 2.5, 0, 4, 6]
    scale = RewardScale().update(rewards, valid, 0.5)
    assert scale.deviation == pytest.approx(np.std(so_far))
    assert scale.mean == pytest.approx(np.mean(so_far))
    both = scale.update(2 * rewards, valid, 0.5)
    assert both.deviation == pytest.approx(np.std(so_far + [2 * x for x in so_far]))
    assert RewardScale().deviation == 1
