"""Advantages and weights of a policy gradient, and its loss."""

from dataclasses import replace

import pytest
import torch

from metarl.envs import make_family
from metarl.learning import policy_gradient
from metarl.nets.policies import mlp_policy
from metarl.ops import baselines, returns
from metarl.sampling.rollout import rollout
from metarl.seeding import Key

FAMILY = make_family("metarl/Navigation2D-v0")


def test_advantages_are_normalised_a_task_at_a_time_and_steps_weigh_alike():
    """Rewards of 1 and 3 in one task, of 100 and 700 in the other; the second has one step less."""
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (5,))
    episodes = rollout(FAMILY.make_vec(FAMILY.fixed("train", 2), 3), policy, policy.init(Key(0).torch()), Key(0))
    valid = episodes.valid.clone()
    valid[1, 0, 50:] = False
    experience = policy_gradient.prepare(replace(episodes, valid=valid), 0.99, 0.95)
    for task in range(2):
        kept = experience.advantages[task][valid[task]]
        assert float(kept.mean()) == pytest.approx(0, abs=1e-5)
        assert float(kept.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
        assert experience.weights[task][valid[task]].tolist() == pytest.approx([1 / len(kept)] * len(kept))
    rewards = episodes.rewards.double()
    targets = returns.discounted_returns(rewards, valid, 0.99)
    values = baselines.fit_linear_baseline(episodes.obs, targets, valid)
    expected = returns.gae(rewards, values, valid, 0.99, 0.95)
    expected = returns.normalise(expected, valid, (1, 2))
    torch.testing.assert_close(experience.advantages.double(), expected, atol=1e-6, rtol=1e-5)


def test_weights_and_advantages_leave_padding_out():
    env = FAMILY.make_vec(FAMILY.fixed("train", 2), 3)
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (5,))
    episodes = rollout(env, policy, policy.init(Key(0).torch()), Key(0))
    valid = episodes.valid.clone()
    valid[:, 0, 50:] = False
    experience = policy_gradient.prepare(replace(episodes, valid=valid), 0.99, 1.0)
    assert not experience.advantages[~valid].any()
    torch.testing.assert_close(experience.weights.sum((1, 2)), torch.ones(2))
