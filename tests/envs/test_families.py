"""The contract every family keeps, under every preset: run over the whole registry.

A family that registers in `metarl.envs.FAMILIES` is tested here without a line of its own; it needs one
entry in `frozen_tasks.json` (see `test_frozen_tasks_never_change`).
"""

import copy
import json
import pickle
import re
import warnings
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.seeding import np_random
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from metarl.envs import FAMILIES, family_class, make_family
from metarl.envs.wrappers.task_observed import TaskObserved
from metarl.envs.wrappers.trials import Trials
from metarl.errors import UserError
from metarl.tasks import FROZEN, SPLITS, TaskFamily, Tasks, TaskVectorEnv

FROZEN_HASHES = json.loads((Path(__file__).parent / "frozen_tasks.json").read_text())

CASES = [(name, preset) for name in FAMILIES for preset in family_class(name).presets]

# How many parts of the observation never change, and why.
CONSTANT_PARTS = {
    "metarl/BernoulliBandit-v0": 1,  # a bandit has no state: everything is in the last action and reward
    "metarl/GaussianBandit-v0": 1,
    "metarl/HumanoidDirection2D-v0": 13,  # Gymnasium's humanoid observes the masses of its bodies
}

# Where nothing is left to luck: the start is fixed, and so is what follows from an action.
NO_LUCK = ("metarl/GridNavigation-v0", ("metarl/Navigation2D-v0", "maml2017"), ("metarl/Navigation2D-v0", "varibad"))

# What the checkers may warn about: positions and velocities have no bounds, and time limits are ours.
ALLOWED_WARNINGS = (
    "A Box observation space minimum value is -infinity",
    "A Box observation space maximum value is infinity",
    "A Box observation space maximum value is -infinity",  # Gymnasium's wording before 1.0
)


@pytest.fixture(params=CASES, ids=[f"{name.removeprefix('metarl/')}-{preset}" for name, preset in CASES])
def family(request: pytest.FixtureRequest) -> TaskFamily:
    name, preset = request.param
    return make_family(name, preset)


def some_tasks(family: TaskFamily, n: int = 3, split: str = "test") -> Tasks:
    return family.fixed(split, n).cycled(n)


def two_different_tasks(family: TaskFamily) -> Tasks:
    tasks = family.fixed("test", 16)
    other = next(i for i in range(1, 16) if tasks[i : i + 1] != tasks[:1])
    return tasks[[0, other]]


def random_actions(env: TaskVectorEnv, steps: int, seed: int = 0) -> list[np.ndarray]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def reward_sum(infos: dict) -> np.ndarray:
    """The sum of the terms of the reward: the infos whose names begin with `reward_`."""
    terms = [value for name, value in infos.items() if name.startswith("reward_")]
    assert terms, f"no reward_* among {list(infos)}"
    return np.sum(terms, axis=0)


def rollout(env: TaskVectorEnv, actions: list, seed: int = 3) -> list[tuple]:
    obs, _ = env.reset(seed=seed)
    return [(obs, None, None, None, {}), *(env.step(action) for action in actions)]


def assert_same(one: list[tuple], other: list[tuple], rows: slice | np.ndarray = slice(None)) -> None:
    """Two trajectories of a vector environment agree bit for bit in these rows of `one`."""
    for (obs, *outcome, infos), (obs_, *outcome_, infos_) in zip(one, other, strict=True):
        np.testing.assert_array_equal(obs[rows], obs_)
        for value, value_ in zip(outcome, outcome_, strict=True):
            if value is not None:
                np.testing.assert_array_equal(value[rows], value_)
        assert infos.keys() == infos_.keys()
        for name in infos:
            if name.startswith("reward_"):
                np.testing.assert_array_equal(infos[name][rows], infos_[name])


# Gymnasium's and Stable-Baselines3's own checks


@pytest.mark.parametrize("check", [partial(check_env, skip_render_check=True), sb3_check_env], ids=["gymnasium", "sb3"])
def test_checkers_pass_without_a_warning_that_matters(family, check):
    env = gymnasium.make(family.name, preset=family.preset).unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(env)
    env.close()
    messages = [str(warning.message) for warning in caught]
    assert [text for text in messages if not any(allowed in text for allowed in ALLOWED_WARNINGS)] == []


