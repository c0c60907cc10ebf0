import dataclasses

import numpy as np
import pytest
import torch

from metarl.envs import make_family
from metarl.meta.inner import stack
from metarl.nets.policies import mlp_policy
from metarl.sampling.blocks import Blocks
from metarl.sampling.rollout import rollout, run_episodes
from metarl.seeding import Key

FAMILY = make_family("metarl/Navigation2D-v0")


def test_a_controller_that_goes_straight_to_the_goal_is_recorded_step_by_step():
    tasks = type(FAMILY.fixed("train", 1))({"goal": [[0.25, 0.0], [0.5, 0.0]]})
    act = FAMILY.optimal_policy(tasks)
    env = FAMILY.make_vec(tasks, 1)
    episodes = run_episodes(env, lambda obs, t: torch.from_numpy(act(obs.numpy().astype(float))).float(), Key(0))
    assert episodes.lengths().flatten().tolist() == [3, 5]
    np.testing.assert_allclose(episodes.obs[0, 0, :4, 0], [0.0, 0.1, 0.2, 0.0], atol=1e-6)  # the last is padding
    np.testing.assert_allclose(episodes.returns().flatten(), [-0.15 - 0.05, -0.4 - 0.3 - 0.2 - 0.1], atol=1e-6)
    assert episodes.terminated[0, 0].nonzero().tolist() == [[2]]
    assert not episodes.truncated.any()
    assert not episodes.actions[0, 0, 3:].any()


def test_time_runs_out_once_at_the_horizon():
    env = FAMILY.make_vec(FAMILY.fixed("train", 2), 3)
    episodes = run_episodes(env, lambda obs, t: torch.zeros(2, 3, 2), Key(0))
    assert episodes.truncated.sum(-1).eq(1).all()
    assert episodes.truncated[..., -1].all()
    assert episodes.valid.all()


def test_every_task_and_episode_has_noise_of_its_own():
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (4,))
    params = policy.init(Key(0).torch())
    first = (
        rollout(FAMILY.make_vec(FAMILY.fixed("train", 3), 4), policy, params, Key(1)).actions[:, :, 0].reshape(12, 2)
    )
    assert len(first.unique(dim=0)) == 12
    alone = rollout(FAMILY.make_vec(FAMILY.fixed("train", 1), 4), policy, params, Key(1)).actions[:, :, 0]
    torch.testing.assert_close(alone[0], first[:4])  # and it does not depend on the other tasks


@pytest.mark.parametrize("name", ["HalfCheetahVelocity", "HopperRandomParams"])  # hoppers fall, at various times
def test_blocks_of_tasks_on_threads_of_their_own_act_out_the_same_episodes(name):
    family = make_family(f"metarl/{name}-v0")
    policy = mlp_policy(family.observation_space, family.action_space, (8,))
    params = {key: value.clone() for key, value in stack(policy.init(Key(0).torch()), 5).items()}
    params["1.bias"] += torch.linspace(-1, 1, 5).unsqueeze(1)  # a policy for each task
    first, then = family.fixed("train", 10)[:5], family.fixed("train", 10)[5:]
    whole = family.make_vec(then, 3)
    whole.reset(options={"tasks": then})
    expected = [rollout(whole, policy, params, Key(i)) for i in range(2)]
    assert name != "HopperRandomParams" or expected[0].lengths().unique().numel() > 5
    for threads in (1, 2, 3):
        env = Blocks(family, first, 3, threads)
        assert len(env.parts) == threads
        env.assign(then)
        assert env.tasks == then
        for i, episodes in enumerate(expected):
            found = rollout(env, policy, params, Key(i))
            for field in dataclasses.fields(episodes):
                assert torch.equal(getattr(found, field.name), getattr(episodes, field.name)), (threads, field.name)
        env.close()


def test_there_is_one_block_where_threads_would_not_help():
    cheetah = make_family("metarl/HalfCheetahVelocity-v0")
    assert len(Blocks(FAMILY, FAMILY.fixed("train", 4), 2, 2).parts) == 1  # NumPy steps hold the interpreter
    assert len(Blocks(cheetah, cheetah.fixed("train", 1), 2, 2).parts) == 1  # a task is not divided
