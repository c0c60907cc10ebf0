from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metarl.evaluation.statistics import (
    Values,
    bootstrap,
    difference,
    holm,
    interquartile_mean,
    least_p,
    p_value,
    performance_profile,
    probability_of_improvement,
    worst_tenth,
)

# Bootstrap: each literal is the 2.5 % and 97.5 % point of the exact distribution of the resampled mean.


def ends(interval: Any) -> tuple[float, float, float]:
    return float(interval.value), float(interval.low), float(interval.high)


def test_bootstrap_over_tasks_equals_the_exact_quantiles() -> None:
    # Four tasks, one of them 1: the resampled sum is Binomial(4, 1/4); P(>=3) = .051, P(4) = .004, P(0) = .316.
    assert ends(bootstrap(np.array([[0.0, 0.0, 0.0, 1.0]]))) == (0.25, 0.0, 0.75)


def test_bootstrap_resamples_seeds_and_tasks_crossed() -> None:
    # Score = 2 seed + task: both ends have probability 1/4 * 1/4 > .025. Resampling the four scores as if
    # they were independent would give [.5, 2.5], resampling tasks alone [1, 2], seeds alone [.5, 2.5].
    assert ends(bootstrap(np.array([[0.0, 1.0], [2.0, 3.0]]))) == (1.5, 0.0, 3.0)


def test_stratified_bootstrap_keeps_the_tasks() -> None:
    # Two tasks, two seeds, score = 2 seed + task: each task draws its two seeds alone, so the resampled mean is
    # .5 + Binomial(4, 1/2) / 2, whose ends have probability 1/16 > .025; no task is ever drawn twice.
    assert ends(bootstrap(np.array([[0.0, 1.0], [2.0, 3.0]]), scheme="stratified")) == (1.5, 0.5, 2.5)
    # Of 0, 0, 0, 1 within each of two tasks: Binomial(8, 1/4) / 8; P(0) = .100, P(>=5) = .027, P(>=6) = .004.
    found = bootstrap(np.repeat([[0.0], [0.0], [0.0], [1.0]], 2, axis=1), scheme="stratified")
    assert ends(found) == (0.25, 0.0, 0.625)


def test_bootstrap_of_one_task_resamples_seeds() -> None:
    assert ends(bootstrap(np.array([[0.0], [0.0], [0.0], [1.0]]))) == (0.25, 0.0, 0.75)


def test_bootstrap_over_three_factors() -> None:
    # As above with a third factor that adds 4: every end needs one level of each, probability 1/4^3 = .016 < .025;
    # the next values are those with one of the six draws changed.
    values = np.array([[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]]])
    assert ends(bootstrap(values, factors=3)) == (3.5, 0.5, 6.5)


@pytest.mark.parametrize("scheme", ["crossed", "stratified"])
def test_bootstrap_of_one_number_has_no_interval(scheme: Any) -> None:
    found = bootstrap(np.array([[[3.0, 4.0]]]), scheme=scheme)
    assert found.value.tolist() == [3.0, 4.0]
    assert np.isnan([found.low, found.high]).all()


def test_bootstrap_repeats_and_treats_columns_alike() -> None:
    values = np.random.default_rng(0).normal(size=(3, 20, 2))
    once, again = bootstrap(values), bootstrap(values)
    assert np.array_equal(once.low, again.low)
    assert np.array_equal(once.high, again.high)
    assert ends(bootstrap(values[..., 1])) == pytest.approx((once.value[1], once.low[1], once.high[1]))


def test_bootstrap_width_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(size=(1, 400))
    _, low, high = ends(bootstrap(values))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_a_mean_leaves_out_what_diverged() -> None:
    scores = np.arange(30.0)
    scores[7] = np.nan
    found = bootstrap(scores[None])
    assert float(found.value) == np.delete(scores, 7).mean()
    assert found.low < found.value < found.high
    both = bootstrap(np.stack([scores, np.arange(30.0)], axis=1)[None])
    assert ends(bootstrap(np.arange(30.0)[None])) == (both.value[1], both.low[1], both.high[1])


def test_a_mean_whose_resamples_may_all_have_diverged_has_no_interval() -> None:
    value, low, high = ends(bootstrap(np.array([[0.0, np.nan, 1.0]])))  # one in 27 draws the NaN alone
    assert value == 0.5
    assert np.isnan([low, high]).all()
    assert np.isnan(ends(bootstrap(np.full((2, 3), np.nan)))).all()


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """New seeds and new tasks: crossed covers; stratified, which takes a seed's luck for noise, does not."""
    rng = np.random.default_rng(7)
    covered = {"crossed": 0, "stratified": 0}
    worlds, seeds, tasks = 150, 16, 24
    for _ in range(worlds):
        scores = 0.7 * rng.normal(size=(seeds, 1)) + 0.7 * rng.normal(size=(1, tasks)) + rng.normal(size=(seeds, tasks))
        for scheme in ("crossed", "stratified"):
            _, low, high = ends(bootstrap(scores, scheme=scheme))
            covered[scheme] += low <= 0.0 <= high
    assert 0.88 <= covered["crossed"] / worlds <= 0.99
    assert covered["stratified"] / worlds < 0.7


