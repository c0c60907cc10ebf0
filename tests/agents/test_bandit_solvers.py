import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from metarl.agents.solvers import bandit_strategies as strategies
from metarl.agents.solvers import bandits as bs
from metarl.agents.solvers import gittins
from metarl.agents.solvers.bandit_belief import Belief
from metarl.envs import make_family
from metarl.envs.bandit import BernoulliBandit, GaussianBandit
from metarl.errors import UserError
from metarl.learning.contract import Budget
from metarl.seeding import Key
from metarl.tasks import Tasks

FAMILIES = [BernoulliBandit(), GaussianBandit()]
NAMES = list(bs.STRATEGIES)


def play(name, family, tasks):
    return bs.solver(name, family).play(tasks, 1, Key(0))


def test_the_optimum_is_the_literatures():
    assert strategies.BayesOptimum(5, 10).value() == pytest.approx(6.660, abs=5e-4)
    assert strategies.BayesOptimum(10, 10).value() == pytest.approx(6.714, abs=5e-4)
    assert strategies.BayesOptimum(50, 10).value() == pytest.approx(strategies.BayesOptimum(10, 10).value())


def test_the_optimum_by_hand():
    assert strategies.BayesOptimum(2, 1).value() == pytest.approx(1 / 2)
    # success (1/2): the same arm, mean 2/3; failure: the other arm, mean 1/2
    assert strategies.BayesOptimum(2, 2).value() == pytest.approx(1 / 2 + 1 / 2 * 2 / 3 + 1 / 2 * 1 / 2)


@pytest.mark.parametrize(("arms", "pulls"), [(2, 3), (3, 3), (2, 4)])
def test_the_optimum_is_the_best_of_all_policies(arms, pulls):
    """Brute force over histories, with nothing known of symmetry or of sufficient statistics."""

    def best(history):
        if len(history) == pulls:
            return 0.0

        def worth(arm):
            paid = [r for a, r in history if a == arm]
            p = (sum(paid) + 1) / (len(paid) + 2)
            return p * (1 + best([*history, (arm, 1)])) + (1 - p) * best([*history, (arm, 0)])

        return max(map(worth, range(arms)))

    assert strategies.BayesOptimum(arms, pulls).value() == pytest.approx(best([]), abs=1e-12)


def test_playing_the_optimum_earns_its_value():
    family = BernoulliBandit()
    totals = play("bayes-optimum", family, family.fixed("test", 4000)).rewards.sum(2)
    assert abs(totals.mean() - 6.660) < 3.3 * totals.std() / np.sqrt(totals.size)


def test_too_many_pulls_for_the_optimum_and_arms_it_does_not_know_are_refused():
    with pytest.raises(UserError, match="at most 16 pulls, got 17"):
        bs.solver("bayes-optimum", BernoulliBandit(pulls=17))
    with pytest.raises(UserError, match="Bernoulli arms, not gaussian"):
        play("bayes-optimum", GaussianBandit(), GaussianBandit().fixed("test", 1))


def test_bernoulli_gittins_indices_are_the_published_ones():
    table = gittins.bernoulli_gittins(0.9, 4)  # Gittins, Glazebrook and Weber 2011, table 8.4
    assert table[0, 0] == pytest.approx(0.7029, abs=6e-5)
    assert table[1, 1] == pytest.approx(0.8001, abs=6e-5)
    assert table[1, 0] == pytest.approx(0.5001, abs=6e-5)
    assert table[2, 2] == pytest.approx(0.8452, abs=6e-5)
    assert gittins.bernoulli_gittins(0.99, 1)[0, 0] == pytest.approx(0.8699, abs=6e-5)


