"""The engine against Gymnasium's own environments, its resets, its threads, and its broken simulations."""

import importlib
import re
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.envs import make_family
from metarl.envs.mujoco import engine, rendering
from metarl.envs.mujoco.engine import LIMIT
from metarl.envs.mujoco.robots import ANT, HALF_CHEETAH, HOPPER, HUMANOID, TOTAL_MASS, WALKER, load_model
from metarl.envs.random_params import WalkerRandomParams
from metarl.errors import UserError
from metarl.seeding import Key
from metarl.tasks import Tasks

STEPS = 600
NO_CONTACTS = {"include_cfrc_ext_in_observation": False}
TWINS = {  # family: Gymnasium's class, and the options that make it observe the same
    "metarl/HalfCheetahVelocity-v0": ("half_cheetah_v5.HalfCheetahEnv", {}),
    "metarl/AntVelocity-v0": ("ant_v5.AntEnv", NO_CONTACTS),
    "metarl/HumanoidDirection2D-v0": ("humanoid_v5.HumanoidEnv", NO_CONTACTS),
    "metarl/WalkerRandomParams-v0": ("walker2d_v5.Walker2dEnv", {}),
    "metarl/HopperRandomParams-v0": ("hopper_v5.HopperEnv", {}),
}
FIELDS = {"mass": "body_mass", "inertia": "body_inertia", "damping": "dof_damping", "friction": "geom_friction"}


@pytest.fixture
def gymnasium_twin(monkeypatch):
    """Gymnasium's environments; their package imports imageio, which only their windows use."""
    if find_spec("imageio") is None:
        monkeypatch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))

    def make(where, options):
        module, attribute = where.split(".")
        return getattr(importlib.import_module(f"gymnasium.envs.mujoco.{module}"), attribute)(**options)

    return make


@pytest.mark.parametrize("name", TWINS)
def test_a_step_lasts_as_long_as_the_familys_module_says(name):
    family = make_family(name)
    skip, step = re.search(r"(\d) x\s(\.\d+) s\s+a\s+step", sys.modules[type(family).__module__].__doc__).groups()
    assert family.robot.frame_skip == int(skip)
    assert load_model(family.robot.xml).opt.timestep == float(step)


def three_tasks(family):
    """Frozen tasks; where they change the dynamics, the first is the unchanged robot."""
    arrays = dict(family.fixed("train", 3).arrays)
    if "mass" in arrays:
        arrays = {name: np.concatenate([np.ones_like(values[:1]), values[1:]]) for name, values in arrays.items()}
    return Tasks(arrays)


def change(model, task):
    """The task's dynamics, written into a Gymnasium environment's model."""
    for name, field in FIELDS.items():
        values = getattr(model, field)
        values[len(values) - len(task[name]) :] *= task[name]
    mujoco.mj_setConst(model, mujoco.MjData(model))


@pytest.mark.parametrize("name", TWINS)
def test_observations_equal_gymnasiums_bit_for_bit(name, gymnasium_twin):
    family = make_family(name)
    tasks = three_tasks(family)
    env, *others = (family.make_vec(tasks, 1, threads=threads) for threads in (1, 2, 3))
    twins = [gymnasium_twin(*TWINS[name]) for _ in range(3)]
    if "mass" in tasks.arrays:
        for twin, task in zip(twins, tasks, strict=True):
            change(twin.model, task)
    rng = Key(3)("actions", name).numpy()
    obs, _ = env.reset(seed=1)
    for other in others:
        np.testing.assert_array_equal(other.reset(seed=1)[0], obs)
    begun, fell = np.ones(3, dtype=bool), 0
    for _ in range(STEPS):
        for i in np.flatnonzero(begun):
            twins[i].reset()
            twins[i].set_state(env.qpos[i].copy(), env.qvel[i].copy())
            np.testing.assert_array_equal(obs[i], twins[i]._get_obs())
        action = np.clip(rng.normal(0, 0.8, (3, family.action_space.shape[0])), -1, 1)
        obs, rewards, terminated, truncated, _ = env.step(action)
        for i, twin in enumerate(twins):
            expected, _, fallen, *_ = twin.step(env._bound * action[i])
            np.testing.assert_array_equal(obs[i], expected)
            assert terminated[i] == fallen
        begun = terminated | truncated | (rng.random(3) < 0.01)
        fell += terminated.sum()
        for other in others:
            same = other.step(action)
            np.testing.assert_array_equal(same[0], obs)
            np.testing.assert_array_equal(same[1], rewards)
            other.reset(options={"reset_mask": begun})
        obs, _ = env.reset(options={"reset_mask": begun})
    assert fell > 10 or "HalfCheetah" in name


