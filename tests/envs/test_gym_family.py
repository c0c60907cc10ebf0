"""Families over any Gymnasium constructor."""

import copy
import pickle
from dataclasses import dataclass
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from metarl.envs.wrappers.gym_family import GymFamily
from metarl.envs.wrappers.task_observed import TaskObserved
from metarl.envs.wrappers.trials import Trials
from metarl.errors import NonFiniteError, UserError
from metarl.integrations.sb3_env import SB3VecEnv
from metarl.meta.inner import stack
from metarl.nets.policies import mlp_policy
from metarl.sampling.blocks import Blocks
from metarl.sampling.rollout import rollout
from metarl.seeding import Key
from metarl.tasks import Tasks


@dataclass(frozen=True)
class Pendulums(GymFamily):
    name = "mine/Pendulums-v0"
    presets = ("mine",)
    horizon = 20
    preset: str = "mine"

    def draw(self, n, uniform, split):
        low, high = (12.0, 15.0) if split == "ood" else (5.0, 12.0)
        return Tasks({"gravity": low + (high - low) * uniform((n,))})

    def build(self, task):
        return gymnasium.make("Pendulum-v1", g=float(task["gravity"]))


@dataclass(frozen=True)
class CartPoles(GymFamily):
    name = "mine/CartPoles-v0"
    presets = ("mine",)
    preset: str = "mine"
    horizon: int = 100

    def draw(self, n, uniform, split):
        return Tasks({"length": 0.2 + uniform((n,))})

    def build(self, task):
        env = gymnasium.make("CartPole-v1", max_episode_steps=50)
        env.unwrapped.length = float(task["length"])
        return env


def test_rows_are_the_environments_themselves():
    family = Pendulums()
    tasks = family.fixed("test", 2)
    env = family.make_vec(tasks, 2)
    obs, _ = env.reset(seed=0)
    twins = [family.build(task) for task in tasks for _ in range(2)]
    for i, twin in enumerate(twins):
        key = Key(0)("env", "test", i // 2, 0, i % 2)  # split, index, episode, replica
        np.testing.assert_array_equal(obs[i], twin.reset(seed=key.integer() % 2**31)[0])
    assert len({float(row[2]) for row in obs}) == 4
    for k in range(family.horizon):
        actions = Key(1)(k).numpy().uniform(-1.5, 1.5, (4, 1))
        obs, rewards, terminated, truncated, infos = env.step(actions)
        for i, twin in enumerate(twins):
            own = np.float32(2.0) * np.clip(actions[i], -1, 1)  # Pendulum's bound is 2
            expected, reward, *_ = twin.step(own.astype(np.float32))
            np.testing.assert_allclose(obs[i], expected, rtol=1e-5, atol=1e-6)
            assert rewards[i] == pytest.approx(reward, rel=1e-5)
        np.testing.assert_array_equal(infos["reward_env"], rewards)
        assert not terminated.any()
        assert truncated.all() == (k == family.horizon - 1)


@dataclass(frozen=True)
class ParallelPendulums(Pendulums):
    """Pendulums that say of themselves that threads help."""

    steps_in_parallel: ClassVar[bool] = True


def test_threads_change_no_episode_of_environments_of_ones_own():
    family, episodes = ParallelPendulums(), []
    policy = mlp_policy(family.observation_space, family.action_space, (4,))
    params = stack(policy.init(Key(0).torch()), 4)
    for threads in (1, 2, 3):
        env = Blocks(family, family.fixed("test", 4), 2, threads)
        assert len(env.parts) == threads
        episodes.append(rollout(env, policy, params, Key(0)))
    starts = episodes[0].obs[:, :, 0].flatten(0, 1)
    assert len(starts.unique(dim=0)) == 8
    for others in episodes[1:]:
        assert torch.equal(others.obs, episodes[0].obs)
        assert torch.equal(others.actions, episodes[0].actions)
        assert torch.equal(others.rewards, episodes[0].rewards)


def test_a_row_begins_alone_as_it_does_among_others():
    family, tasks = Pendulums(), Pendulums().fixed("test", 4)
    whole, part = family.make_vec(tasks, 2), family.make_vec(tasks[[3, 1]], 2)
    whole.reset(seed=0)
    part.reset(seed=0)
    mask = np.array([True, True, False, True, False, False, True, True])
    whole.reset(options={"reset_mask": mask})
    part.reset(options={"reset_mask": mask[[6, 7, 2, 3]]})
    np.testing.assert_array_equal(part.reset()[0], whole.reset()[0][[6, 7, 2, 3]])


def test_the_contract_of_every_family():
    family = Pendulums()
    assert family.action_space == Box(-1, 1, (1,), np.float32)
    assert family.splits == ("train", "validation", "test", "ood")
    assert family.fixed("ood", 5).arrays["gravity"].min() >= 12
    assert family.fixed("test", 5)[:3] == family.fixed("test", 3)
    env = family.make()
    check_env(env, skip_render_check=True)
    sb3_check_env(env)
    env.reset(seed=0, options={"task": {"gravity": 7.5}})
    assert env.vector._envs[0].unwrapped.g == 7.5
    with pytest.raises(UserError, match="render_mode='rgb_array'"):
        env.vector.render_frame(0)


class Drawn(gymnasium.Wrapper):
    """Draws what it is told to, or fails as an environment does whose drawing library is missing."""

    def __init__(self, picture):
        super().__init__(gymnasium.make("CartPole-v1", render_mode="rgb_array"))
        self.picture = picture

    def render(self):
        if self.picture is None:
            raise gymnasium.error.DependencyNotInstalled("pygame is not installed")
        return self.picture


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "render raised DependencyNotInstalled: pygame is not installed, in step 1 of the task {'length':"),
        (np.zeros((4, 6), np.uint8), "render must return a picture, .*got uint8 of shape \\(4, 6\\)"),
        (np.zeros((4, 6, 3)), "got float64 of shape"),
        (np.zeros((0, 6, 3), np.uint8), "got uint8 of shape \\(0, 6, 3\\)"),
        ([], "got float64 of shape"),
        (np.zeros((4, 6, 3), np.uint8), None),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(picture, message):
    class Pictures(CartPoles):
        def build(self, task):
            return Drawn(picture)

    env = Pictures().make_vec(Pictures().fixed("test", 1))
    env.reset(seed=0)
    if message is None:
        assert env.render_frame(0).shape == (4, 6, 3)
        return
    with pytest.raises(UserError, match=message) as refusal:
        env.render_frame(0)
    assert len(str(refusal.value).splitlines()) == 1