def test_make_and_make_vec_give_the_family_with_its_spaces(family):
    single = gymnasium.make(family.name, preset=family.preset)
    vector = gymnasium.make_vec(family.name, num_envs=3, preset=family.preset)
    assert single.unwrapped.family == vector.unwrapped.family == family
    assert single.observation_space == vector.single_observation_space == family.observation_space
    assert single.action_space == vector.single_action_space == family.action_space
    assert vector.num_envs == 3
    assert vector.observation_space.contains(vector.reset(seed=0)[0])
    assert vector.unwrapped.tasks == family.fixed("train", 3).cycled(3)
    assert single.spec.max_episode_steps is None  # environments truncate themselves
    single.close()
    vector.close()


def test_the_default_preset_is_the_first(family):
    assert make_family(family.name).preset == family.presets[0]
    with pytest.raises(ValueError, match=f"{family.presets[0]}"):
        make_family(family.name, "no-such-preset")


def test_actions_are_in_units_of_their_bound(family):
    if isinstance(family.action_space, gymnasium.spaces.Box):
        assert (family.action_space.low == -1).all()
        assert (family.action_space.high == 1).all()


# Rewards, observations and ends


def test_rewards_are_finite_and_the_sum_of_their_terms(family):
    env = family.make_vec(some_tasks(family), 2)
    for obs, reward, terminated, truncated, infos in rollout(env, random_actions(env, min(family.horizon, 30)))[1:]:
        assert np.isfinite(obs).all()
        assert np.isfinite(reward).all()
        assert reward.shape == terminated.shape == truncated.shape == (6,)
        assert reward.dtype == np.float64
        assert terminated.dtype == truncated.dtype == np.bool_
        np.testing.assert_allclose(reward, reward_sum(infos), rtol=1e-12, atol=1e-12)
        assert env.observation_space.contains(obs)
    env.close()


def test_single_rewards_are_the_sum_of_their_terms(family):
    env = family.make(some_tasks(family)[0])
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(min(family.horizon, 10)):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert isinstance(reward, float)
        assert isinstance(terminated, bool)
        assert isinstance(truncated, bool)
        assert family.observation_space.contains(obs)
        assert reward == pytest.approx(float(reward_sum(info)), rel=1e-12, abs=1e-12)
        if terminated or truncated:
            break
    env.close()


def test_whole_episodes_end_at_the_horizon_and_show_something_in_every_part_of_the_observation(family):
    env = family.make_vec(some_tasks(family), 2)
    first, *steps = rollout(env, random_actions(env, family.horizon))
    ended = np.zeros(env.num_envs, dtype=bool)
    for t, (_, _, terminated, truncated, _) in enumerate(steps, start=1):
        assert not (terminated & truncated).any()
        assert not ((terminated | truncated) & ended).any(), "an episode ended twice"
        assert t == family.horizon or not truncated.any()
        ended |= terminated | truncated
    assert ended.all(), "a row was neither terminated nor truncated at the horizon"

    seen = np.stack([first[0], *(obs for obs, *_ in steps)])  # (H + 1, N, ...)
    spread = np.ptp(seen.reshape(len(seen) * env.num_envs, -1).astype(float), axis=0)
    constant = np.flatnonzero(spread == 0)
    assert len(constant) == CONSTANT_PARTS.get(family.name, 0), f"constant parts: {constant}"
    env.close()


def test_the_last_step_truncates_whatever_came_before(family):
    env = family.make_vec(some_tasks(family), 1)
    env.reset(seed=0)
    env.elapsed[:] = family.horizon - 1
    _, _, terminated, truncated, _ = env.step(random_actions(env, 1)[0])
    np.testing.assert_array_equal(terminated ^ truncated, True)
    env.close()


def test_ended_episodes_earn_nothing_until_reset(family):
    env = family.make_vec(some_tasks(family), 2)
    actions = random_actions(env, 5)
    env.reset(seed=0)
    env.elapsed[1] = family.horizon - 1  # the end of one row
    _, _, terminated, truncated, _ = env.step(actions[0])
    assert (terminated | truncated)[1]
    was_ended = terminated | truncated
    for action in actions[1:3]:
        _, reward, terminated, truncated, infos = env.step(action)
        assert (reward[was_ended] == 0).all()
        assert (reward_sum(infos)[was_ended] == 0).all()
        assert not (terminated | truncated)[was_ended].any()
        was_ended |= terminated | truncated
    assert not was_ended.all(), "every row ended within three steps: nothing was compared"
    env.reset(options={"reset_mask": was_ended})
    assert (env.elapsed[was_ended] == 0).all()
    env.elapsed[was_ended] = family.horizon - 1
    _, _, terminated, truncated, _ = env.step(actions[3])
    assert (terminated | truncated)[was_ended].all(), "a reset row did not end again"
    env.close()


