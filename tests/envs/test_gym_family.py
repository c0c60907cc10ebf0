"""Families over any Gymnasium constructor."""

from dataclasses import dataclass
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from metarl.envs.gym_family import GymFamily
from metarl.inner import stack
from metarl.learner import UserError
from metarl.policies import mlp_policy
from metarl.rollout import Blocks, rollout
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
