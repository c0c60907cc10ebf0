"""Support and query data of a batch of tasks."""

import numpy as np
import pytest
import torch

from metarl.envs import make_family
from metarl.learning import policy_gradient
from metarl.learning.meta_batch import adapt_to_tasks
from metarl.meta import inner
from metarl.nets.policies import mlp_policy
from metarl.sampling.rollout import rollout
from metarl.seeding import Key

FAMILY = make_family("metarl/Navigation2D-v0")


def test_episodes_do_not_depend_on_threads():
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (64, 64))
    params = inner.stack(policy.init(Key(0).torch()), 8)
    params = {n: v + 0.1 * torch.randn(v.shape, generator=Key(1).torch()) for n, v in params.items()}
    env = FAMILY.make_vec(FAMILY.fixed("train", 8), 20)
    one, two = (rollout(env, policy, params, Key(2), threads=n) for n in (1, 2))
    assert torch.equal(one.obs, two.obs)
    assert torch.equal(one.actions, two.actions)


def test_tasks_do_not_see_one_another():
    """Task t's episodes and adapted parameters are the same whatever the other tasks are."""
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (5,))
    params, rule = policy.init(Key(0).torch()), inner.Rule(0.1)
    a, b = FAMILY.fixed("train", 2), FAMILY.fixed("validation", 2)
    mixed = type(a)({"goal": np.stack([a.arrays["goal"][0], b.arrays["goal"][1]])}, split="train")
    first, second = (
        adapt_to_tasks(FAMILY.make_vec(tasks, 4), policy, params, rule, Key(3), 0.99, 1.0) for tasks in (a, mixed)
    )
    assert torch.equal(first.query.episodes.actions[0], second.query.episodes.actions[0])
    assert not torch.equal(first.query.episodes.actions[1], second.query.episodes.actions[1])


def gathered(steps=2, tasks=3):
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (5,))
    params, rule = policy.init(Key(0).torch()), inner.Rule(0.1, steps, project=policy.project)
    env = FAMILY.make_vec(FAMILY.fixed("train", tasks), 4)
    return policy, params, rule, adapt_to_tasks(env, policy, params, rule, Key(1), 0.99, 1.0)


def test_the_iterates_come_back_from_the_stored_data():
    policy, params, rule, data = gathered()
    iterates = data.readapt(params, lambda now, k: policy_gradient.loss(policy, now, data.support[k]), rule)
    assert len(iterates) == len(data.iterates) == len(data.support) + 1 == 3
    for again, once in zip(iterates, data.iterates, strict=True):
        for name, value in once.items():
            torch.testing.assert_close(again[name], value)
    assert not torch.equal(data.iterates[1]["0.weight"], data.iterates[2]["0.weight"])


def test_shards_are_the_tasks_in_their_order():
    _, _, _, data = gathered()
    shards = data.shards()
    assert [len(shard) for shard in shards] == [2, 1]
    for k, whole in enumerate(data.experience):
        joined = torch.cat([shard.experience[k].advantages for shard in shards])
        assert torch.equal(joined, whole.advantages)
        assert torch.equal(torch.cat([shard.experience[k].episodes.obs for shard in shards]), whole.episodes.obs)
    for k, iterate in enumerate(data.iterates):
        assert torch.equal(torch.cat([shard.iterates[k]["1.bias"] for shard in shards]), iterate["1.bias"])


@pytest.mark.parametrize(("fraction", "steps"), [(1.0, range(100)), (0.04, (0, 25, 50, 75)), (0.03, (0, 33, 66))])
def test_thinned_data_are_steps_at_even_distances_with_weights_that_sum_to_one(fraction, steps):
    _, _, _, data = gathered()
    for thin, whole in zip(data.thinned(fraction).experience, data.experience, strict=True):
        assert torch.equal(thin.advantages, whole.advantages[:, :, list(steps)])
        assert torch.equal(thin.episodes.obs, whole.episodes.obs[:, :, list(steps)])
        torch.testing.assert_close(thin.weights.sum((1, 2)), torch.ones(3))


def test_thinned_data_keep_a_step_of_every_episode():
    _, _, _, data = gathered()
    assert torch.equal(data.thinned(1e-6).query.advantages, data.query.advantages[:, :, :1])


def test_the_data_are_counted():
    _, _, _, data = gathered()
    metrics = data.metrics()
    assert metrics["episodes/steps"] == sum(int(part.episodes.lengths().sum()) for part in data.experience)
    assert len(data.experience) == 3
    assert metrics["return/before"] == float(data.support[0].episodes.returns().mean())
    assert metrics["return/after"] == float(data.query.episodes.returns().mean())
