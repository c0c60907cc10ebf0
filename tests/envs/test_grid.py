import numpy as np
import pytest

from metarl.envs import chart
from metarl.envs.grid import DOWN, LEFT, RIGHT, STAY, UP, GridNavigation
from metarl.tasks import Tasks


def walk(goal, actions, cells=5):
    env = GridNavigation(cells=cells).make_vec(Tasks({"goal": [goal]}))
    env.reset(seed=0)
    return [(*step[0][0], step[1][0]) for step in (env.step(np.array([a])) for a in actions)]


def test_walls_moves_and_rewards_by_hand():
    assert walk((2.0, 0.0), [LEFT, DOWN, UP, RIGHT, DOWN, RIGHT, STAY, RIGHT]) == [
        (0, 0, -0.1),
        (0, 0, -0.1),
        (0, 1, -0.1),
        (1, 1, -0.1),
        (1, 0, -0.1),
        (2, 0, 1.0),
        (2, 0, 1.0),
        (3, 0, -0.1),
    ]
    assert walk((2.0, 2.0), [UP] * 3 + [RIGHT] * 3, cells=3)[-1] == (2, 2, 1.0)


def test_an_episode_has_15_steps_and_the_next_starts_in_the_corner():
    env = GridNavigation().make_vec(GridNavigation().fixed("test", 3), 2)
    env.reset(seed=0)
    ends = [env.step(np.full(6, RIGHT))[2:4] for _ in range(15)]
    assert not any(terminated.any() for terminated, _ in ends)
    assert [truncated.all() for _, truncated in ends] == [False] * 14 + [True]
    mask = np.array([True] * 3 + [False] * 3)
    obs, _ = env.reset(options={"reset_mask": mask})
    assert obs.tolist() == [[0, 0]] * 3 + [[4, 0]] * 3


def test_goals_leave_out_the_start_and_its_neighbours_which_are_the_ood_goals():
    family = GridNavigation()
    near = {(0, 1), (1, 0), (1, 1)}
    assert len(family.goals("test")) == 21
    assert {tuple(g) for g in family.goals("ood")} == near
    assert not {tuple(g) for g in family.goals("train")} & (near | {(0, 0)})
    drawn = family.sample(21_000, np.random.default_rng(0)).arrays["goal"]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 21
    assert ((counts - 1000) ** 2 / 1000).sum() < 45.3  # chi-squared, 20 degrees of freedom, p = .001
    assert family.unseen is False


def test_the_optimal_policy_collects_all_it_can():
    family = GridNavigation()
    tasks = Tasks({"goal": np.concatenate([family.goals("train"), family.goals("ood")])})
    act, env = family.optimal_policy(tasks), family.make_vec(tasks)
    obs, _ = env.reset(seed=0)
    total = np.zeros(len(tasks))
    for _ in range(15):
        obs, rewards, *_ = env.step(act(obs[:, None])[:, 0])
        total += rewards
    distance = tasks.arrays["goal"].sum(1)
    assert np.allclose(total, (16 - distance) - 0.1 * (distance - 1))


@pytest.mark.parametrize("action", [-1, 5])
def test_an_action_that_is_not_there_is_refused(action):
    env = GridNavigation().make_vec(GridNavigation().fixed("train", 2))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="integers from 0 to 4"):
        env.step(np.array([0, action]))


@pytest.mark.parametrize("option", [{"cells": 2}, {"steps": 0}, {"episodes": 0}])
def test_impossible_options_are_refused(option):
    with pytest.raises(ValueError, match="needs cells"):
        GridNavigation(**option)


def test_the_picture_shows_walker_and_goal():
    env = GridNavigation().make_vec(Tasks({"goal": [[4.0, 4.0]]}))
    env.reset(seed=0)
    picture = env.render_frame(0)
    assert picture.shape == (360, 480, 3)
    (left, top, right, bottom), side = chart.SQUARE, 300 // 5
    assert picture[top + side // 4, right - side // 4].tolist() == [44, 160, 44]  # top right, green
    assert picture[bottom - side // 2, left + side // 2].tolist() == [31, 119, 180]  # bottom left, blue
    assert picture[bottom - side // 2, right - side // 2].tolist() == [255, 255, 255]


def test_the_picture_says_where_walker_and_goal_are(monkeypatch):
    said = []
    monkeypatch.setattr(chart.Chart, "text", lambda self, place, words, *_, **__: said.append(words))
    env = GridNavigation(cells=6).make_vec(Tasks({"goal": [[4.0, 5.0]]}))
    env.reset(seed=0)
    env.step(np.array([RIGHT]))
    env.render_frame(0)
    assert [said.count(str(number)) for number in range(6)] == [2] * 6  # both axes
    assert {"x", "y", "goal", "4, 5", "walker", "1, 0", "8 moves"} <= set(said)
