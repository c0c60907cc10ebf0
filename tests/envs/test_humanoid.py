"""The humanoid's direction family: literal reward, ends, tasks."""

import numpy as np
import pytest

from metarl.envs import make_family
from metarl.envs.mujoco.engine import Motion
from metarl.seeding import Key

HORIZONS = {"pearl": 200, "promp": 100, "varibad": 200}


def motion(velocity=(0.0, 0.0), height=1.4):
    qpos = np.zeros((1, 24))
    qpos[:, 2] = height
    action = np.zeros((1, 17))
    action[0, :2] = 1.0
    return Motion(qpos, np.zeros((1, 23)), np.array([velocity], dtype=float), action, 0.4 * action)


@pytest.mark.parametrize("preset", HORIZONS)
def test_reward_is_gymnasiums_along_the_angle(preset):
    family = make_family("metarl/HumanoidDirection2D-v0", preset)
    for angle, expected in ((0.0, 2.5), (np.pi / 2, 5.0), (np.pi, -2.5)):
        terms = family.terms({"angle": np.array([angle])}, motion((2.0, 4.0)))
        assert terms["reward_forward"][0] == pytest.approx(expected)
        assert terms["reward_ctrl"][0] == pytest.approx(-0.1 * 2 * 0.16)
        assert terms["reward_survive"][0] == 5.0
    assert family.horizon == HORIZONS[preset]


def test_it_falls_outside_one_to_two_metres():
    family = make_family("metarl/HumanoidDirection2D-v0")
    heights = (0.999, 1.0, 1.5, 2.0, 2.001)
    assert [bool(family.fallen(motion(height=z))[0]) for z in heights] == [True, False, False, False, True]


def test_directions_cover_the_circle_unless_a_sector_is_held_out():
    family = make_family("metarl/HumanoidDirection2D-v0")
    assert family.splits == ("train", "validation", "test")
    angles = family.sample(2000, Key(0).numpy()).arrays["angle"]
    assert 0 <= angles.min() < 0.02
    assert 2 * np.pi - 0.02 < angles.max() < 2 * np.pi
    assert "ood" in make_family("metarl/HumanoidDirection2D-v0", held_out=90.0).splits


def test_velocity_and_control_are_in_the_models_units():
    family = make_family("metarl/HumanoidDirection2D-v0")
    env = family.make_vec(family.fixed("test", 1), 2)
    env.reset(seed=0)
    before = env.qpos[:, :2].copy()
    *_, infos = env.step(np.ones((2, 17)))
    heading = np.array([np.cos(env.task["angle"][0]), np.sin(env.task["angle"][0])])
    np.testing.assert_allclose(infos["reward_forward"], 1.25 * (env.qpos[:, :2] - before) @ heading / 0.015, rtol=1e-9)
    np.testing.assert_allclose(infos["reward_ctrl"], -0.1 * 17 * 0.4**2)