def exact_index(discount, n, s, ahead):
    """The Gittins index after n pulls with s successes, to 1e-9: by halving, on every state that can be reached."""
    low, high = (s + 1) / (n + 2), 1.0
    while high - low > 1e-9:
        known = (low + high) / 2
        value = np.maximum(np.arange(s + 1, s + ahead + 2) / (n + ahead + 2), known)
        for t in range(n + ahead - 1, n - 1, -1):
            p = np.arange(s + 1, s + 2 + t - n) / (t + 2)
            go_on = p * (1 - discount + discount * value[1:]) + (1 - p) * discount * value[:-1]
            value = np.maximum(go_on, known)
        low, high = (known, high) if go_on[0] > known else (low, known)
    return low


def test_bernoulli_gittins_indices_are_right_where_posteriors_are_narrow():
    table = gittins.bernoulli_gittins(0.9, 100)
    for n, s in ((0, 0), (10, 5), (100, 0), (100, 2), (100, 50), (100, 97), (100, 100)):
        assert table[n, s] == pytest.approx(exact_index(0.9, n, s, 120), abs=2e-5)
    assert np.nanmax(abs(gittins.bernoulli_gittins(0.9, 100, 2 * gittins.LEVELS) - table)) < 1e-4


# n (1 - discount)^(1/2) times the index after n - 1 pulls: Gittins, Glazebrook and Weber 2011, table 8.1
NORMAL = {
    0.5: {1: 0.14542, 2: 0.17209, 3: 0.18522, 10: 0.21113, 100: 0.22554},
    0.9: {1: 0.23609, 2: 0.29485, 3: 0.32876, 10: 0.41526, 100: 0.49266},
    0.99: {1: 0.15758, 2: 0.20830, 3: 0.24184, 10: 0.35285, 100: 0.54864},
}


@pytest.mark.parametrize(("discount", "literal"), [(0.9, [0.7466, 0.4662, 0.3465]), (0.99, [1.5758, 1.0415, 0.8061])])
def test_gaussian_gittins_bonus_literals(discount, literal):
    assert gittins.gaussian_gittins(discount, 2) == pytest.approx(literal, abs=6e-5)


@pytest.mark.parametrize("discount", NORMAL)
def test_gaussian_gittins_bonuses_are_the_published_ones(discount):
    bonus = gittins.gaussian_gittins(discount, 99)
    for n, published in NORMAL[discount].items():
        assert n * np.sqrt(1 - discount) * bonus[n - 1] == pytest.approx(published, abs=3e-4)
        assert bonus[n - 1] == pytest.approx(published / n / np.sqrt(1 - discount), abs=6e-5)


@pytest.mark.parametrize("discount", [0.5, 0.9, 0.99])
def test_a_finer_lattice_and_a_farther_horizon_hardly_move_gaussian_gittins_bonuses(discount, monkeypatch):
    bonus = gittins.gaussian_gittins(discount, 99)
    assert abs(gittins.gaussian_gittins(discount, 99, gittins.SPACING / 2) - bonus).max() < 1e-5
    monkeypatch.setattr(gittins, "TAIL", gittins.TAIL**2)
    assert abs(gittins.gaussian_gittins.__wrapped__(discount, 99) - bonus).max() < 1e-5


@pytest.mark.parametrize("discount", [-0.1, 1.0, float("nan")])
def test_a_gittins_index_needs_a_discount_below_one(discount):
    for table in (gittins.bernoulli_gittins, gittins.gaussian_gittins):
        with pytest.raises(ValueError, match=r"a discount in \[0, 1\)"):
            table(discount, 3)


def test_without_a_future_the_gittins_index_is_the_mean():
    table = gittins.bernoulli_gittins(0.0, 3)
    expected = [[(s + 1) / (n + 2) if s <= n else np.nan for s in range(4)] for n in range(4)]
    assert np.allclose(table, expected, atol=1e-9, equal_nan=True)
    assert np.allclose(gittins.gaussian_gittins(0.0, 3), 0, atol=1e-9)