def test_resets_are_keyed_and_touch_only_their_rows():
    family = Pendulums()
    tasks = family.fixed("test", 3)
    one, other = family.make_vec(tasks), family.make_vec(tasks)
    one.reset(seed=4)
    before, _ = other.reset(seed=4)
    mask = np.array([False, True, False])
    after, _ = one.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert (after[mask] != before[mask]).any()
    action = np.full((3, 1), 0.3)
    np.testing.assert_array_equal(one.step(action)[0][~mask], other.step(action)[0][~mask])
    one.reset(seed=5, options={"tasks": family.fixed("test", 6)[3:]})
    assert one._envs[0].unwrapped.g == family.fixed("test", 4)[3]["gravity"]


def test_discrete_actions_pass_through_and_ends_are_ends():
    family = CartPoles(horizon=50)
    assert family.action_space.n == 2
    env = family.make_vec(family.fixed("train", 2), 2)
    env.reset(seed=0)
    lengths = np.zeros(4, dtype=int)
    for _ in range(50):
        _, rewards, _, truncated, _ = env.step(np.ones(4, dtype=int))
        assert not truncated.any()
        lengths += rewards.astype(int)
    assert ((lengths > 3) & (lengths < 30)).all()
    assert env._ended.all()


def test_a_time_limit_within_the_horizon_is_refused():
    family = CartPoles(horizon=100)
    env = family.make_vec(Tasks({"length": np.full(1, 0.5)}))
    env.reset(seed=0)

    def balance():
        return env.step((env._obs @ np.array([0.0, 0.0, 1.0, 0.5]) > 0).astype(int))

    for _ in range(49):
        assert not balance()[2].any()
    with pytest.raises(UserError, match=r"after 50 steps, but the family's horizon is 100"):
        balance()


def test_actions_without_bounds_are_refused():
    class Unbounded(gymnasium.Env):
        observation_space = Box(-1, 1, (1,))
        action_space = Box(-np.inf, np.inf, (1,))

    class Family(Pendulums):
        def build(self, task):
            return Unbounded()

    with pytest.raises(UserError, match=r"actions must be a Discrete, a bounded Box, .* got Box"):
        _ = Family().action_space


# What build and its environments may do wrong