# Streams: what may change an episode, and what may not


def test_the_same_seed_gives_the_same_episode_and_another_seed_may_not_repeat_it(family):
    tasks = some_tasks(family)
    one, two = family.make_vec(tasks, 2), family.make_vec(tasks, 2)
    actions = random_actions(one, min(family.horizon, 20))
    first = rollout(one, actions)
    assert_same(first, rollout(two, actions))
    assert_same(first, rollout(one, actions), slice(None))  # the same environment again
    one.close()
    two.close()


def test_rows_are_by_themselves_as_they_are_in_the_batch(family):
    """Tasks 2 and 3 of four; now the others' rows begin anew, now all of theirs, now some of each."""
    tasks, rows = some_tasks(family, 4), np.arange(8)
    joined = [family] if len(family.observation_space.shape or ()) != 1 else [family, Trials(family=family, episodes=9)]
    for kind in joined:
        whole, part = kind.make_vec(tasks, 2), kind.make_vec(tasks[2:], 2)
        actions = random_actions(whole, min(family.horizon, 11))
        one, other = rollout(whole, actions[:1]), rollout(part, [actions[0][4:]])
        for t, action in enumerate(actions[1:]):
            mask = (rows < 4, rows >= 4, rows % 5 == t % 5)[t % 3]
            begun = [(whole.reset(options={"reset_mask": mask})[0], {}), whole.step(action)]
            if mask[4:].any():
                one.append(begun[0])
                other.append((part.reset(options={"reset_mask": mask[4:]})[0], {}))
            one.append(begun[1])
            other.append(part.step(action[4:]))
        assert_same(one, other, slice(4, 8))
        whole.close()
        part.close()


def test_every_place_split_replica_and_seed_has_luck_of_its_own(family):
    """One and the same task in several places: what happens differs, and is the same again in the same place."""
    task = family.fixed("test", 1)[[0, 0]]
    env = family.make_vec(task, 2)
    coarse = isinstance(family.action_space, gymnasium.spaces.Discrete)  # so is what happens: look for longer
    begun, steps = (12, 10) if coarse else (3, 1)
    actions = [np.repeat(action[:1], 4, axis=0) for action in random_actions(env, steps)]

    def streams(place: Tasks, seed: int) -> list[np.ndarray]:
        """What each row sees and is paid in its episodes, `(begun, ...)`."""
        seen = []
        for episode in range(begun):
            first, _ = env.reset(seed=None if episode else seed, options={"tasks": place})
            steps = [first, *(np.c_[obs, reward] for obs, reward, *_ in map(env.step, actions))]
            seen.append(np.concatenate([step.reshape(4, -1) for step in steps], axis=1))
        return list(np.stack(seen, axis=1))

    places = [(split, seed) for split in (*family.splits, "") for seed in (0, 1)]
    every = np.stack([row for split, seed in places for row in streams(task.at(split), seed)])
    np.testing.assert_array_equal(streams(task.at(*places[0][:1], [1, 0]), 0)[:2], every[2:4])
    env.close()
    distinct = len(np.unique(every.reshape(len(every), -1), axis=0))
    if family.name in NO_LUCK or (family.name, family.preset) in NO_LUCK:
        assert distinct == 1
        return
    assert distinct == len(every) == 8 * (len(family.splits) + 1)
    episodes = [len(np.unique(episodes.reshape(begun, -1), axis=0)) for episodes in every]
    assert min(episodes) > begun / 2, "an episode repeats the one before"


def test_threads_change_nothing(family):
    tasks = some_tasks(family)
    one, two = family.make_vec(tasks, 2, threads=1), family.make_vec(tasks, 2, threads=2)
    actions = random_actions(one, min(family.horizon, 20))
    assert_same(rollout(one, actions), rollout(two, actions))
    one.close()
    two.close()


