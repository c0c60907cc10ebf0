"""2D navigation: every preset against hand-computed numbers, and the value of known behaviours."""

import math

import gymnasium
import numpy as np
import pytest

from metarl.envs import chart, make_family
from metarl.envs.navigation import Navigation2D, reward_terms
from metarl.tasks import Tasks

PRESETS = Navigation2D.presets


def run(preset, goals, actions, start=None):
    """Rewards, terminated and truncated `(steps,)` of one point, and its positions `(steps + 1, 2)`."""
    env = Navigation2D(preset).make_vec(Tasks({"goal": [goals]}))
    obs, _ = env.reset(seed=0)
    if start is not None:
        env.position = np.array([start], dtype=float)
        obs = env.position
    places, outcomes = [obs[0]], []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(np.array([action], dtype=np.float32))
        places.append(obs[0])
        outcomes.append((reward[0], terminated[0], truncated[0]))
    rewards, terminated, truncated = map(list, zip(*outcomes, strict=True))
    return rewards, terminated, truncated, np.array(places)


def mean_return(preset, tasks, policy, episodes=4):
    env = Navigation2D(preset).make_vec(tasks, episodes)
    obs, _ = env.reset(seed=1)
    total = np.zeros(env.num_envs)
    for _ in range(env.family.horizon):
        obs, reward, *_ = env.step(policy(obs.reshape(len(tasks), episodes, 2)).reshape(-1, 2))
        total += reward
    return total.mean()


def stand_still(obs):
    return np.zeros_like(obs)


def wander():
    rng = np.random.default_rng(0)
    return lambda obs: rng.uniform(-1, 1, obs.shape)


def test_maml2017_pays_minus_the_distance_and_clips_each_axis():
    rewards, terminated, truncated, places = run("maml2017", [0.3, -0.4], [(1, 0), (3, -5), (-0.5, 0.5)])
    np.testing.assert_allclose(places, [[0, 0], [0.1, 0], [0.2, -0.1], [0.15, -0.05]], atol=1e-12)
    np.testing.assert_allclose(rewards, [-math.sqrt(0.2), -math.sqrt(0.1), -math.sqrt(0.0225 + 0.1225)], rtol=1e-7)
    assert not any(terminated + truncated)


def test_maml2017_ends_when_both_coordinates_are_within_a_hundredth():
    goal = [0.1, 0.05]
    assert run("maml2017", goal, [(0.95, 0.45)])[1] == [True]
    assert run("maml2017", goal, [(1, 0.35)])[1] == [False]  # x on the goal, y .015 away
    assert run("maml2017", goal, [(0.85, 0.5)])[1] == [False]
    rewards, terminated, _, _ = run("maml2017", goal, [(0.95, 0.45), (1, 1)])
    np.testing.assert_allclose(rewards, [-math.hypot(0.005, 0.005), 0.0], rtol=1e-5)
    assert terminated == [True, False]


@pytest.mark.parametrize(("preset", "horizon"), [("maml2017", 100), ("pearl", 20), ("varibad", 100), ("promp", 100)])
def test_horizons(preset, horizon):
    _, terminated, truncated, _ = run(preset, [0.5, 0.5], [(0, 0)] * horizon)
    assert truncated == [False] * (horizon - 1) + [True]
    assert not any(terminated)


def test_pearl_starts_anywhere_and_never_terminates():
    env = Navigation2D("pearl").make_vec(Tasks({"goal": [[0.0, 0.0]]}), 2000)
    obs, _ = env.reset(seed=0)
    assert np.abs(obs).max() <= 1
    np.testing.assert_allclose(obs.mean(0), 0, atol=0.06)  # 4.6 standard errors
    np.testing.assert_allclose(obs.std(0), 1 / math.sqrt(3), atol=0.03)
    again, _ = env.reset()
    assert (again != obs).any(1).all()
    rewards, terminated, _, places = run("pearl", [0.5, 0.5], [(1, 0), (0, 1), (0, 0)], start=(0.4, 0.4))
    np.testing.assert_allclose(places[-1], [0.5, 0.5])
    np.testing.assert_allclose(rewards, [-0.1, 0.0, 0.0], atol=1e-7)
    assert not any(terminated)