# Ten runs drawn with numpy's default_rng(5); the numbers beside them are rliable 1.2.0's, with 50,000 resamples.

X = np.array(
    [
        [-0.80, -1.32, -0.25, 0.42, 1.14, 0.11],
        [-0.55, -0.78, 0.75, 1.63, 0.27, -1.23],
        [-0.96, 1.60, 0.20, -1.73, -0.08, -1.16],
        [-0.63, -0.49, -0.71, 0.55, -0.06, -0.59],
        [0.41, 0.83, -1.64, -0.26, -0.98, -0.17],
    ]
)
Y = np.array(
    [
        [-0.99, 0.32, 0.26, 0.00, -0.75, -0.10],
        [-0.79, -1.06, 0.52, -0.81, 1.47, 1.02],
        [-1.70, 0.57, -0.80, 0.33, 0.34, -1.69],
        [0.07, 0.04, 1.26, -0.88, 1.04, -0.80],
        [-0.03, -0.54, 1.75, 0.87, 2.73, 0.94],
    ]
)


def test_stratified_intervals_are_those_of_rliable() -> None:
    assert ends(bootstrap(X, scheme="stratified")) == pytest.approx((-0.216, -0.509, 0.077), abs=0.02)
    middle = bootstrap(X, scheme="stratified", statistic=interquartile_mean)
    assert ends(middle) == pytest.approx((-0.27375, -0.595, 0.054), abs=0.02)
    assert float(middle.value) == pytest.approx(-0.27375)


def test_profile_and_probability_of_improvement_are_those_of_rliable() -> None:
    shares = performance_profile(X, np.array([-1.0, 0.0, 1.0]))
    assert shares.value == pytest.approx([25 / 30, 11 / 30, 3 / 30])
    assert float(probability_of_improvement(X, Y).value) == pytest.approx(0.4266666667)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 4), (3, 7)])