def test_a_single_environment_is_the_first_row(family):
    tasks = some_tasks(family)
    vector, single = family.make_vec(tasks.at(""), 1), family.make(tasks[0])  # a task by itself is of no split
    actions = random_actions(vector, min(family.horizon, 20))
    derived = int(np_random(5)[0].integers(2**62))  # how a single environment seeds its row
    steps = rollout(vector, actions, seed=derived)
    obs, _ = single.reset(seed=5)
    np.testing.assert_array_equal(obs, steps[0][0][0])
    for action, (expected, reward, terminated, truncated, infos) in zip(actions, steps[1:], strict=True):
        obs, reward_, terminated_, truncated_, info = single.step(action[0])
        np.testing.assert_array_equal(obs, expected[0])
        assert (reward_, terminated_, truncated_) == (reward[0], terminated[0], truncated[0])
        assert {n: v for n, v in info.items() if n.startswith("reward_")} == {
            n: v[0] for n, v in infos.items() if n.startswith("reward_")
        }
        if terminated_ or truncated_:
            break
    vector.close()
    single.close()


def test_reset_mask_restarts_the_masked_rows_and_leaves_the_others_untouched(family):
    tasks = some_tasks(family)
    disturbed, calm = family.make_vec(tasks, 2), family.make_vec(tasks, 2)
    actions = random_actions(disturbed, 6)
    mask = np.array([True, False, False, True, False, False])
    rollout(disturbed, actions[:3])
    before = rollout(calm, actions[:3])[-1][0]
    obs, _ = disturbed.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(obs[~mask], before[~mask])
    np.testing.assert_array_equal(disturbed.elapsed[mask], 0)
    np.testing.assert_array_equal(disturbed.elapsed[~mask], calm.elapsed[~mask])
    one, other = [disturbed.step(a) for a in actions[3:]], [calm.step(a) for a in actions[3:]]
    assert_same([tuple(x) for x in one], [_rows(x, ~mask) for x in other], ~mask)
    with pytest.raises(ValueError, match="reset_mask"):
        disturbed.reset(options={"reset_mask": np.array([True])})
    disturbed.close()
    calm.close()


def test_restarted_rows_may_get_another_task_and_the_others_go_on_with_theirs(family):
    ours, other = two_different_tasks(family), two_different_tasks(family)[[1, 1]]
    mask = np.array([True, False])
    disturbed, calm = family.make_vec(ours), family.make_vec(ours)
    actions = random_actions(disturbed, 6)
    rollout(disturbed, actions[:3])
    rollout(calm, actions[:3])
    with pytest.raises(ValueError, match="keeps its task"):
        disturbed.reset(options={"reset_mask": ~mask, "tasks": other})
    assert disturbed.tasks == ours
    disturbed.reset(options={"reset_mask": mask, "tasks": other})
    assert disturbed.tasks == other
    one, two = [disturbed.step(a) for a in actions[3:]], [calm.step(a) for a in actions[3:]]
    assert_same([tuple(x) for x in one], [_rows(x, ~mask) for x in two], ~mask)
    np.testing.assert_array_equal(disturbed.elapsed, [3, 6])
    disturbed.close()
    calm.close()


def _rows(step: tuple, rows: np.ndarray) -> tuple:
    *outcome, infos = step
    return (*(value[rows] for value in outcome), {name: value[rows] for name, value in infos.items()})


def test_returned_observations_are_the_callers_own(family):
    tasks = some_tasks(family)
    kept, spoiled = family.make_vec(tasks, 1), family.make_vec(tasks, 1)
    actions = random_actions(kept, 3)
    previous, _ = kept.reset(seed=0)
    obs, _ = spoiled.reset(seed=0)
    for action in actions:
        obs[...] = 0  # whatever the caller does to it, the environment goes on as before
        fresh, reward, *_ = kept.step(action)
        obs, reward_, *_ = spoiled.step(action)
        assert not np.shares_memory(fresh, previous)
        np.testing.assert_array_equal(fresh, obs)
        np.testing.assert_array_equal(reward, reward_)
        previous = fresh
    kept.close()
    spoiled.close()


# Tasks


