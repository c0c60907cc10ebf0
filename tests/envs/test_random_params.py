"""Walkers and hoppers with changed dynamics: factors, fields, rewards, ends."""

import mujoco
import numpy as np
import pytest

from metarl.envs import make_family
from metarl.envs.mujoco.engine import Motion
from metarl.envs.mujoco.robots import load_model
from metarl.seeding import Key

NAMES = ["metarl/WalkerRandomParams-v0", "metarl/HopperRandomParams-v0"]


@pytest.fixture(params=NAMES)
def family(request):
    return make_family(request.param)


def motion(family, velocity=0.0, height=1.25, lean=0.0, fastest=0.0):
    nq, nv, nu = family.robot.sizes
    qpos, qvel = np.zeros((1, nq)), np.zeros((1, nv))
    qpos[0, 1], qpos[0, 2], qvel[0, -1] = height, lean, fastest
    action = np.full((1, nu), 0.5)
    return Motion(qpos, qvel, np.array([[velocity]]), action, action)


def test_reward(family):
    terms = family.terms({}, motion(family, velocity=1.5))
    assert terms["reward_forward"].tolist() == [1.5]
    assert terms["reward_survive"].tolist() == [1.0]
    np.testing.assert_allclose(terms["reward_ctrl"], [-0.001 * 0.25 * family.robot.sizes[2]])
    assert family.horizon == 200


@pytest.mark.parametrize(
    ("name", "case", "over"),
    [
        (NAMES[0], {}, False),
        (NAMES[0], {"height": 0.8}, True),
        (NAMES[0], {"height": 2.0}, True),
        (NAMES[0], {"lean": 0.99}, False),
        (NAMES[0], {"lean": -1.0}, True),
        (NAMES[0], {"fastest": 1e3}, False),
        (NAMES[1], {}, False),
        (NAMES[1], {"height": 0.7}, True),
        (NAMES[1], {"height": 9.0}, False),
        (NAMES[1], {"lean": 0.19}, False),
        (NAMES[1], {"lean": -0.2}, True),
        (NAMES[1], {"fastest": -100.0}, True),
    ],
)
def test_ends(name, case, over):
    family = make_family(name)
    assert family.fallen(motion(family, **case)).tolist() == [over]


def test_deviations_from_the_source_are_as_listed():
    """Its 200 steps are 3.2 s (4 x .004 s each, whatever the walker's file says); its right foot's friction is .9."""
    for name in NAMES:
        robot = make_family(name).robot
        assert robot.frame_skip * load_model(robot.xml).opt.timestep * 200 == pytest.approx(1.6)
    walker = load_model(make_family(NAMES[0]).robot.xml)
    assert [walker.geom(foot).friction[0] for foot in ("foot_geom", "foot_left_geom")] == [1.9, 1.9]


def test_factors_are_log_uniform_in_the_published_range_and_ood_beyond_it(family):
    tasks = family.sample(400, Key(0).numpy())
    farther = family.sample(400, Key(0).numpy(), "ood")
    for name, base in {"mass": 1.5, "inertia": 1.5, "damping": 1.3, "friction": 1.5}.items():
        exponent = np.log(tasks.arrays[name]) / np.log(base)
        assert np.abs(exponent).max() <= 3 + 1e-9
        assert np.abs(exponent).max() > 2.95
        assert exponent.mean() == pytest.approx(0, abs=0.2)
        assert exponent.std() == pytest.approx(3**0.5, rel=0.05)
        beyond = np.abs(np.log(farther.arrays[name]) / np.log(base))
        assert beyond.min() >= 3 - 1e-9
        assert 3.95 < beyond.max() <= 4 + 1e-9
        assert (farther.arrays[name] > 1).mean() == pytest.approx(0.5, abs=0.1)


def test_every_simulation_runs_its_tasks_dynamics_and_mujocos_constants_follow(family):
    tasks = family.fixed("test", 2)
    env = family.make_vec(tasks, 2)
    env.reset(seed=0)
    plain = load_model(family.robot.xml)
    for row, task in ((0, tasks[0]), (1, tasks[0]), (3, tasks[1])):
        model = env._batch.get_model(row)
        np.testing.assert_array_equal(model.body_mass[1:], plain.body_mass[1:] * task["mass"])
        np.testing.assert_array_equal(model.body_inertia[1:], plain.body_inertia[1:] * task["inertia"])
        np.testing.assert_array_equal(model.dof_damping, plain.dof_damping * task["damping"])
        np.testing.assert_array_equal(model.geom_friction, plain.geom_friction * task["friction"])
        constants = {name: getattr(model, name).copy() for name in ("dof_invweight0", "body_subtreemass", "dof_M0")}
        mujoco.mj_setConst(model, mujoco.MjData(model))
        for name, values in constants.items():
            np.testing.assert_array_equal(values, getattr(model, name))
            assert (values != getattr(plain, name)).any()


def test_changed_masses_change_the_motion_and_equal_ones_do_not(family):
    tasks = family.fixed("test", 2)
    env = family.make_vec(tasks, 2)
    env.reset(seed=0)
    env.qpos[:], env.qvel[:] = env.qpos[0], env.qvel[0]
    obs, *_ = env.step(np.full((4, family.robot.sizes[2]), 0.3))
    np.testing.assert_array_equal(obs[0], obs[1])
    assert (obs[0] != obs[2]).any()


def test_the_observed_velocity_is_clipped(family):
    env = family.make_vec(family.fixed("test", 1), 2)
    env.reset(seed=0)
    env.qvel[0] = 50.0
    obs, *_ = env.step(np.zeros((2, family.robot.sizes[2])))
    assert obs[0, family.robot.sizes[0] - 1 :].max() == 10.0
    assert env.qvel[0].max() > 10.0


def test_the_caption_names_every_kind_of_factor(family):
    text = family.caption({name: np.full(4, 2.0) for name in ("mass", "friction")})
    assert text == "mass x2.00\nfriction x2.00"
