"""Ant families: literal rewards, ends, tasks and horizons of every preset."""

import numpy as np
import pytest

from metarl.envs import make_family
from metarl.envs.mujoco.engine import Motion
from metarl.seeding import Key

# survival, control cost of the action (1, 1, 0, ...), lowest height, horizon
RUNNING = {"maml2017": (0.05, 0.01, 0.2, 200), "promp": (1.0, 1.0, 0.0, 100)}
RUNNING |= {"pearl": (1.0, 1.0, 0.2, 200), "varibad": (1.0, 1.0, 0.2, 200)}
ACTION = [1, 1, 0, 0, 0, 0, 0, 0]


def motion(velocity=((0.0, 0.0),), position=((0.0, 0.0),), height=0.5, action=ACTION):
    velocity, position = np.array(velocity, dtype=float), np.array(position, dtype=float)
    n = max(len(velocity), len(position))
    qpos = np.zeros((n, 15))
    qpos[:, :2], qpos[:, 2] = position, height
    actions = np.tile(np.array(action, dtype=float), (n, 1))
    return Motion(qpos, np.zeros((n, 14)), np.broadcast_to(velocity, (n, 2)), actions, actions)


def one(**task):
    return {name: np.array([value], dtype=float) for name, value in task.items()}


def test_velocity_reward():
    family = make_family("metarl/AntVelocity-v0")
    terms = family.terms(one(velocity=2.0), motion([[0.5, 9.0]]))
    assert {name: values.tolist() for name, values in terms.items()} == {
        "reward_velocity": [-0.5],
        "reward_ctrl": [-0.01],
        "reward_survive": [0.05],
    }
    assert family.horizon == 200
    assert family.sample(500, Key(0).numpy()).arrays["velocity"].max() == pytest.approx(3, abs=0.05)
    assert family.sample(500, Key(0).numpy(), "ood").arrays["velocity"].min() >= 3


@pytest.mark.parametrize(("preset", "expected"), RUNNING.items())
def test_direction_reward(preset, expected):
    survive, cost, lowest, horizon = expected
    family = make_family("metarl/AntDirection-v0", preset)
    for direction in (1.0, -1.0):
        terms = family.terms(one(direction=direction), motion([[2.0, 5.0]]))
        assert terms["reward_forward"].tolist() == [2.0 * direction]
        np.testing.assert_allclose(terms["reward_ctrl"], [-cost])
        assert terms["reward_survive"].tolist() == [survive]
    assert family.horizon == horizon
    heights = np.array([lowest - 1e-6, lowest, 0.5, 1.0, 1.0 + 1e-6])
    assert [bool(family.fallen(motion(height=z))[0]) for z in heights] == [True, False, False, False, True]
    assert not family.unseen


@pytest.mark.parametrize("preset", ["promp", "pearl"])
def test_direction_2d_reward_takes_the_cosine_and_sine_of_an_angle(preset):
    family = make_family("metarl/AntDirection2D-v0", preset)
    for angle, expected in ((0.0, 2.0), (np.pi / 2, 5.0), (np.pi, -2.0), (np.pi / 6, 2 * 0.75**0.5 + 2.5)):
        terms = family.terms(one(angle=angle), motion([[2.0, 5.0]]))
        assert terms["reward_forward"][0] == pytest.approx(expected)
        assert terms["reward_survive"][0] == RUNNING[preset][0]
        assert terms["reward_ctrl"][0] == pytest.approx(-RUNNING[preset][1])


def test_angles_cover_the_circle_and_a_sector_can_be_held_out():
    family = make_family("metarl/AntDirection2D-v0")
    assert "ood" not in family.splits
    angles = family.sample(4000, Key(0).numpy()).arrays["angle"]
    counts, _ = np.histogram(angles, bins=8, range=(0, 2 * np.pi))
    assert counts.sum() == 4000
    assert counts.min() > 400
    held_out = make_family("metarl/AntDirection2D-v0", held_out=60.0)
    assert held_out.splits == ("train", "validation", "test", "ood")
    for split in ("train", "validation", "test"):
        degrees = np.rad2deg(held_out.sample(2000, Key(0).numpy(), split).arrays["angle"])
        assert np.abs(degrees - 180).min() >= 30
        assert np.abs(degrees - 180).min() < 31
        assert degrees.min() < 1
        assert degrees.max() > 359
    assert np.abs(np.rad2deg(held_out.fixed("ood", 100).arrays["angle"]) - 180).max() <= 30
    with pytest.raises(ValueError, match="at least 0 and less than 360; got 360"):
        make_family("metarl/AntDirection2D-v0", held_out=360.0)


def test_goal_reward_of_maml2017():
    family = make_family("metarl/AntGoal-v0")
    terms = family.terms(one(goal=[1.0, -2.0]), motion(position=[[0.5, 1.0]]))
    assert terms["reward_goal"].tolist() == [4 - 3.5]
    assert terms["reward_ctrl"].tolist() == [-0.01]
    assert terms["reward_survive"].tolist() == [0.05]
    assert family.fallen(motion(height=0.1)).tolist() == [True]
    goals = family.sample(2000, Key(0).numpy()).arrays["goal"]
    assert np.abs(goals).max() <= 3
    assert np.hypot(*goals.T).max() > 3.5
    farther = np.hypot(*family.sample(500, Key(0).numpy(), "ood").arrays["goal"].T)
    assert farther.min() > 3 * 2**0.5


@pytest.mark.parametrize("preset", ["promp", "pearl", "varibad"])
def test_goal_reward_of_the_others(preset):
    family = make_family("metarl/AntGoal-v0", preset)
    terms = family.terms(one(goal=[1.0, -2.0]), motion(position=[[0.5, 1.0]]))
    assert terms["reward_goal"].tolist() == [-3.5]
    np.testing.assert_allclose(terms["reward_ctrl"], [-0.2])
    assert terms["reward_survive"].tolist() == [0.0]
    assert family.fallen(motion(height=-5.0)).tolist() == [False]
    distance = np.hypot(*family.sample(4000, Key(0).numpy()).arrays["goal"].T)
    assert 2.95 < distance.max() <= 3
    assert (distance < 1.5).mean() == pytest.approx(0.25, abs=0.03)  # uniform in the disc's area
    assert np.hypot(*family.sample(500, Key(0).numpy(), "ood").arrays["goal"].T).min() >= 3.5


def test_goal_families_observe_the_position_and_the_others_do_not():
    for name, hidden in (("AntGoal", 0), ("AntVelocity", 2)):
        family = make_family(f"metarl/{name}-v0")
        env = family.make_vec(family.fixed("test", 2), 1)
        obs, _ = env.reset(seed=0)
        np.testing.assert_array_equal(obs, np.concatenate([env.qpos[:, hidden:], env.qvel], axis=1))