def test_a_task_in_the_reset_options_is_that_of_the_episode_and_then_the_own_one_is_back(family):
    own, other = two_different_tasks(family)
    drawing, keeping = gymnasium.make(family.name, preset=family.preset).unwrapped, family.make(own)
    for task in (other, {name: values.tolist() for name, values in other.items()}):
        for env in (drawing, keeping):
            _, info = env.reset(seed=0, options={"task": task})
            assert same(env.task, other)
            assert same(info["task"], other)
            assert same(env.step(env.action_space.sample())[4]["task"], other)
        keeping.reset()
        assert same(keeping.task, own)
        drawn = [drawing.reset() and drawing.task for _ in range(12)]
        assert not all(same(one, other) for one in drawn)
    drawing.close()
    keeping.close()


def same(one: dict, other: dict) -> bool:
    return Tasks.stack([one]) == Tasks.stack([other])


def test_odd_tasks_are_refused_in_one_line_by_every_environment(family):
    task = family.fixed("test", 1)[0]
    name, values = next(iter(task.items()))
    spoiled = {
        "shape": {**task, name: np.stack([values, values])},
        "wrong_name": {**task, "wrong_name": 0.0},
        f"'{name}'": {n: v for n, v in task.items() if n != name} or {"nothing": 0.0},
        "finite": {**task, name: np.where(np.arange(values.size).reshape(values.shape) == 0, np.nan, values)},
        "type": {**task, name: np.full(values.shape, "one")},
    }
    listed = family.finite("train")
    if bounded := [*family.bounds, *(listed.arrays if listed else ())]:
        spoiled["lies between|is one of"] = {**task, bounded[0]: np.full_like(task[bounded[0]], 99.0)}
    env, vector = family.make(), family.make_vec(Tasks.stack([task]))
    for match, odd in spoiled.items():
        stacked = Tasks({n: np.asarray(v)[None] for n, v in odd.items()})
        for call in (
            lambda odd=odd: env.reset(options={"task": odd}),
            lambda odd=odd: family.make(odd),
            lambda stacked=stacked: family.make_vec(stacked),
            lambda stacked=stacked: vector.reset(options={"tasks": stacked}),
        ):
            with pytest.raises(ValueError, match=match) as refused:
                call()
            assert "\n" not in str(refused.value)
    for odd in ([0.1, 0.2], 3.0, {}, "left"):
        with pytest.raises(ValueError, match=r"is a mapping with \["):
            env.reset(options={"task": odd})
    with pytest.raises(ValueError, match="knows the options task, got tasks"):
        env.reset(options={"tasks": task})
    with pytest.raises(ValueError, match="knows the options tasks, reset_mask, got task"):
        vector.reset(options={"task": task})
    env.close()
    vector.close()


# Actions, and copies


def odd_actions(space: gymnasium.Space, rows: int) -> list:
    good = np.stack([np.asarray(space.sample())] * rows)
    wrong = [
        good[0],
        good[:-1],
        np.concatenate([good, good]),
        good[:, None],
        good[None],
        good.astype(object),
        "go",
        None,
    ]
    wrong += [good.astype(bool), np.full(good.shape, "1"), good + 0j]
    if isinstance(space, gymnasium.spaces.Discrete):
        n = int(space.n)
        return [*wrong, good.astype(float), *[np.where(np.arange(rows) == rows - 1, a, good) for a in (-1, n, 2**62)]]
    wrong += [good[..., :1], good[..., :0], 0.5]
    return wrong + [np.where(np.arange(good.size).reshape(good.shape) == 1, value, good) for value in (np.nan, np.inf)]


