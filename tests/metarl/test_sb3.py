"""The Stable-Baselines3 adapter: resets within the step, last observations, time limits."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from metarl.envs import make_family
from metarl.integrations.sb3_env import SB3VecEnv
from metarl.seeding import Key, keyed_globals


@pytest.fixture
def pair():
    """An adapter and a bare environment of the same ants, which fall at different times."""
    family = make_family("metarl/AntDirection-v0", "pearl")
    tasks = family.fixed("train", 2)
    return SB3VecEnv(family.make_vec(tasks, 3)), family.make_vec(tasks, 3)


def test_an_ended_row_begins_anew_within_the_step(pair):
    vec, env = pair
    vec.seed(7)
    np.testing.assert_array_equal(vec.reset(), env.reset(seed=7)[0])
    fell = cut = 0
    for k in range(230):
        actions = Key(0)(k).numpy().uniform(-1, 1, (6, 8)) * (np.arange(6) > 0)[:, None]  # row 0 keeps still
        obs, rewards, done, infos = vec.step(actions)
        last, reward, terminated, truncated, terms = env.step(actions)
        np.testing.assert_array_equal(done, terminated | truncated)
        np.testing.assert_array_equal(rewards, reward.astype(np.float32))
        for i, info in enumerate(infos):
            assert info["TimeLimit.truncated"] == truncated[i]
            assert ("terminal_observation" in info) == done[i]
            assert info["reward_forward"] == terms["reward_forward"][i]
            if done[i]:
                np.testing.assert_array_equal(info["terminal_observation"], last[i])
                assert (obs[i] != last[i]).any()
            else:
                np.testing.assert_array_equal(obs[i], last[i])
        fell, cut = fell + terminated.sum(), cut + truncated.sum()
        if done.any():
            np.testing.assert_array_equal(obs, env.reset(options={"reset_mask": done})[0])
    assert fell > 0
    assert cut > 0


def test_the_seed_holds_for_one_reset(pair):
    vec, _ = pair
    vec.seed(3)
    first = vec.reset()
    assert (vec.reset() != first).any()
    vec.seed(3)
    np.testing.assert_array_equal(vec.reset(), first)


def test_attributes_and_methods_are_the_environments(pair):
    vec, _ = pair
    assert vec.get_attr("replicas", [0, 4]) == [3, 3]
    assert vec.get_attr("render_mode") == [None] * 6
    assert not vec.has_attr("no_such_thing")
    assert vec.env_is_wrapped(VecMonitor) == [False] * 6
    assert vec.env_method("reset", seed=1, indices=0)[0][0].shape == (6, 27)
    vec.set_attr("note", "kept")
    assert vec.get_attr("note", 2) == ["kept"]


def test_pictures_are_tiled():
    family = make_family("metarl/Navigation2D-v0")
    vec = SB3VecEnv(family.make_vec(family.fixed("train", 4)), render_mode="rgb_array")
    vec.seed(0)
    vec.reset()
    assert vec.render().shape == (720, 960, 3)


def test_ppo_trains_on_it_and_the_monitor_sees_whole_episodes():
    family = make_family("metarl/Navigation2D-v0", "pearl")
    vec = VecMonitor(SB3VecEnv(family.make_vec(family.fixed("train", 4), 2)))
    model = PPO("MlpPolicy", vec, n_steps=40, batch_size=80, n_epochs=1, seed=0, device="cpu")
    model.learn(640)
    assert len(model.ep_info_buffer) == 32
    assert {info["l"] for info in model.ep_info_buffer} == {family.horizon}


@pytest.mark.parametrize("name", ["metarl/Navigation2D-v0", "metarl/AntGoal-v0"])
def test_in_a_mixture_every_episode_has_a_fresh_task_and_running_ones_keep_theirs(name):
    family = make_family(name)
    vec = SB3VecEnv(family.make_vec(family.fixed("train", 3)), mixture=True)
    seen = []
    for seed in (5, 5, 6):
        vec.seed(seed)
        vec.reset()
        tasks = [vec.env.tasks.arrays["goal"]]
        for k in range(2 * family.horizon):
            before = vec.env.tasks.arrays["goal"]
            actions = Key(seed)(k).numpy().uniform(-1, 1, (3, *family.action_space.shape))
            done = vec.step(actions)[2]
            after = vec.env.tasks.arrays["goal"]
            assert ((before != after).all(1) == done).all()
            tasks.append(after[done])
        seen.append(np.concatenate(tasks))
        assert len(np.unique(seen[-1], axis=0)) == len(seen[-1]) >= 9
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.isin(seen[2], seen[0]).any()


def test_in_a_mixture_a_rows_tasks_do_not_depend_on_the_others_ends():
    family = make_family("metarl/Navigation2D-v0")
    goals = []
    for others_end in (False, True):
        vec = SB3VecEnv(family.make_vec(family.fixed("train", 3)), mixture=True)
        vec.seed(0)
        vec.reset()
        for t in range(2 * family.horizon):
            if others_end and t in (3, 50):
                vec.env.elapsed[1:] = family.horizon - 1
            vec.step(np.zeros((3, 2)))
        goals.append(vec.env.tasks.arrays["goal"][0])
        assert vec.env.tasks.split == "train"
    np.testing.assert_array_equal(*goals)


def test_rows_that_share_a_task_are_no_mixture(pair):
    with pytest.raises(ValueError, match="one row a task, got 3 replicas"):
        SB3VecEnv(pair[1], mixture=True)


def test_lent_global_streams_are_keyed_and_returned():
    def draw():
        return np.random.random(), torch.rand(1).item()  # noqa: NPY002 - as Stable-Baselines3 does

    with keyed_globals(Key(1)):
        outer = draw()
        with keyed_globals(Key(2)):
            inner = draw()
        after = draw()
    with keyed_globals(Key(1)):
        assert draw() == outer
        assert draw() == after
    assert inner not in (outer, after)
