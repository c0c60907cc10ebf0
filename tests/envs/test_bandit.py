import numpy as np
import pytest

from metarl.envs import chart
from metarl.envs.bandit import MEANS, PULLS, BernoulliBandit, GaussianBandit
from metarl.tasks import Tasks

FAMILIES = [BernoulliBandit, GaussianBandit]


def play(env, arms, seed=0):
    env.reset(seed=seed)
    return np.stack([env.step(arm)[1] for arm in arms])


def test_certain_arms_pay_for_certain():
    env = BernoulliBandit(arms=3).make_vec(Tasks({"mean": [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]}), 2)
    rewards = play(env, [np.array([0, 1, 0, 1]), np.array([1, 2, 1, 2]), np.array([2, 1, 2, 0])])
    assert rewards.tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1]]


@pytest.mark.parametrize(("family", "means"), [(BernoulliBandit, (0.2, 0.7)), (GaussianBandit, (-1.0, 2.0))])
def test_arms_pay_their_means(family, means):
    bandit = family(arms=2, pulls=50)
    env = bandit.make_vec(Tasks({"mean": [means]}), 800)
    arms = np.arange(800) % 2
    rewards = play(env, [arms] * 50)
    assert set(np.unique(rewards)) == {0.0, 1.0} or family is GaussianBandit
    for arm, mean in enumerate(means):
        got = rewards[:, arms == arm]
        variance = mean * (1 - mean) if family is BernoulliBandit else 1.0
        assert abs(got.mean() - mean) < 4 * np.sqrt(variance / got.size)
        assert abs(got.var() - variance) < 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_an_episode_is_the_pulls_and_then_truncated(family):
    env = family(pulls=3).make_vec(family(pulls=3).fixed("train", 2), 2)
    env.reset(seed=0)
    ends = []
    for _ in range(5):
        obs, rewards, terminated, truncated, info = env.step(np.ones(4, np.int64))
        assert obs.tolist() == [[0.0]] * 4
        assert not terminated.any()
        assert np.array_equal(info["reward_pull"], rewards)
        ends.append(truncated.tolist())
    assert ends == [[False] * 4, [False] * 4, [True] * 4, [False] * 4, [False] * 4]
    assert not rewards.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_some_rows_may_start_again_while_others_go_on(family):
    bandit = family(pulls=4)
    env = bandit.make_vec(bandit.fixed("train", 4), 1)
    arms = np.zeros(4, np.int64)
    env.reset(seed=0)
    env.step(arms)
    env.reset(options={"reset_mask": np.array([True, False, False, True])})
    ends = [env.step(arms)[3].tolist() for _ in range(4)]
    assert ends == [[False] * 4, [False] * 4, [False, True, True, False], [True, False, False, True]]


def test_rows_that_go_on_keep_their_luck():
    bandit = GaussianBandit(pulls=4)
    tasks, arms = bandit.fixed("train", 4), [np.zeros(4, np.int64)] * 4
    undisturbed = play(bandit.make_vec(tasks), arms)
    env = bandit.make_vec(tasks)
    env.reset(seed=0)
    got = [env.step(arms[0])[1]]
    env.reset(options={"reset_mask": np.array([True, False, True, False])})
    got += [env.step(arms[0])[1] for _ in range(3)]
    same = np.isclose(np.stack(got), undisturbed)
    assert same[:, [1, 3]].all()
    assert not same[1:, [0, 2]].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_luck_is_keyed_by_seed_and_place(family):
    bandit = family(arms=4, pulls=20)
    tasks, arms = bandit.fixed("train", 6), np.random.default_rng(0).integers(0, 4, (20, 6))
    whole = play(bandit.make_vec(tasks), arms)
    assert np.array_equal(play(bandit.make_vec(tasks), arms), whole)
    assert np.array_equal(play(bandit.make_vec(tasks[:2]), arms[:, :2]), whole[:, :2])
    assert not np.array_equal(play(bandit.make_vec(tasks), arms, seed=1), whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_permuting_arms_permutes_rewards(family):
    bandit = family(arms=4, pulls=30)
    mean = bandit.fixed("test", 5).arrays["mean"]
    order = np.array([2, 0, 3, 1])  # new arm i is old arm order[i]
    arms = np.random.default_rng(0).integers(0, 4, (30, 5))
    permuted = play(bandit.make_vec(Tasks({"mean": mean[:, order]})), arms)
    assert np.array_equal(permuted, play(bandit.make_vec(Tasks({"mean": mean})), order[arms]))


@pytest.mark.parametrize("arm", [-1, 5])
def test_an_arm_that_is_not_there_is_refused(arm):
    env = BernoulliBandit().make_vec(BernoulliBandit().fixed("train", 2))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="integers from 0 to 4"):
        env.step(np.array([0, arm]))