def test_steps_take_actions_of_the_right_shape_and_kind_and_no_others(family):
    tasks = some_tasks(family, 2)
    space = family.action_space
    shown = TaskObserved(family=family)
    for vec in (family.make_vec(tasks, 2), Trials(family=family).make_vec(tasks, 2), shown.make_vec(tasks, 2)):
        good = random_actions(vec, 1)[0]
        with pytest.raises(RuntimeError, match="reset before step"):
            vec.step(good)
        vec.reset(seed=0)
        for odd in odd_actions(space, 4):
            before = vec.elapsed.copy()
            with pytest.raises(ValueError, match=r"step takes (integers from 0 to|finite numbers of shape)") as refused:
                vec.step(odd)
            assert "\n" not in str(refused.value)
            assert (vec.elapsed == before).all()
        assert vec.step(good.tolist())[1].shape == (4,)
        vec.close()
    single = family.make()
    single.reset(seed=0)
    with pytest.raises(ValueError, match=rf"step takes an action of shape {re.escape(str(space.shape))}, got"):
        single.step(space.sample()[None])
    for odd in (np.full(space.shape, np.nan), "go", None):
        with pytest.raises(ValueError, match="step takes"):
            single.step(odd)
    single.close()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_a_copy_steps_as_the_original_does(family, clone):
    tasks = some_tasks(family, 2)
    for whose in (family, Trials(family=family), TaskObserved(family=family)):
        env = whose.make_vec(tasks, 2)
        actions = random_actions(env, 8)
        fresh = clone(env)
        assert_same(rollout(env, actions[:3]), rollout(fresh, actions[:3]))
        env.elapsed[1] = whose.horizon - 1  # one row ends, and stays ended for a while
        env.step(actions[3])
        midway = clone(env)
        assert midway.tasks == env.tasks
        again = {"options": {"reset_mask": np.array([False, True, True, False])}}
        for act in (actions[4], again, *actions[5:], {}, actions[0]):
            one, other = (e.reset(**act) if isinstance(act, dict) else e.step(act) for e in (env, midway))
            assert_same([one if len(one) > 2 else (one[0], {})], [other if len(other) > 2 else (other[0], {})])
        with pytest.raises(ValueError, match="read-only"):
            next(iter(midway.tasks.arrays.values()))[...] = 0
        env.close()
        midway.close()


def test_a_copy_of_what_gymnasium_makes_steps_as_the_original_does(family):
    env = gymnasium.make(family.name, preset=family.preset)
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        action = env.action_space.sample()
        (obs, *outcome, info), (obs_, *outcome_, info_) = copy.deepcopy(env).step(action), other.step(action)
        np.testing.assert_array_equal(obs, obs_)
        assert outcome == outcome_
        assert same(info["task"], info_["task"])
        np.testing.assert_array_equal(copy.deepcopy(env).reset()[0], other.reset()[0])  # the next task and start too
    env.close()


def test_without_a_task_every_reset_draws_a_training_task(family):
    env = family.make()
    env.reset(seed=0)
    seen = {Tasks.stack([env.task]).sha256() for _ in range(12) if env.reset()}
    assert len(seen) > 1
    env.close()


def test_the_task_is_not_in_the_first_observation(family):
    tasks = two_different_tasks(family)
    env = family.make_vec(tasks[:1], 2)
    obs, _ = env.reset(seed=0)
    other, _ = env.reset(seed=0, options={"tasks": tasks[1:].at(tasks.split)})  # in the same place: the same luck
    assert env.tasks == tasks[1:]
    np.testing.assert_array_equal(obs, other)
    env.close()


def test_the_task_changes_what_happens(family):
    tasks = two_different_tasks(family)
    env = family.make_vec(tasks[:1], 4)
    actions = random_actions(env, min(family.horizon, 60))
    one = rollout(env, actions)
    env._set_tasks(tasks[1:])
    other = rollout(env, actions)
    assert any((a[1] != b[1]).any() or (a[0] != b[0]).any() for a, b in zip(one[1:], other[1:], strict=True))
    env.close()


def test_ood_tasks_run_in_the_same_spaces(family):
    if "ood" not in family.splits:
        pytest.skip("no ood split")
    env = family.make_vec(family.fixed("ood", 4).cycled(4), 1)
    assert env.single_observation_space == family.observation_space
    for obs, *_ in rollout(env, random_actions(env, 3)):
        assert env.observation_space.contains(obs)
    like = family.fixed("train", 4)
    shapes = {name: (values.shape, values.dtype) for name, values in like.arrays.items()}
    assert {name: (values.shape, values.dtype) for name, values in env.tasks.arrays.items()} == shapes
    env.close()


def test_splits_are_known_and_unknown_ones_refused(family):
    assert set(family.splits) <= set(SPLITS)
    assert "train" in family.splits
    assert "test" in family.splits
    for call in (lambda: family.fixed("no", 1), lambda: family.sample(1, np.random.default_rng(0), "no")):
        with pytest.raises(ValueError, match="no split 'no'; it has train"):
            call()


def test_fixed_tasks_are_a_prefix_of_one_sequence(family):
    for split in family.splits:
        assert family.fixed(split, 7)[:4] == family.fixed(split, 4)


