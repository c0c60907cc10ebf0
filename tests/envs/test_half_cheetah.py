"""Half-cheetah families: literal rewards, tasks and horizons of every preset."""

import numpy as np
import pytest

from metarl.envs import make_family
from metarl.envs.mujoco.engine import Motion
from metarl.seeding import Key

PRESETS = {"maml2017": (2.0, 200), "promp": (3.0, 100), "pearl": (3.0, 200), "varibad": (3.0, 200)}


def motion(velocity, action):
    n = len(velocity)
    action = np.array(action, dtype=float)
    return Motion(np.zeros((n, 9)), np.zeros((n, 9)), np.array(velocity, dtype=float)[:, None], action, action)


@pytest.mark.parametrize("preset", PRESETS)
def test_velocity_reward_is_the_published_one(preset):
    family = make_family("metarl/HalfCheetahVelocity-v0", preset)
    action = [[0, 0, 0, 0, 0, 0], [1, -1, 1, -1, 1, -1], [0.5, 0, 0, 0, 0, -0.5]]
    terms = family.terms({"velocity": np.array([1.5, 1.5, 0.25])}, motion([1.5, -0.5, 1.0], action))
    assert list(terms) == ["reward_velocity", "reward_ctrl"]
    np.testing.assert_allclose(terms["reward_velocity"], [0, -2, -0.75], atol=1e-15)
    np.testing.assert_allclose(terms["reward_ctrl"], [0, -0.3, -0.025], atol=1e-15)


@pytest.mark.parametrize("preset", PRESETS)
def test_direction_reward_is_the_published_one(preset):
    family = make_family("metarl/HalfCheetahDirection-v0", preset)
    terms = family.terms({"direction": np.array([1.0, -1.0])}, motion([2.0, 2.0], [[0] * 6, [1, 1, 0, 0, 0, 0]]))
    np.testing.assert_allclose(terms["reward_forward"], [2, -2])
    np.testing.assert_allclose(terms["reward_ctrl"], [0, -0.1])


@pytest.mark.parametrize(("preset", "expected"), PRESETS.items())
def test_ranges_and_horizons(preset, expected):
    fastest, horizon = expected
    family = make_family("metarl/HalfCheetahVelocity-v0", preset)
    assert family.horizon == make_family("metarl/HalfCheetahDirection-v0", preset).horizon == horizon
    speeds = family.sample(2000, Key(0).numpy()).arrays["velocity"]
    assert 0 <= speeds.min() < 0.01
    assert 0.99 * fastest < speeds.max() < fastest
    assert speeds.mean() == pytest.approx(fastest / 2, rel=0.05)
    faster = family.sample(2000, Key(0).numpy(), "ood").arrays["velocity"]
    assert fastest <= faster.min()
    assert faster.max() <= fastest + 1


def test_there_are_two_directions_and_none_is_unseen():
    family = make_family("metarl/HalfCheetahDirection-v0")
    assert not family.unseen
    assert family.splits == ("train", "validation", "test")
    directions = family.fixed("test", 400).arrays["direction"]
    assert set(directions) == {-1.0, 1.0}
    assert abs(directions.sum()) < 80


@pytest.mark.parametrize("name", ["HalfCheetahDirection", "AntDirection"])
def test_the_directions_of_a_batch_come_in_opposite_pairs(name):
    family = make_family(f"metarl/{name}-v0")
    for n in (1, 2, 7):
        directions = np.stack([family.sample(n, Key(0)(i).numpy()).arrays["direction"] for i in range(400)])
        pairs = directions[:, : n // 2 * 2].reshape(400, -1, 2)
        np.testing.assert_array_equal(pairs.sum(-1), 0)
        assert (abs(directions.sum(0)) < 80).all()


def test_velocity_is_the_displacement_of_the_root_over_the_time_of_a_step():
    family = make_family("metarl/HalfCheetahDirection-v0")
    env = family.make_vec(family.fixed("test", 1), 3)
    env.reset(seed=0)
    direction = env.task["direction"]
    for k in range(5):
        before = env.qpos[:, 0].copy()
        action = Key(0)(k).numpy().uniform(-2, 2, (3, 6))
        _, rewards, _, _, infos = env.step(action)
        velocity = (env.qpos[:, 0] - before) / 0.05
        cost = 0.05 * (np.clip(action, -1, 1) ** 2).sum(1)
        np.testing.assert_allclose(infos["reward_forward"], direction * velocity, rtol=1e-12)
        np.testing.assert_allclose(rewards, direction * velocity - cost, rtol=1e-12)


def test_the_observation_is_the_state_without_x():
    family = make_family("metarl/HalfCheetahVelocity-v0")
    env = family.make_vec(family.fixed("test", 2), 1)
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(obs, np.concatenate([env.qpos[:, 1:], env.qvel], axis=1))