@pytest.mark.parametrize("robot", [HALF_CHEETAH, ANT, HUMANOID, WALKER, HOPPER], ids=lambda robot: robot.xml)
def test_a_robot_is_described_as_its_model_is(robot):
    model = load_model(robot.xml)
    assert robot.sizes == (model.nq, model.nv, model.nu)
    np.testing.assert_array_equal(model.actuator_ctrlrange[:, 0], -model.actuator_ctrlrange[:, 1])
    assert model.actuator_ctrllimited.all()
    fields = [np.asarray(getattr(mujoco.MjData(model), name)) for name, _ in robot.derived]
    assert robot.derived_size == sum(
        field[first:].size for field, (_, first) in zip(fields, robot.derived, strict=True)
    )


def test_total_mass_is_set_quietly_and_exactly_as_the_compiler_sets_it(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warning to a file here
    (xml,) = TOTAL_MASS
    compiled = mujoco.MjModel.from_xml_path(str(Path(gymnasium.__file__).parent / "envs/mujoco/assets" / xml))
    capfd.readouterr()
    ours = load_model.__wrapped__(xml)
    assert not any(capfd.readouterr())
    for field in ("body_mass", "body_inertia", "dof_M0", "dof_invweight0", "body_invweight0", "actuator_acc0"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(compiled, field))
    assert ours.body_mass.sum() == pytest.approx(14.0)


@pytest.mark.parametrize(
    ("name", "scale", "normal"),
    [
        ("HalfCheetahVelocity", 0.1, True),
        ("AntVelocity", 0.1, True),
        ("HumanoidDirection2D", 0.01, False),
        ("WalkerRandomParams", 0.005, False),
        ("HopperRandomParams", 0.005, False),
    ],
)
def test_start_noise_has_gymnasiums_distribution(name, scale, normal):
    family = make_family(f"metarl/{name}-v0")
    env = family.make_vec(family.fixed("train", 2), 500)
    env.reset(seed=0)
    moved = env.qpos - load_model(family.robot.xml).qpos0
    assert 0.99 * scale < np.abs(moved).max() <= scale
    assert moved.mean() == pytest.approx(0, abs=0.05 * scale)
    assert env.qvel.mean() == pytest.approx(0, abs=0.05 * scale)
    assert env.qvel.std() == pytest.approx(scale if normal else scale / np.sqrt(3), rel=0.05)
    assert (np.abs(env.qvel).max() > scale) == normal
    assert abs(np.corrcoef(moved[:, 0], env.qvel[:, 0])[0, 1]) < 0.15
    assert len(np.unique(env.qpos[:, 0])) == 1000


def cheetah(n=6, replicas=1):
    family = make_family("metarl/HalfCheetahVelocity-v0")
    return family.make_vec(family.fixed("train", n), replicas, threads=2)


def act(env, k, key=0):
    return Key(key)("act", k).numpy().uniform(-1, 1, (env.num_envs, env.single_action_space.shape[0]))


def test_a_partial_reset_touches_only_its_rows():
    env, reference = cheetah(), cheetah()
    for one in (env, reference):
        one.reset(seed=5)
        for k in range(10):
            one.step(act(one, k))
    mask = np.array([True, False, True, False, False, False])
    obs, _ = env.reset(options={"reset_mask": mask})
    expected = reference.step(act(reference, 10))[0]
    stepped = env.step(act(env, 10))[0]
    np.testing.assert_array_equal(stepped[~mask], expected[~mask])
    assert (np.abs(obs[mask, :8]) <= 0.1).all()
    assert not (stepped[mask] == expected[mask]).any()
    assert env.elapsed.tolist() == [1, 11, 1, 11, 11, 11]


def test_actions_are_clipped_and_in_units_of_the_bound():
    family = make_family("metarl/HumanoidDirection2D-v0")
    env = family.make_vec(family.fixed("train", 2), 1)
    env.reset(seed=0)
    env.qpos[1], env.qvel[1] = env.qpos[0], env.qvel[0]
    obs, *_ = env.step(np.stack([np.full(17, 7.0), np.ones(17)]))
    np.testing.assert_array_equal(obs[0], obs[1])
    np.testing.assert_array_equal(env._ctrl, np.full((2, 17), np.float64(0.4)))


def inject_qpos(env, row):
    env.qpos[row, 3] = np.nan


def inject_infinite_velocity(env, row):
    env.qvel[row, 2] = np.inf


def inject_speed(env, row):
    env.qvel[row, 0] = 1e8


@pytest.mark.parametrize("fault", [inject_qpos, inject_infinite_velocity, inject_speed, "error"])
@pytest.mark.parametrize("name", ["metarl/HalfCheetahVelocity-v0", "metarl/HumanoidDirection2D-v0"])
def test_a_broken_simulation_ends_flagged_and_finite_beside_untouched_neighbours(name, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings to a file here
    family = make_family(name)
    env, reference = (family.make_vec(family.fixed("train", 3), 2, threads=2) for _ in range(2))
    env.reset(seed=0)
    reference.reset(seed=0)
    row, others = 4, np.arange(6) != 4
    for k in range(4):
        before = env.step(act(env, k))[0]
        reference.step(act(env, k))
    action = act(env, 4)
    if callable(fault):
        fault(env, row)
        result = env.step(action)
    else:
        step, failure = env._batch.step, env._failure

        def failing(ids, nstep):
            step(ids=np.flatnonzero(others), nstep=nstep)
            raise failure(np.array([row]), "engine error")

        with monkeypatch.context() as patch:
            patch.setattr(env._batch, "step", failing)
            result = env.step(action)
    obs, rewards, terminated, truncated, infos = result
    expected = reference.step(action)
    assert infos["unstable"].tolist() == [False] * 4 + [True, False]
    assert terminated[row]
    assert not truncated.any()
    assert rewards[row] == 0
    assert all(values[row] == 0 for term, values in infos.items() if term.startswith("reward"))
    np.testing.assert_array_equal(obs[row], before[row])
    for k in range(5, 12):
        for mine, theirs in zip(result[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(mine[others], theirs[others])
        env.qpos[row] = np.nan  # an ended row may hold anything
        result, expected = env.step(act(env, k)), reference.step(act(env, k))
        assert not result[4]["unstable"].any()
        assert result[1][row] == 0
        assert not result[2][row]
        np.testing.assert_array_equal(result[0][row], before[row])
    env.reset(seed=9)
    reference.reset(seed=9)
    for k in range(5):
        np.testing.assert_array_equal(env.step(act(env, k))[0], reference.step(act(env, k))[0])


def test_extreme_masses_leave_nothing_non_finite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Anything(WalkerRandomParams):
        bounds = {}  # noqa: RUF012 - whatever is asked for

    family = Anything()
    arrays = {name: np.ones_like(values) for name, values in family.fixed("train", 8).arrays.items()}
    plain = Tasks(arrays)
    arrays["mass"] = arrays["mass"].copy()
    arrays["mass"][1], arrays["mass"][3, ::2], arrays["mass"][5] = 1e-12, 1e15, 0.0
    broken = np.isin(np.arange(8), [1, 3, 5])
    env, reference = family.make_vec(Tasks(arrays), 1, threads=2), family.make_vec(plain, 1)
    obs, expected = env.reset(seed=0)[0], reference.reset(seed=0)[0]
    unstable = np.zeros(8, dtype=int)
    for k in range(200):
        np.testing.assert_array_equal(obs[~broken], expected[~broken])
        obs, rewards, terminated, truncated, infos = env.step(act(env, k))
        expected, *_ = reference.step(act(env, k))
        assert np.isfinite(obs).all()
        assert np.isfinite(rewards).all()
        assert np.abs(env.qpos).max() < LIMIT
        unstable += infos["unstable"]
        over = terminated | truncated
        env.reset(options={"reset_mask": over})
        obs = env._obs
        expected, _ = reference.reset(options={"reset_mask": over})
    assert unstable[broken].any()
    assert not unstable[~broken].any()


def test_new_tasks_bring_their_dynamics():
    family = make_family("metarl/HopperRandomParams-v0")
    first, second = family.fixed("train", 2), family.fixed("test", 2)
    env, fresh = family.make_vec(first, 1), family.make_vec(second, 1)
    env.reset(seed=0)
    env.step(act(env, 0))
    env.reset(seed=1, options={"tasks": second})
    fresh.reset(seed=1)
    for k in range(5):
        np.testing.assert_array_equal(env.step(act(env, k))[0], fresh.step(act(env, k))[0])


def test_observations_do_not_share_memory_with_the_engine():
    env = cheetah(2)
    obs, _ = env.reset(seed=0)
    kept = obs.copy()
    stepped, *_ = env.step(act(env, 0))
    again = stepped.copy()
    env.step(act(env, 1))
    np.testing.assert_array_equal(obs, kept)
    np.testing.assert_array_equal(stepped, again)
    env.elapsed[0] = env.family.horizon - 1
    last, *_ = env.step(act(env, 2))
    kept = last[0].copy()
    where = env.qpos[0].copy()
    last[:] = np.nan  # whatever the caller does with them, an ended row goes on showing its last observation
    held, *_ = env.step(act(env, 3))
    np.testing.assert_array_equal(held[0], kept)
    np.testing.assert_array_equal(env.qpos[0], where)  # and costs no physics
    assert np.isfinite(held).all()


@pytest.mark.parametrize("installed", ["3.3.2", None])
def test_an_old_or_missing_mujoco_is_a_clear_error(installed, monkeypatch):
    def version(_):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError
        return installed

    monkeypatch.setitem(sys.modules, "mujoco.batch", None)
    monkeypatch.setattr(engine, "version", version)
    family = make_family("metarl/AntGoal-v0")  # tasks and spaces need no mujoco
    assert family.observation_space.shape == (29,)
    with pytest.raises(UserError, match=rf"{installed or 'no mujoco'} is installed.*pip install 'mujoco>=3.17'"):
        family.make_vec(family.fixed("test", 1))


def test_at_least_one_thread():
    family = make_family("metarl/HalfCheetahVelocity-v0")
    with pytest.raises(ValueError, match="at least one thread, got 0"):
        family.make_vec(family.fixed("test", 1), threads=0)


def picture(env, index=0):
    try:
        return env.render_frame(index).astype(int)
    except UserError as error:
        pytest.skip(str(error))


def green(drawn):
    """Which pixels have the colour of targets."""
    return (drawn[..., 1] > 60) & (drawn[..., 1] > 2 * drawn[..., 0]) & (drawn[..., 1] > 2 * drawn[..., 2])


def test_a_picture_shows_the_robot_and_its_task():
    family = make_family("metarl/AntGoal-v0")
    env = family.make_vec(family.fixed("test", 2), 1)
    env.reset(seed=0)
    pictures = [picture(env, i) for i in (0, 1)]
    assert pictures[0].shape == (360, 480, 3)
    assert pictures[0].std() > 10
    assert (pictures[0] != pictures[1]).any()
    env.close()


@pytest.mark.parametrize(
    ("name", "task", "other"),
    [
        ("HalfCheetahVelocity", {"velocity": 0.9}, {"velocity": 2.0}),
        ("HalfCheetahDirection", {"direction": 1.0}, {"direction": -1.0}),
        ("AntVelocity", {"velocity": 0.9}, {"velocity": 2.5}),
        ("AntDirection", {"direction": 1.0}, {"direction": -1.0}),
        ("AntDirection2D", {"angle": 0.0}, {"angle": 3.0}),
        ("AntGoal", {"goal": [2.0, 0.0]}, {"goal": [-2.0, 0.0]}),
        ("HumanoidDirection2D", {"angle": 0.0}, {"angle": 3.0}),
    ],
)
def test_the_target_is_drawn_where_it_is(name, task, other):
    family = make_family(f"metarl/{name}-v0")
    tasks = Tasks.stack([{key: np.array(value) for key, value in one.items()} for one in (task, other)])
    env = family.make_vec(tasks, 1)
    env.reset(seed=0)
    env.qpos[1], env.qvel[1] = env.qpos[0], env.qvel[0]
    one, two = (np.argwhere(green(picture(env, i))) for i in (0, 1))  # (row, column) of the target's pixels
    assert len(one) > 40
    assert len(two) > 40
    side = 1 if "velocity" in task else -1  # the faster target's arrow goes farther right; the others' goes left
    assert side * (two[:, 1].max() - one[:, 1].max()) > 10
    env.close()


def test_the_speed_in_the_picture_is_that_of_the_last_second(monkeypatch):
    family = make_family("metarl/HalfCheetahVelocity-v0")
    env = family.make_vec(family.fixed("test", 1), 1)
    env.reset(seed=0)
    said = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda self, at, text, **style: said.append(text))
    picture(env)
    xs = [env.qpos[0, 0]]
    for k in range(25):
        env.step(act(env, k))
        xs.append(env.qpos[0, 0])
    picture(env)
    wanted = f"wanted {env.task['velocity'][0]:+.2f} m/s"
    assert said == [wanted, "actual +0.00 m/s", wanted, f"actual {xs[-1] - xs[-21]:+.2f} m/s"]  # 20 steps of .05 s
    env.close()


def scene(path, **task):
    path = np.array(path, dtype=np.float64)
    return rendering.Scene(None, None, path, step_seconds=0.05, caption="", in_plane=True, **task)


def test_what_a_robot_does_of_what_is_wanted_is_said():
    walk = [(0.1 * k, 0.05 * k) for k in range(30)]  # 2 m/s along x, 1 along y
    assert scene(walk, heading=np.array([1.0, 0.0])).achieved == "actual +2.00 m/s that way"
    assert scene(walk, heading=np.array([0.0, -1.0])).achieved == "actual -1.00 m/s that way"
    assert scene(walk, heading=np.array([3.0, 4.0])).achieved == "actual +2.00 m/s that way"  # (6 + 4) / 5
    assert scene(walk, heading=np.zeros(2)).achieved == scene(walk).achieved == "actual 2.24 m/s"
    assert scene([(0, 0), (-1e-5, 0)], heading=np.array([1.0, 0.0])).achieved == "actual +0.00 m/s that way"
    at = scene([(0, 0), (1, 2)], place=np.array([4.0, 6.0]))
    assert at.achieved == "now at 1.00, 2.00 m, 5.00 m away"


def blue(drawn):
    """Which pixels have the colour of what the robot does."""
    return (drawn[..., 2] > 100) & (drawn[..., 2] > 1.3 * drawn[..., 1]) & (drawn[..., 2] > 2 * drawn[..., 0])


def test_the_actual_velocity_is_an_arrow_of_its_own():
    family = make_family("metarl/HalfCheetahVelocity-v0")
    env = family.make_vec(family.fixed("test", 1), 1)
    env.reset(seed=0)
    upper = slice(0, 200)  # above the words, which are blue too
    assert not blue(picture(env))[upper].any()
    env.step(act(env, 0))
    env.qpos[0, 0] += 1.0
    forwards = np.argwhere(blue(picture(env))[upper])
    env.qpos[0, 0] -= 2.0
    backwards = np.argwhere(blue(picture(env))[upper])
    assert min(len(forwards), len(backwards)) > 100
    assert forwards[:, 1].mean() > backwards[:, 1].mean() + 50
    env.close()


@pytest.mark.parametrize("name", ["HalfCheetahVelocity", "AntGoal", "WalkerRandomParams"])
def test_the_words_are_written_into_the_picture(name):
    family = make_family(f"metarl/{name}-v0")
    env = family.make_vec(family.fixed("test", 1), 1)
    env.reset(seed=0)
    words = picture(env)[-58:, :300]
    assert (words < 60).all(-1).mean() > 0.1, "a dark ground"
    assert ((words[..., 1] > 180) & (words[..., 2] > 1.15 * words[..., 0])).sum() > 100, "light letters"
    env.close()


def test_a_goal_is_in_view_wherever_it_lies():
    family = make_family("metarl/AntGoal-v0")
    tasks = Tasks({"goal": [(x, y) for x in (-5.5, 0.0, 5.5) for y in (-5.5, 0.5, 5.5)]})
    env = family.make_vec(tasks, 1)
    env.reset(seed=0)
    for index in range(len(tasks)):
        assert green(picture(env, index)).sum() > 20, tasks.arrays["goal"][index]
    env.close()


def test_without_opengl_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(rendering, "opengl_problem", lambda: "no library")
    family = make_family("metarl/HalfCheetahVelocity-v0")
    env = family.make_vec(family.fixed("test", 1))
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"no OpenGL \(no library\).*MUJOCO_GL=osmesa.*libegl1.*libosmesa6"):
        env.render_frame(0)
