import numpy as np
import torch

from metarl.envs import make_family
from metarl.policies import mlp_policy
from metarl.rollout import rollout, run_episodes
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