@pytest.mark.parametrize(("arms", "pulls"), [(1, 10), (5, 0)])
def test_impossible_options_are_refused(arms, pulls):
    with pytest.raises(ValueError, match="2 to 10,000 arms and 1 to 1,000,000 pulls"):
        BernoulliBandit(arms=arms, pulls=pulls)


def test_the_priors():
    rng = np.random.default_rng(0)
    uniform = BernoulliBandit().sample(20_000, rng).arrays["mean"]
    assert abs(uniform.mean() - 0.5) < 0.005
    assert abs(uniform.var() - 1 / 12) < 0.002
    ood = BernoulliBandit().sample(20_000, rng, "ood").arrays["mean"]
    narrow = ((ood > 0.4) & (ood < 0.6)).all(1)
    assert abs(narrow.mean() - 0.5) < 0.02
    assert abs(ood[narrow].var() - 0.2**2 / 12) < 1e-4
    assert abs(ood[~narrow].var() - 1 / 8) < 0.002  # Beta(1/2, 1/2)
    gaussian = GaussianBandit().sample(20_000, rng).arrays["mean"]
    assert abs(gaussian.mean()) < 0.02
    assert abs(gaussian.var() - 1) < 0.03
    spread = GaussianBandit(arms=50).sample(2000, rng, "ood").arrays["mean"].std(1)
    assert abs((spread < 1).mean() - 0.5) < 0.05
    assert np.allclose([spread[spread < 1].mean(), spread[spread > 1].mean()], [0.3, 3.0], rtol=0.03)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_picture_shows_the_pull(family):
    env = family().make_vec(family().fixed("train", 2))
    env.reset(seed=0)
    before = env.render_frame(1)
    env.step(np.array([0, 2]))
    assert before.shape == (360, 480, 3)
    assert not np.array_equal(env.render_frame(1), before)


def blue_above(picture, box, arm, arms):
    """How high the blue bar of an arm is, in pixels of the chart in a box."""
    left, top, right, bottom = box
    column = left + round((arm + 0.5) * (right - left) / arms)
    return int((picture[top + 1 : bottom, column] == (0x1F, 0x77, 0xB4)).all(-1).sum())


def test_the_picture_shows_means_and_counts_the_pulls_of_this_episode(monkeypatch):
    family = BernoulliBandit(arms=3, pulls=4)
    env = family.make_vec(Tasks({"mean": [[0.25, 0.75, 0.5]] * 2}))
    env.reset(seed=0)
    for pull in ([0, 0], [1, 0], [1, 1], [1, 2]):  # an episode that is not counted below
        env.step(np.array(pull))
    env.reset()
    said = []
    text = chart.Chart.text

    def writes(self, place, words, *style, **more):
        said.append(words)
        text(self, place, words, *style, **more)

    monkeypatch.setattr(chart.Chart, "text", writes)
    empty = env.render_frame(0)
    assert "no pull yet" in said
    assert " ".join(said).endswith("arm how often it was pulled 0.25 0 0.75 0 0.50 0 best no pull yet")
    for pull in ([2, 1], [1, 1], [2, 0]):
        rewards = env.step(np.array(pull))[1]
    said.clear()
    picture = env.render_frame(0)
    assert f"pull 3: arm 2, reward {rewards[0]:.2f}" in said
    assert " ".join(said[:-1]).endswith("arm how often it was pulled 0.25 0 0.75 1 0.50 2 best")
    assert blue_above(empty, MEANS, 2, 3) == 0
    mean, pulls = blue_above(picture, MEANS, 2, 3), blue_above(picture, PULLS, 2, 3)
    assert mean == pytest.approx((MEANS[3] - MEANS[1]) * 0.5 / 1.2, abs=2)  # of a scale that ends at 1.2
    assert pulls == pytest.approx((PULLS[3] - PULLS[1]) * 2 / 2.4, abs=2)
    assert blue_above(picture, MEANS, 1, 3) == blue_above(picture, PULLS, 1, 3) == 0  # grey: not pulled last


@pytest.mark.parametrize("arms", [2, 5, 50, 300])
def test_any_number_of_arms_can_be_drawn(arms):
    env = GaussianBandit(arms=arms).make_vec(GaussianBandit(arms=arms).fixed("test", 1))
    env.reset(seed=0)
    env.step(np.array([arms - 1]))
    assert (env.render_frame(0) == (0x1F, 0x77, 0xB4)).all(-1).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_optimal_policy_pulls_the_best_arm(family):
    tasks = Tasks({"mean": [[0.1, 0.9, 0.2], [0.8, 0.3, 0.7]]})
    assert family(arms=3).optimal_policy(tasks)(np.zeros((2, 4, 1))).tolist() == [[1] * 4, [0] * 4]