class Plain(gymnasium.Env):
    """A walk along a line; `spoil` changes what a step or a reset gives."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Discrete(2)

    def __init__(self, goal=0.0, spoil=None):
        self.goal, self.spoil, self.at = goal, spoil or {}, 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = float(self.np_random.random())
        return self.spoil.get("first", np.array([self.at])), {"at": self.at}

    def step(self, action):
        self.at += 1 if action else -1
        if "raise" in self.spoil:
            raise RuntimeError("out of\nfuel")
        if "answer" in self.spoil:
            return self.spoil["answer"]
        obs = self.spoil.get("obs", np.array([self.at]))
        reward = self.spoil.get("reward", self.goal)
        return obs, reward, self.spoil.get("terminated", False), False, self.spoil.get("info", {"at": self.at})


@dataclass(frozen=True)
class Walks(GymFamily):
    name = "mine/Walks-v0"
    presets = ("mine",)
    preset: str = "mine"
    horizon: int = 5

    def draw(self, n, uniform, split):
        return Tasks({"g": np.round(10 * uniform((n,)), 3)})

    def build(self, task):
        return Plain(float(task["g"]))


def walks(make):
    class Mine(Walks):
        def build(self, task):
            return make(float(task["g"]))

    return Mine()


GOALS = Tasks({"g": [1.0, 2.0, 3.0]})


def one_step(family):
    env = family.make_vec(GOALS, 2)
    env.reset(seed=0)
    env.step(np.ones(6, int))


def refused(family, match):
    with pytest.raises(UserError, match=match) as error:
        one_step(family)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("mine/Walks-v0: ")


@pytest.mark.parametrize("wrap", [lambda env: env, gymnasium.wrappers.OrderEnforcing])
@pytest.mark.parametrize("tasks", [GOALS, GOALS[:1]])
def test_one_environment_for_all_tasks_is_refused(wrap, tasks):
    one = Plain()

    def build(goal):
        one.goal = goal
        return wrap(one)

    with pytest.raises(UserError, match="one and the same environment more than once"):
        walks(build).make_vec(tasks).reset(seed=0)


def test_a_new_environment_every_time_pays_its_own_task():
    env = Walks().make_vec(GOALS)
    env.reset(seed=0)
    assert env.step(np.ones(3, int))[1].tolist() == [1.0, 2.0, 3.0]


def test_a_build_that_fails_is_told_with_its_task():
    def build(goal):
        if goal == 2.0:
            raise KeyError("no such\nworld")
        return Plain(goal)

    refused(walks(build), r"build raised KeyError: .*world.*, for the task \{'g': 2.0\}")
    refused(walks(lambda goal: None), "build must return a gymnasium.Env, got None")

    def none(goal):
        raise ValueError("never")

    with pytest.raises(UserError, match="build raised ValueError: never"):
        _ = walks(none).action_space


def test_spaces_that_differ_between_tasks_are_refused():
    def build(goal):
        env = Plain(goal)
        if goal == 3.0:
            env.action_space = Discrete(3)
        return env

    refused(walks(build), r"action_space is Discrete\(3\) in the task \{'g': 3.0\} and Discrete\(2\) in the first")

    def lower(goal):
        env = Plain(goal)
        env.observation_space = Box(-goal, goal, (1,), np.float64)
        return env

    refused(walks(lower), "observation_space is Box")
    family = walks(Plain)
    family._first.observation_space = gymnasium.spaces.Dict({"x": Discrete(2)})
    with pytest.raises(UserError, match=r"observations must be arrays, got Dict.*FlattenObservation"):
        _ = family.observation_space


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        ({"reward": None}, r"the reward must be a number, got None"),
        ({"reward": np.ones(3)}, r"the reward must be a number, got \[1.0, 1.0, 1.0\]"),
        ({"obs": np.zeros((2, 1))}, r"the observation is float64 of shape \(2, 1\), but the observation space is Box"),
        ({"first": np.zeros(())}, r"the observation is float64 of shape \(\), but"),
        ({"obs": np.array(["a"])}, r"the observation is <U1 of shape \(1,\), but"),
        ({"raise": True}, r"step raised RuntimeError: out of fuel, in step 1 of the task \{'g': 1.0\}"),
        ({"answer": (np.zeros(1), 0.0, False, {})}, r"step must return 5 things, the last a dict"),
        ({"answer": (np.zeros(1), 0.0, False, False, None)}, r"step must return 5 things, the last a dict"),
    ],
)
def test_what_an_environment_may_not_give_is_told_with_task_and_step(spoil, match):
    refused(walks(lambda goal: Plain(goal, spoil)), match)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        ({"reward": np.nan}, r"^reward_env of mine/Walks-v0 is nan in step 1 of an episode, in task 1 \(g 2.0\); "),
        ({"reward": -np.inf}, r"^reward_env of mine/Walks-v0 is -inf in step 1 "),
        ({"obs": np.array([np.nan])}, r"^an observation \(number 0 of it\) of mine/Walks-v0 is nan in step 1 "),
        ({"first": np.array([np.inf])}, r"^an observation .* is inf at the start of an episode, in task 1 \(g 2.0\)"),
    ],
)
def test_numbers_that_are_not_finite_are_told_with_the_task(spoil, match):
    with pytest.raises(NonFiniteError, match=match):
        one_step(walks(lambda goal: Plain(goal, spoil if goal == 2.0 else None)))


def test_the_environments_infos_are_passed_on_without_touching_the_reward():
    odd = {
        "at": 1.5,
        "n": 2,
        "ok": True,
        "who": "me",
        "pos": np.zeros(2),
        "reward_run": 9.0,
        "unstable": "no",
        "task": 3,
    }

    def build(goal):
        return Plain(goal, {"info": odd if goal != 2.0 else {**odd, "only": 4}})

    family = walks(build)
    for shown in (family, Trials(family=family), TaskObserved(family=family)):
        env = shown.make_vec(GOALS)
        _, infos = env.reset(seed=0)
        assert infos["at"].shape == (3,)
        assert infos["at"].dtype == np.float64
        _, rewards, _, _, infos = env.step(np.ones(3, int))
        assert [name for name in infos if name.startswith("reward_")] == ["reward_env"]
        assert infos["reward_env"].tolist() == rewards.tolist() == [1.0, 2.0, 3.0]
        assert (infos["at"].tolist(), infos["n"].tolist()) == ([1.5] * 3, [2] * 3)
        assert infos["ok"].dtype == np.bool_
        assert infos["who"].tolist() == ["me"] * 3
        assert [value.tolist() for value in infos["pos"]] == [[0.0, 0.0]] * 3
        assert infos["only"].tolist() == [None, 4, None]
        assert infos["env_reward_run"].tolist() == [9.0] * 3
        assert infos["env_unstable"].tolist() == ["no"] * 3
        assert infos["env_task"].tolist() == [3] * 3
    rows = SB3VecEnv(family.make_vec(GOALS))
    rows.reset()
    assert [info["who"] for info in rows.step(np.ones(3, int))[3]] == ["me"] * 3
    single = family.make({"g": 4.0})
    assert single.reset(seed=0)[1]["at"] == pytest.approx(single.vector._envs[0].at)
    info = single.step(1)[4]
    assert (info["who"], info["n"], info["ok"], info["env_task"]) == ("me", 2, True, 3)
    assert info["task"] == {"g": 4.0}
    assert type(info["n"]) is int


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_a_copy_of_environments_of_ones_own_steps_as_the_original_does(clone):
    family, tasks = Pendulums(), Pendulums().fixed("test", 2)
    assert clone(family) == family
    for shown in (family, Trials(family=family), TaskObserved(family=family)):
        env = shown.make_vec(tasks)
        env.reset(seed=0)
        env.step(np.zeros((2, 1)))
        other = clone(env)
        for k in range(5):
            actions = Key(0)(k).numpy().uniform(-1, 1, (2, 1))
            for one, two in zip(env.step(actions)[:4], other.step(actions)[:4], strict=True):
                np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(env.reset()[0], other.reset()[0])
    single = Pendulums().make()
    single.reset(seed=0)
    other = clone(single)
    np.testing.assert_array_equal(single.reset()[0], other.reset()[0])
    assert single.task == other.task


@pytest.mark.parametrize("end", [1, 2])
def test_environments_that_end_at_once_are_episodes_of_that_length(end):
    class Short(Plain):
        def step(self, action):
            self.taken = getattr(self, "taken", 0) + 1
            return (*super().step(action)[:2], self.taken % end == 0, False, {})

    trials = Trials(family=walks(Short), episodes=3)
    env = trials.make_vec(GOALS)
    env.reset(seed=0)
    over = [env.step(np.ones(3, int))[2].all() for _ in range(3 * end)]
    assert over == [False] * (3 * end - 1) + [True]


def test_mujoco_environments_of_gymnasium_run_after_the_installation():
    env = gymnasium.make("HalfCheetah-v5")
    env.reset(seed=0)
    assert np.isfinite(env.step(env.action_space.sample())[1])
    env.close()