def test_gaussian_gittins_bonus_lies_between_one_look_and_full_knowledge():
    """Retiring after one more pull bounds it from below, learning the mean by one pull from above."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    def bound(scale, discount):
        def gain(y):  # y now, then the better of going on for ever and stopping
            return (1 - discount) * y + discount * (y * norm.cdf(y / scale) + scale * norm.pdf(y / scale))

        return -brentq(gain, -20, 0)

    for discount in (0.5, 0.9, 0.95):
        bonus = gittins.gaussian_gittins(discount, 5)
        for n in range(6):
            prior, move = np.sqrt(1 / (n + 1)), np.sqrt(1 / (n + 1) - 1 / (n + 2))
            assert bound(move, discount) < bonus[n] < bound(prior, discount)
        assert (np.diff(bonus) < 0).all()


def test_indices_by_hand():
    rng = np.random.default_rng(0)
    belief = Belief("bernoulli", np.array([[0.0, 4.0, 2.0]]), np.array([[0.0, 3.0, 0.0]]))
    assert np.allclose(strategies.Greedy().index(belief, 6, rng), [[1 / 2, 2 / 3, 1 / 4]])
    bonus = 0.3 * np.sqrt(2 * np.log(7) / np.array([[2, 6, 4]]))
    assert np.allclose(strategies.UCB1(0.3).index(belief, 6, rng), np.array([1 / 2, 2 / 3, 1 / 4]) + bonus)
    gaussian = Belief("gaussian", np.array([[0.0, 3.0]]), np.array([[0.0, 2.0]]))
    assert np.allclose(gaussian.mean, [[0.0, 0.5]])
    draws = np.concatenate([gaussian.sample(rng) for _ in range(20_000)])
    assert np.allclose(draws.mean(0), [0.0, 0.5], atol=0.03)
    assert np.allclose(draws.std(0), [1.0, 0.5], atol=0.02)
    draws = np.concatenate([belief.sample(rng) for _ in range(20_000)])
    assert np.allclose(draws.mean(0), [1 / 2, 2 / 3, 1 / 4], atol=0.01)
    assert np.allclose(draws.var(0), [1 / 12, 8 / 36 / 7, 3 / 16 / 5], atol=0.002)
    optimistic = strategies.OptimisticThompson().index(belief, 6, rng)
    assert (optimistic >= belief.mean).all()


def test_epsilon_is_the_probability_of_any_arm():
    belief = Belief("bernoulli", np.tile([1.0, 1.0], (40_000, 1)), np.tile([1.0, 0.0], (40_000, 1)))
    rng = np.random.default_rng(0)
    arms = bs.choose(strategies.EpsilonGreedy(0.3).index(belief, 2, rng), rng.random((40_000, 2)))
    assert abs((arms == 1).mean() - 0.15) < 0.007


def test_ties_are_broken_evenly_and_only_ties():
    index = np.tile([0.5, 0.2, 0.5], (30_000, 1))
    arms = bs.choose(index, np.random.default_rng(0).random(index.shape))
    assert set(arms) == {0, 2}
    assert abs((arms == 0).mean() - 0.5) < 0.01


@pytest.mark.parametrize("name", [n for n in NAMES if "thompson" not in n and n not in ("random", "epsilon-greedy")])
def test_permuting_arms_permutes_behaviour(name):
    """The indices of permuted beliefs are the permuted indices, for strategies that draw nothing."""
    family = BernoulliBandit(arms=4, pulls=8)
    strategy, rng = bs.STRATEGIES[name](family), np.random.default_rng(0)
    count = rng.integers(0, 3, (50, 4)).astype(float)
    total = np.floor(rng.random((50, 4)) * (count + 1))
    count, total = count[count.sum(1) < 8], total[count.sum(1) < 8]
    order = np.array([2, 0, 3, 1])
    straight = strategy.index(Belief("bernoulli", count, total), 3, rng)
    permuted = strategy.index(Belief("bernoulli", count[:, order], total[:, order]), 3, rng)
    assert np.array_equal(permuted, straight[:, order])
    assert np.ptp(straight) > 0


def test_no_solver_beats_the_optimum_and_all_beat_random():
    family = BernoulliBandit()
    tasks = family.fixed("test", 6000)
    totals = {name: play(name, family, tasks).rewards.sum(2)[:, 0] for name in NAMES}
    for name in NAMES:
        error = totals[name].std() / np.sqrt(len(tasks))
        assert totals[name].mean() < 6.660 + 3.3 * error
        if name != "random":
            assert (totals[name] - totals["random"]).mean() > 0.5
    assert abs(totals["random"].mean() - 5.0) < 0.07
    assert abs(totals["gittins"].mean() - 6.6) < 0.12  # Duan et al. 2016


def test_exploring_pays_when_there_are_many_pulls():
    family = BernoulliBandit(pulls=100)
    tasks = family.fixed("test", 1500)
    mean = {n: play(n, family, tasks).rewards.sum(2).mean() for n in ("gittins", "greedy", "thompson", "random")}
    assert mean["gittins"] > mean["greedy"] + 1.5
    assert mean["gittins"] > mean["thompson"] + 1.5
    assert mean["thompson"] > mean["random"] + 20


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.likelihood)
def test_regret_by_hand_and_falling(family):
    tasks = Tasks({"mean": [[0.1, 0.7, 0.4]]})
    record = bs.Play(np.array([[[0, 1, 2]]]), np.zeros((1, 1, 3)))
    assert np.allclose(record.regret(tasks), [[[0.6, 0.0, 0.3]]])
    regret = play("gittins", family, family.fixed("test", 2000)).regret(family.fixed("test", 2000)).mean((0, 1))
    assert regret[-1] < 0.6 * regret[0]


def test_play_does_not_see_the_means():
    """Equal luck and different means, where no reward differs, give equal behaviour."""
    family = BernoulliBandit(arms=2, pulls=5)
    arms = [
        play("gittins", family, Tasks({"mean": np.tile(mean, (50, 1))})).arms for mean in ([1e-12, 0.0], [0.0, 1e-12])
    ]
    assert np.array_equal(*arms)


@pytest.mark.parametrize(("name", "family"), list(itertools.product(["thompson", "gittins"], FAMILIES)))
def test_a_curve_is_one_score_a_task_and_repeats(name, family):
    tasks, solver = family.fixed("test", 20), bs.solver(name, family)
    scores = solver.curve(tasks, Budget(steps=3, episodes=4), seed=1)
    assert scores.values.shape == (20, 1)
    assert scores.env_steps == (0,)
    assert scores.kind == "return"
    assert np.array_equal(scores.values, solver.curve(tasks, Budget(steps=3, episodes=4), seed=1).values)
    assert not np.array_equal(scores.values, solver.curve(tasks, Budget(steps=3, episodes=4), seed=2).values)


def test_constants_come_from_the_nearest_cell(monkeypatch):
    monkeypatch.setattr(
        bs, "CONSTANTS", {(10, 5): (0.0, 0.1, 0.9), (100, 5): (0.0, 0.2, 0.99), (100, 50): (0, 0.3, 0.99)}
    )
    chosen = {k: bs.constants(BernoulliBandit(arms=k[1], pulls=k[0]))[1] for k in [(12, 50), (80, 4), (90, 40)]}
    assert chosen == {(12, 50): 0.1, (80, 4): 0.2, (90, 40): 0.3}


def test_what_is_not_there_is_refused():
    with pytest.raises(UserError, match="no bandit solver 'psrl'; choose from random"):
        bs.solver("psrl", BernoulliBandit())
    with pytest.raises(UserError, match="metarl/Navigation2D-v0 is none"):
        bs.solver("gittins", make_family("metarl/Navigation2D-v0"))


def test_constants_are_those_chosen_on_validation_tasks():
    tuning = json.loads((Path(__file__).parents[2] / "results" / "bandit" / "tuning.json").read_text())
    names = ("epsilon-greedy", "ucb1", "gittins")
    for (pulls, arms), chosen in bs.CONSTANTS.items():
        assert chosen == tuple(float(tuning[f"{name} n={pulls} k={arms}"]["best"]) for name in names)
    assert len(bs.CONSTANTS) * len(names) == len(tuning)