def test_a_finite_split_has_each_of_its_tasks_once(family):
    for split in family.splits:
        every = family.finite(split)
        if every is None:
            assert len(set(family.fixed(split, 100).distinct())) == 100
            continue
        assert family.fixed(split, 1000) == every
        assert len(set(every.distinct())) == len(every)
        drawn = family.sample(1000, np.random.default_rng(0), split)
        listed = {every[i : i + 1].sha256() for i in range(len(every))}
        assert {drawn[i : i + 1].sha256() for i in range(1000)} == listed


def test_sampling_repeats_by_generator_and_only_by_it(family):
    for split in family.splits:
        drawn = [family.sample(8, np.random.default_rng(seed), split) for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1]
        assert drawn[0] != drawn[2]


def test_fixed_splits_of_unseen_families_are_disjoint(family):
    fixed = {split: family.fixed(split, 100) for split in family.splits}
    rows = {split: {tasks[i : i + 1].sha256() for i in range(100)} for split, tasks in fixed.items()}
    if not family.unseen:
        assert rows["test"] & rows["train"], "a family that reuses its tasks says unseen=False; this one does not"
        return
    for one in rows:
        for other in rows:
            assert one == other or not rows[one] & rows[other], (one, other)


class Tape:
    """A generator that first replays recorded numbers, then draws fresh ones."""

    def __init__(self, recorded: list[np.ndarray]) -> None:
        self.recorded = list(recorded)
        self.rng = np.random.default_rng(0)

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.recorded and self.recorded[0].shape == tuple(shape):
            return self.recorded.pop(0)
        return self.rng.random(shape)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_training_never_draws_a_held_out_task(family, split, monkeypatch):
    if not family.unseen or split not in family.splits:
        pytest.skip(f"{family.name} ({family.preset}) holds no {split} tasks out")
    family.sample(1, np.random.default_rng(0))  # the frozen rows are known from here on
    draw, recorded = type(family).draw, []

    def record(self, n, uniform, split):
        def taped(shape):
            recorded.append(uniform(shape))
            return recorded[-1]

        return draw(self, n, taped, split)

    monkeypatch.setattr(type(family), "draw", record)
    held_out = family.fixed(split, 1)
    monkeypatch.undo()

    forced = family.draw(1, Tape(recorded).random, "train")
    hit = all(np.allclose(forced.arrays[n], held_out.arrays[n], rtol=0, atol=1e-8) for n in forced.arrays)
    if not hit:  # the same numbers give another training task: the splits are drawn differently
        pytest.skip("training and held-out tasks come from different regions")
    tape = Tape(recorded)
    sampled = family.sample(1, tape)
    assert not tape.recorded, "the recorded numbers were not used: nothing was tested"
    assert sampled != held_out
    assert sampled != forced


def test_tasks_survive_json(family):
    tasks = family.fixed("test", 5)
    again = Tasks.from_json(tasks.to_json())
    assert again == tasks
    assert again.sha256() == tasks.sha256()


def test_frozen_tasks_never_change(family):
    expected = FROZEN_HASHES.get(family.name, {}).get(family.preset)
    assert expected is not None, (
        f"{family.name} ({family.preset}) has no frozen tasks yet: run `python scripts/freeze_tasks.py`, which adds "
        "what is missing to tests/envs/frozen_tasks.json and changes nothing else, and commit it"
    )
    assert {split: family.fixed(split, 100).sha256() for split in family.splits} == expected


def test_as_many_tasks_are_held_out_as_evaluations_use():
    assert FROZEN >= 1000


# Pictures


@pytest.mark.parametrize("name", FAMILIES)
def test_render_gives_a_picture_that_changes(name):
    family = make_family(name)
    env = gymnasium.make(name, render_mode="rgb_array").unwrapped
    env.reset(seed=0, options={"task": family.fixed("test", 1)[0]})
    env.action_space.seed(0)
    try:
        first = env.render()
    except UserError as error:
        pytest.skip(f"no pictures here: {error}")
    for _ in range(min(5, family.horizon - 1)):
        env.step(env.action_space.sample())
    second = env.render()
    assert first.dtype == second.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape == second.shape
    assert first.shape[2] == 3
    assert (first != second).any()
    assert first.std() > 0
    with pytest.raises(ValueError, match="render_mode"):
        family.make(render_mode="human")
    env.close()