def test_interquartile_mean_is_scipys_trimmed_mean(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(3).normal(size=(*shape, 2))
    found = bootstrap(values, statistic=interquartile_mean).value
    assert found == pytest.approx([stats.trim_mean(values[..., c], 0.25, axis=None) for c in range(2)])


def test_interquartile_mean_of_repeated_scores_is_that_of_the_written_out_sample() -> None:
    counts, scores = np.array([[3.0, 0.0, 1.0, 4.0]]), np.array([[5.0], [9.0], [-1.0], [2.0]])
    assert interquartile_mean(counts, scores)[0, 0] == stats.trim_mean([5, 5, 5, -1, 2, 2, 2, 2], 0.25)


def test_interquartile_mean_ignores_a_hopeless_task() -> None:
    assert float(bootstrap(np.array([[1.0, 2.0, 3.0, -1e9]]), statistic=interquartile_mean).value) == 1.5


def test_what_diverged_takes_the_worst_rank_in_the_interquartile_mean() -> None:
    scores = np.array([[-np.inf, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
    assert float(bootstrap(scores, statistic=interquartile_mean).value) == 3.5  # of 2, 3, 4, 5: as with -1e9
    scores[0, 1:3] = -np.inf
    found = bootstrap(scores, statistic=interquartile_mean)
    assert ends(found)[:2] == (-np.inf, -np.inf)
    assert float(bootstrap(-scores, statistic=interquartile_mean).value) == np.inf
    assert np.isfinite(found.high)


# Two agents


def test_difference_is_paired_by_task() -> None:
    # The tasks differ by 1000, every one by exactly 3: a paired interval has no width.
    base = np.array([[0.0, 1000.0, 2000.0, 3000.0]])
    assert ends(difference(base + 3, base)) == (3.0, 3.0, 3.0)
    assert ends(difference(base, base + 3)) == (-3.0, -3.0, -3.0)


def test_difference_resamples_the_seeds_of_both() -> None:
    # One task; seeds 0 and 1 beside seeds 0 and 10: each end is drawn with probability 1/4 * 1/4.
    found = difference(np.array([[0.0], [1.0]]), np.array([[0.0], [10.0]]))
    assert ends(found) == (-4.5, -10.0, 1.0)


def test_an_agent_beside_itself() -> None:
    scores = np.random.default_rng(2).normal(size=(3, 20))
    value, low, high = ends(difference(scores, scores))
    assert value == pytest.approx(0.0, abs=1e-15)
    assert low < 0.0 < high
    assert ends(difference(scores[:1], scores[:1])) == (0.0, 0.0, 0.0)
    assert p_value(scores, scores) == 1.0
    assert float(probability_of_improvement(scores, scores).value) == 0.5


def test_a_difference_with_what_diverged_is_none() -> None:
    assert np.isnan(ends(difference(np.array([[np.nan, 9.0]]), np.zeros((1, 2))))).all()
    assert np.isnan(ends(difference(np.zeros((1, 2)), np.array([[np.nan, 9.0]])))).all()


# p-values: the larger of sign flips of tasks and of Welch's t over seeds and tasks


def test_p_value_counts_sign_flips() -> None:
    # Differences 1, 2, 4 and so on: of 16 sums +-1 +-2 +-4 +-8 only +-15 are as far from 0.
    assert p_value(np.array([[5.0, 5.01, 5.02, 5.03]]), np.zeros((1, 4))) == 2 / 16
    assert p_value(np.array([[5.0, 5.01]]), np.zeros((1, 2))) == least_p(2) == 0.5  # whatever their size
    assert p_value(np.array([[5.0]]), np.array([[1.0]])) == least_p(1) == 1.0  # one task proves nothing


def test_p_value_is_students_where_seeds_and_tasks_are_alike() -> None:
    # One task-free offset a seed: only seeds differ, so this is Welch's two-sample test of the seeds' means.
    ours, theirs = np.array([0.3, 1.1, 0.7, 1.9, 0.2]), np.array([0.0, 0.4, -0.6, 0.5, 0.1, 0.9])
    tasks = np.zeros((1, 20))
    expected = stats.ttest_ind(ours, theirs, equal_var=False).pvalue
    assert p_value(ours[:, None] + tasks, theirs[:, None] + tasks) == pytest.approx(expected)
    one = p_value(ours[:, None] + tasks, np.full((1, 20), 0.2))  # an agent that is not trained
    assert one == pytest.approx(stats.ttest_1samp(ours, 0.2).pvalue)


def test_p_value_adds_the_variance_of_tasks_to_that_of_seeds() -> None:
    rng = np.random.default_rng(8)
    ours, theirs = rng.normal(0.8, 1.0, size=(5, 12)), rng.normal(size=(6, 12))
    variances = [(ours.mean(0) - theirs.mean(0)).var(ddof=1) / 12]
    variances += [ours.mean(1).var(ddof=1) / 5, theirs.mean(1).var(ddof=1) / 6]
    freedom = sum(variances) ** 2 / sum(v**2 / n for v, n in zip(variances, (11, 4, 5), strict=True))
    t = (ours.mean() - theirs.mean()) / np.sqrt(sum(variances))
    assert p_value(ours, theirs) == pytest.approx(2 * stats.t.sf(t, freedom))


@pytest.mark.parametrize("tasks", [9, 60])
def test_p_value_of_agents_without_training_is_scipys(tasks: int) -> None:
    rng = np.random.default_rng(tasks)
    ours, theirs = rng.normal(0.25, 1.0, size=(1, tasks)), rng.normal(size=(1, tasks))
    flipped = stats.permutation_test(
        (ours[0] - theirs[0],), np.mean, permutation_type="samples", n_resamples=9999, rng=0
    ).pvalue
    expected = max(flipped, stats.ttest_rel(ours[0], theirs[0]).pvalue)
    assert p_value(ours, theirs) == pytest.approx(expected, abs=1e-12 if tasks < 13 else 0.02)


def test_p_value_does_not_depend_on_the_order_of_many_tasks() -> None:
    rng = np.random.default_rng(6)
    ours, theirs = rng.normal(0.3, 1.0, size=(1, 30)), rng.normal(size=(1, 30))
    order = rng.permutation(30)
    assert p_value(ours[:, order], theirs[:, order]) == pytest.approx(float(p_value(ours, theirs)), abs=1e-12)


def test_p_value_needs_finite_scores() -> None:
    assert np.isnan(p_value(np.array([[np.nan, 1.0]]), np.zeros((1, 2))))


def world(rng: np.random.Generator, seeds: int, tasks: int, worlds: int, luck: tuple[float, float, float]) -> Values:
    """Scores `(seeds, tasks, worlds)` of an agent whose seeds, tasks and both together differ by so much."""
    shapes = (seeds, 1, worlds), (1, tasks, worlds), (seeds, tasks, worlds)
    return np.asarray(sum(size * rng.normal(size=shape) for size, shape in zip(luck, shapes, strict=True)))


LUCK = {"seeds": (1.0, 0.1, 0.1), "tasks": (0.1, 1.0, 0.1), "both": (1.0, 1.0, 0.5), "neither": (0.0, 0.0, 1.0)}


@pytest.mark.parametrize("seeds", [(3, 3), (5, 5), (10, 10), (5, 10), (3, 1), (5, 1), (10, 1)], ids=str)
@pytest.mark.parametrize("luck", LUCK)
def test_alike_agents_differ_no_more_often_than_the_p_value_says(luck: str, seeds: tuple[int, int]) -> None:
    """New seeds and new tasks in each of 4,000 worlds; a rival of one seed is not trained, and has no luck of it."""
    rng = np.random.default_rng(sum(seeds))
    of_seed, *rest = LUCK[luck]
    ours, theirs = (
        world(rng, number, 10, 4000, (of_seed if number > 1 else 0.0, rest[0], rest[1])) for number in seeds
    )
    assert (p_value(ours, theirs) < 0.05).mean() <= 0.06


def test_agents_that_differ_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = (world(rng, 5, 40, 300, (0.5, 1.0, 0.5)) for _ in range(2))
    assert (p_value(ours + 1.5, theirs) < 0.05).mean() > 0.9
    untrained = world(rng, 1, 40, 300, (0.0, 1.0, 0.5))
    assert (p_value(ours + 1.5, untrained) < 0.05).mean() > 0.9


def test_the_worst_tenth_counts_its_last_score_in_part() -> None:
    def worst(scores: list[float]) -> float:
        column = np.array(scores)[:, None]
        return float(worst_tenth(np.ones((1, len(scores))), column)[0, 0])

    assert worst([*range(15)]) == pytest.approx((0 + 0.5 * 1) / 1.5)
    assert worst([*range(20, 0, -1)]) == 1.5
    assert worst([3.0, 1.0, 2.0]) == 1.0  # a tenth of three scores is a part of the worst
    assert worst([math.inf, -math.inf, 1.0]) == -math.inf
    assert worst([7.0] * 9 + [math.inf]) == 7.0
    counts = np.array([[2.0, 0.0, 18.0], [0.0, 1.0, 19.0]])
    repeated = worst_tenth(counts, np.array([[5.0], [6.0], [9.0]]))
    assert repeated[:, 0].tolist() == [5.0, 7.5]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60))
def test_the_worst_tenth_is_the_least_mean_of_any_tenth(scores: list[float]) -> None:
    values = np.sort(scores)
    tail = len(values) / 10
    levels = [values[0], *values]  # CVaR = max over t of t - mean(max(t - x, 0)) / .1 (Rockafellar & Uryasev 2000)
    dual = max(t - float(np.maximum(t - values, 0).sum()) / tail for t in levels)
    found = float(worst_tenth(np.ones((1, len(values))), values[:, None])[0, 0])
    assert found == pytest.approx(dual, rel=1e-9, abs=1e-9)


def test_holm_corrects_for_the_number_of_comparisons() -> None:
    # Of .01, .04, .03: .01 * 3, .03 * 2, then no less than that for .04.
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, np.nan, 0.03]).tolist() == pytest.approx([0.02, np.nan, 0.03], nan_ok=True)
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]