def test_varibad_pays_near_the_goal_only():
    rewards, terminated, _, _ = run("varibad", [0.0, 1.0], [(0, 1)] * 10)
    np.testing.assert_allclose(rewards[:7], 0)
    np.testing.assert_allclose(rewards[8:], [0.9, 1.0], atol=1e-9)
    assert not any(terminated)
    terms = reward_terms("varibad", np.zeros(2), np.array([0.19, 0.0]), np.zeros(2))
    assert terms == {"reward_goal": pytest.approx(0.81)}
    assert reward_terms("varibad", np.zeros(2), np.array([0.21, 0.0]), np.zeros(2)) == {"reward_goal": 0}


def test_promp_pays_progress_in_the_goals_quadrant_outside_the_quiet_zone():
    goal = np.array([2.0, 2.0])

    def paid(before, after):
        return float(reward_terms("promp", np.array(before), np.array(after), goal)["reward_progress"])

    assert paid([0.2, 0.2], [0.4, 0.2]) == pytest.approx(math.sqrt(2 * 1.8**2) - math.hypot(1.6, 1.8))
    assert paid([0.0, 0.2], [0.2, 0.2]) == 0  # within .5 of the origin
    assert paid([-0.8, 0.4], [-0.6, 0.4]) == 0  # closer, in another quadrant
    assert paid([0.6, 0.4], [0.4, 0.4]) == pytest.approx(math.hypot(1.4, 1.6) - math.hypot(1.6, 1.6))  # negative
    _, _, _, places = run("promp", [2, 2], [(1, -1), (9, 0.5)], start=(0, 0))
    np.testing.assert_allclose(places, [[0, 0], [0.2, -0.2], [0.4, -0.1]], atol=1e-12)


def test_goals_are_where_the_sources_put_them():
    def draw(preset, split="train"):
        return Navigation2D(preset).sample(4000, np.random.default_rng(0), split).arrays["goal"]

    for preset, half in (("maml2017", 0.5), ("pearl", 1.0)):
        goals = draw(preset)
        assert np.abs(goals).max() <= half
        np.testing.assert_allclose(goals.std(0), half / math.sqrt(3), rtol=0.05)
    semicircle = draw("varibad")
    np.testing.assert_allclose(np.linalg.norm(semicircle, axis=1), 1)
    assert semicircle[:, 1].min() >= 0
    corners, counts = np.unique(draw("promp"), axis=0, return_counts=True)
    assert corners.tolist() == [[-2, -2], [-2, 2], [2, -2], [2, 2]]
    assert counts.min() > 900
    assert not Navigation2D("promp").unseen


@pytest.mark.parametrize("preset", PRESETS)
def test_ood_goals_are_farther_than_any_trained_on(preset):
    family = Navigation2D(preset)
    farthest = {"maml2017": math.sqrt(0.5), "pearl": math.sqrt(2), "varibad": 1.0, "promp": math.sqrt(8)}[preset]
    trained = np.linalg.norm(family.sample(5000, np.random.default_rng(0)).arrays["goal"], axis=1)
    assert trained.max() <= farthest + 1e-9
    ood = family.fixed("ood", 200).arrays["goal"]
    assert np.linalg.norm(ood, axis=1).min() > farthest
    assert len(np.unique(ood, axis=0)) == 200
    if preset == "promp":  # how far does not tell which corner
        distance, side = np.abs(ood[:, 0]), ood[:, 0] > 0
        assert abs(distance[side].mean() - distance[~side].mean()) < 0.2


def test_known_behaviours_score_what_the_literature_says():
    tasks = Navigation2D().fixed("test", 1000)
    optimal = Navigation2D().optimal_policy(tasks)
    assert mean_return("maml2017", tasks, stand_still, 1) == pytest.approx(-38.3, abs=0.9)  # 2 standard errors
    assert mean_return("maml2017", tasks, optimal, 1) == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("preset", ["maml2017", "pearl", "varibad"])
def test_the_optimum_beats_other_behaviour_on_every_task(preset):
    tasks = Navigation2D(preset).fixed("test", 20)
    best = Navigation2D(preset).optimal_policy(tasks)
    value = mean_return(preset, tasks, best)
    rng = np.random.default_rng(0)
    for other in (stand_still, wander(), lambda obs: best(obs) * 0.9, lambda obs: best(obs) + rng.normal(0, 0.1)):
        assert value > mean_return(preset, tasks, other)


