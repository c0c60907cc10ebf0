"""The task in the observation: what is shown, and that nothing else changes."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from metarl.envs import FAMILIES, make_family
from metarl.envs.wrappers.task_observed import TaskObserved, flat
from metarl.tasks import Tasks


def test_a_task_is_its_arrays_in_the_order_of_their_names():
    tasks = Tasks({"b": [[1, 2], [3, 4]], "a": [0.5, 0.25]})
    assert flat(tasks).tolist() == [[0.5, 1.0, 2.0], [0.25, 3.0, 4.0]]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_shown_has_mean_0_and_deviation_1_over_training_tasks(name):
    plain = make_family(name)
    family = TaskObserved(family=plain)
    shown = family.shown(plain.fixed("train", 1000))
    assert np.abs(shown.mean(0)).max() < 1e-9
    assert shown.std(0) == pytest.approx(np.ones(shown.shape[1]))
    assert family.observation_space.shape == (plain.observation_space.shape[0] + shown.shape[1],)


@pytest.mark.parametrize(
    "name", ["metarl/Navigation2D-v0", "metarl/BernoulliBandit-v0", "metarl/HopperRandomParams-v0"]
)
def test_it_runs_as_the_family_does_with_the_task_appended(name):
    plain = make_family(name)
    family, tasks = TaskObserved(family=plain), plain.fixed("test", 2)
    shown = np.repeat(family.shown(tasks), 3, axis=0)
    env, bare = family.make_vec(tasks, 3), plain.make_vec(tasks, 3)
    obs, _ = env.reset(seed=1)
    inner, _ = bare.reset(seed=env._key("inner").integer())
    np.testing.assert_array_equal(obs, np.concatenate([inner, shown], axis=1))
    env.action_space.seed(0)
    for _ in range(plain.horizon):
        action = env.action_space.sample()
        (obs, *outcome, infos), (inner, *expected, terms) = env.step(action), bare.step(action)
        np.testing.assert_array_equal(obs, np.concatenate([inner, shown], axis=1))
        for mine, theirs in zip(outcome, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert infos.keys() == terms.keys()
    if isinstance(plain.action_space, Box):
        assert family.action_space == plain.action_space
    else:
        assert isinstance(family.action_space, Discrete)
    env.close()


def test_another_task_is_another_observation():
    family = TaskObserved(family=make_family("metarl/Navigation2D-v0"))
    env = family.make_vec(Tasks({"goal": [[0.0, 0.0]]}))
    before, _ = env.reset(seed=0)
    after, _ = env.reset(options={"tasks": Tasks({"goal": [[0.5, -0.5]]})})
    deviation = family.family.fixed("train", 1000).arrays["goal"].std(0)
    assert (after - before)[0, 2:] == pytest.approx([0.5, -0.5] / deviation)


def test_the_optimum_looks_past_the_task():
    plain = make_family("metarl/Navigation2D-v0")
    tasks = plain.fixed("test", 3)
    obs, _ = TaskObserved(family=plain).make_vec(tasks).reset(seed=0)
    obs = obs[:, None] + 0.01
    expected = plain.optimal_policy(tasks)(obs[..., :2])
    np.testing.assert_array_equal(TaskObserved(family=plain).optimal_policy(tasks)(obs), expected)
    assert TaskObserved(family=make_family("metarl/TabularMDP-v0")).optimal_policy(tasks) is None