def test_probability_of_improvement_pairs_tasks_and_counts_ties_half() -> None:
    ours, theirs = np.array([[1.0, 5.0, 3.0, 0.0]]), np.array([[0.0, 4.0, 3.0, 9.0]])
    assert float(probability_of_improvement(ours, theirs).value) == (1 + 1 + 0.5 + 0) / 4
    assert float(probability_of_improvement(theirs, ours).value) == (0 + 0 + 0.5 + 1) / 4


def test_probability_of_improvement_is_mann_whitneys() -> None:
    rng = np.random.default_rng(4)
    ours, theirs = rng.normal(size=(4, 6)), rng.normal(size=(3, 6))
    pairs = list(zip(ours.T, theirs.T, strict=True))
    expected = np.mean([stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in pairs])
    assert float(probability_of_improvement(ours, theirs).value) == pytest.approx(expected)


def test_performance_profile_falls_from_one_to_nothing() -> None:
    scores = np.array([[0.0, 1.0, 2.0, 3.0]])
    found = performance_profile(scores, np.array([-1.0, 0.0, 1.5, 3.0]))
    assert found.value.tolist() == [1.0, 0.75, 0.5, 0.0]  # above, not at
    assert found.low[2] < 0.5 < found.high[2]
    assert all(a >= b for a, b in itertools.pairwise(found.low))
    assert performance_profile(np.array([[np.nan, 1.0]]), np.array([-1e9, 0.0])).value.tolist() == [0.5, 0.5]


def test_what_diverged_is_worse_than_anything_and_like_its_like() -> None:
    ours, theirs = np.array([[np.nan, np.nan, np.nan, 1.0]]), np.array([[-1e9, 0.0, np.nan, np.nan]])
    assert float(probability_of_improvement(ours, theirs).value) == (0 + 0 + 0.5 + 1) / 4