def test_promp_has_no_optimum_to_offer():
    assert Navigation2D("promp").optimal_policy(Navigation2D("promp").fixed("test", 4)) is None


def test_make_vec_spreads_environments_evenly_over_given_tasks():
    tasks = Navigation2D().fixed("test", 3)
    for asked, made in ((1, 3), (3, 3), (6, 6)):
        assert gymnasium.make_vec("metarl/Navigation2D-v0", num_envs=asked, tasks=tasks).num_envs == made
    with pytest.raises(ValueError, match="multiple of the 3 tasks given, got 4"):
        gymnasium.make_vec("metarl/Navigation2D-v0", num_envs=4, tasks=tasks)


def test_the_picture_shows_agent_goal_and_path():
    env = make_family("metarl/Navigation2D-v0").make({"goal": [0.4, 0.4]}, render_mode="rgb_array")
    env.reset(seed=0)
    for action in [(-1, 0)] * 3 + [(0, -1)] * 3:
        env.step(np.array(action, dtype=np.float32))
    picture = env.render()
    assert picture.shape == (360, 480, 3)
    left, top, right, bottom = chart.SQUARE
    plot, half = picture[top + 1 : bottom, left + 1 : right], (right - left) / 2

    def centre(colour):
        rows, columns = np.nonzero((plot == colour).all(-1))
        return (columns.mean() / half - 1) * 0.6, (1 - rows.mean() / half) * 0.6  # the plot spans +-.6

    np.testing.assert_allclose(centre((0x1F, 0x77, 0xB4)), [-0.3, -0.3], atol=0.01)
    goal = plot[round(half * (1 - 0.4 / 0.6)), round(half * (1 + 0.4 / 0.6))]
    assert goal.tolist() == [0x2C, 0xA0, 0x2C]
    on_the_way = plot[int(half) - 1 : int(half) + 2, int(half * (1 - 0.15 / 0.6))]
    assert [0x88] * 3 in on_the_way.tolist()
    assert picture[5, 5].tolist() == [255, 255, 255]


@pytest.mark.parametrize("preset", ["maml2017", "pearl", "varibad", "promp"])
def test_the_picture_has_axes_and_names_the_goal(preset, monkeypatch):
    family, said = make_family("metarl/Navigation2D-v0", preset), []
    text = chart.Chart.text

    def writes(self, place, words, *style, **more):
        said.append((words, *place))
        text(self, place, words, *style, **more)

    monkeypatch.setattr(chart.Chart, "text", writes)
    spans = []
    axes = chart.Chart.axes
    monkeypatch.setattr(chart.Chart, "axes", lambda self, *names: spans.append(self.across) or axes(self, *names))
    tasks = family.fixed("ood", 1)
    goal = tasks.arrays["goal"][0]
    env = family.make_vec(tasks)
    env.reset(seed=0)
    env.render_frame(0)
    [(low, high)] = spans
    left, top, right, bottom = chart.SQUARE
    assert high == -low > np.abs(goal).max()
    assert {"x", "y", f"{goal[0]:+.2f}, {goal[1]:+.2f}", "distance"} <= {words for words, *_ in said}
    [(_, x, y)] = [entry for entry in said if entry[0] == "goal" and entry[1] < right]  # beside the goal itself
    assert x == pytest.approx(left + (right - left) * (goal[0] - low) / (high - low), abs=13)
    assert y == pytest.approx(bottom - (bottom - top) * (goal[1] - low) / (high - low), abs=1)
    numbers = [float(words) for words, x, _ in said if x <= right and words[-1].isdigit()]
    assert len(numbers) > 3
    assert all(low <= number <= high for number in numbers)


def test_the_axes_grow_in_leaps_with_a_path_that_leaves_them(monkeypatch):
    spans = []
    monkeypatch.setattr(chart.Chart, "axes", lambda self, *_: spans.append(self.across[1]))
    env = make_family("metarl/Navigation2D-v0").make_vec(Tasks({"goal": [[0.1, 0.1]]}))
    env.reset(seed=0)
    for _ in range(30):
        env.step(np.array([[1.0, 0.0]]))
        env.render_frame(0)
        assert spans[-1] >= 1.05 * env.position[0, 0]
    assert sorted(set(spans)) == pytest.approx([0.6 * 1.5**i for i in range(6)])
