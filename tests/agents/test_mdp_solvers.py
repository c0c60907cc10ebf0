import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog

from metarl.agents.solvers import mdp_strategies as strategies
from metarl.agents.solvers import mdps as ms
from metarl.envs import make_family
from metarl.envs import tabular_planning as planning
from metarl.envs.tabular_belief import Belief
from metarl.envs.tabular_mdp import TabularMDP
from metarl.errors import UserError
from metarl.learning.contract import Budget
from metarl.seeding import Key
from metarl.tasks import Tasks

NAMES = list(ms.STRATEGIES)
RNG = np.random.default_rng


def random_mdps(n, states, actions, seed=0):
    rng = RNG(seed)
    return rng.standard_normal((n, states, actions)), rng.dirichlet(np.ones(states), (n, states, actions))


def some_belief(n=4, states=3, actions=2, steps=40, seed=0):
    belief, rng = Belief.prior(n, states, actions), RNG(seed)
    for _ in range(steps):
        state, to = rng.integers(0, states, (2, n))
        belief.update(state, rng.integers(0, actions, n), rng.standard_normal(n), to)
    return belief


def test_backward_induction_by_hand():
    """Two states; action 0 stays and pays the state's number, action 1 swaps and pays nothing."""
    transition = np.array([[[[1, 0], [0, 1]], [[0, 1], [1, 0]]]], float)
    reward = np.array([[[0, 0], [1, 0]]], float)
    worth = planning.plan(planning.model(reward, transition), 1, 2, 3)
    assert worth[0].tolist() == [[[1, 2], [3, 1]], [[0, 1], [2, 0]], [[0, 0], [1, 0]]]


@pytest.mark.parametrize("seed", range(3))
def test_backward_induction_finds_the_best_of_all_policies(seed):
    """Brute force over every time-dependent policy of a tiny MDP."""
    reward, transition = random_mdps(1, 2, 2, seed)
    horizon = 3

    def value(policy):
        v = np.zeros(2)
        for rule in reversed(policy):
            v = np.array([reward[0, s, rule[s]] + transition[0, s, rule[s]] @ v for s in range(2)])
        return v

    rules = list(itertools.product(range(2), repeat=2))
    best = np.max([value(policy) for policy in itertools.product(rules, repeat=horizon)], axis=0)
    assert np.allclose(planning.plan(planning.model(reward, transition), 1, 2, horizon)[0, 0].max(-1), best)


def test_the_posterior_by_hand():
    belief = Belief.prior(1, 3, 2)
    for reward, to in ((2.0, 1), (5.0, 1)):
        belief.update(np.array([0]), np.array([1]), np.array([reward]), np.array([to]))
    assert np.allclose(belief.transition[0, 0], [[1 / 3, 1 / 3, 1 / 3], [1 / 5, 3 / 5, 1 / 5]])
    assert np.allclose(belief.reward[0], [[1, (1 + 7) / 3], [1, 1], [1, 1]])
    assert Belief.prior(1, 3, 2, 0.0).reward.max() == 0.0


def test_draws_have_the_posteriors_moments():
    belief = Belief(
        np.tile([[[[1.0, 3.0, 1.0]]]], (40_000, 1, 1, 1)), np.full((40_000, 1, 1), 2.0), np.full((40_000, 1, 1), 7.0)
    )
    reward, transition = belief.sample(RNG(0))
    assert abs(reward.mean() - 8 / 3) < 4 * np.sqrt(1 / 3 / 40_000)
    assert abs(reward.var() - 1 / 3) < 0.01
    assert np.allclose(transition.sum(-1), 1)
    assert np.allclose(transition.mean(0), [[[0.2, 0.6, 0.2]]], atol=0.004)
    assert np.allclose(transition[:, 0, 0, 1].var(), 0.6 * 0.4 / 6, atol=0.002)


def test_the_most_hopeful_distribution_is_the_linear_programmes():
    rng = RNG(0)
    transition, value = rng.dirichlet(np.ones(4), (3, 2, 2)), rng.standard_normal((3, 4))
    radius = rng.uniform(0, 2.5, (3, 2, 2))
    found = planning.most_hopeful(np.moveaxis(transition, -1, 1), radius, value)
    for i, s, a in np.ndindex(3, 2, 2):
        p = transition[i, s, a]  # q = p + up - down, sum(up + down) <= radius
        programme = linprog(
            np.r_[-value[i], value[i]],
            A_ub=np.r_[[np.ones(8)], np.c_[-np.eye(4), np.eye(4)]],
            b_ub=np.r_[radius[i, s, a], p],
            A_eq=[np.r_[np.ones(4), -np.ones(4)]],
            b_eq=[0],
        )
        assert found[i, s, a] == pytest.approx(p @ value[i] - programme.fun, abs=1e-7)


def test_bonuses_by_hand():
    belief = Belief.prior(1, 2, 2)
    belief.update(np.array([0]), np.array([0]), np.array([1.0]), np.array([1]))
    zero, rng = np.zeros((1, 2)), RNG(0)
    assert np.allclose(
        strategies.BEB(6.0).backup(belief, {}, 1, rng)(zero), [[[1 + 6 / 4, 1 + 6 / 3], [1 + 6 / 3] * 2]]
    )
    width = 0.1 * np.sqrt(7 * np.log(2 * 2 * 2 * 5 / 0.05) / 2)
    assert np.allclose(strategies.UCRL2(0.1).backup(belief, {}, 5, rng)(zero), 1 + width)
    # from state 0 by action 0: mean (1/3, 2/3); the radius moves mass to state 1, worth 3
    radius = 0.1 * np.sqrt(14 * 2 * np.log(2 * 2 * 5 / 0.05))
    hopeful = 3 * min(1, 2 / 3 + radius / 2)
    assert strategies.UCRL2(0.1).backup(belief, {}, 5, rng)(np.array([[0.0, 3.0]]))[0, 0, 0] == pytest.approx(
        1 + width + hopeful
    )


def test_special_cases_are_their_simpler_relatives():
    belief = some_belief()

    def worth(strategy):
        return strategy.worth(belief, {}, 40, 5, RNG(1))

    greedy = worth(strategies.Greedy())
    assert np.array_equal(worth(strategies.BEB(0.0)), greedy)
    assert np.allclose(worth(strategies.UCRL2(0.0)), greedy)
    assert np.array_equal(worth(strategies.EpsilonGreedy(0.3)), greedy)
    assert np.array_equal(worth(strategies.OptimisticPSRL(1)), worth(strategies.PSRL()))
    assert (worth(strategies.OptimisticPSRL(4)) >= worth(strategies.PSRL())).all()
    assert (worth(strategies.OptimisticPSRL(4)) > worth(strategies.PSRL())).any()
    truth = {"reward": belief.reward, "transition": belief.transition}
    assert np.array_equal(strategies.KnownMDP().worth(some_belief(seed=9), truth, 40, 5, RNG(1)), greedy)


@pytest.mark.parametrize(
    "strategy",
    [strategies.Greedy(), strategies.BEB(3.0), strategies.UCRL2(0.05)],
    ids=lambda s: type(s).__name__,
)
def test_permuting_actions_and_states_permutes_behaviour(strategy):
    belief = some_belief(states=4, actions=3)
    states, actions = np.array([2, 0, 3, 1]), np.array([1, 2, 0])
    permuted = Belief(
        belief.concentration[:, states][:, :, actions][..., states],
        belief.count[:, states][:, :, actions],
        belief.total[:, states][:, :, actions],
    )
    straight = strategy.worth(belief, {}, 40, 5, RNG(0))
    assert np.allclose(strategy.worth(permuted, {}, 40, 5, RNG(0)), straight[:, :, states][:, :, :, actions])
    assert np.ptp(straight) > 0.1


def test_the_informed_optimum_earns_its_value_and_no_solver_more():
    family = TabularMDP(episodes=3)
    tasks = family.fixed("test", 400)
    arrays = tasks.arrays
    value = planning.plan(planning.model(arrays["reward"], arrays["transition"]), 400, 10, 10)[:, 0, 0].max(-1)
    returns = {name: ms.solver(name, family).play(tasks, 2, Key(0)).mean((1, 2)) for name in NAMES}
    error = (returns["informed"] - value).std() / np.sqrt(400)
    assert abs((returns["informed"] - value).mean()) < 3.3 * error
    for name in set(NAMES) - {"informed"}:
        assert (value - returns[name]).mean() > 3
        if name != "random":
            assert (returns[name] - returns["random"]).mean() > 0.5
    assert abs(returns["random"].mean() - 10) < 0.4


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("random", "informed")])
def test_returns_grow_over_the_episodes_and_start_from_the_prior(name):
    family = TabularMDP(episodes=10)
    returns = ms.solver(name, family).play(family.fixed("test", 500), 1, Key(0)).mean((0, 1))
    if name not in ms.ONLINE:  # those learn within the first episode
        assert abs(returns[0] - 10) < 0.9  # a policy made from the prior alone earns the prior's mean
    assert returns[-3:].mean() > returns[:2].mean() + 2


def test_beb_is_the_literatures():
    """Duan et al. 2016: BEB 150.2 with n = 10, greedy far above random."""
    family = TabularMDP()
    totals = ms.solver("beb", family).play(family.fixed("test", 1000), 1, Key(0)).sum(2)
    assert abs(totals.mean() - 150.2) < 3 * np.hypot(totals.std() / np.sqrt(1000), 0.85)


def test_planning_anew_at_every_step_earns_more():
    """161.7 instead of 151.6 on training tasks: what was just tried is not tried again in the same episode."""
    family = TabularMDP()
    tasks = family.fixed("train", 400)
    once, anew = (ms.solver(name, family).play(tasks, 1, Key(0))[:, 0] for name in ("beb", "online-beb"))
    gain = (anew - once).sum(1)
    assert gain.mean() > 5 + 2 * gain.std() / np.sqrt(400)
    assert anew[:, 0].mean() > once[:, 0].mean() + 0.2  # in the first episode already


def test_play_does_not_see_the_truth():
    """What was unseen cannot matter: tasks that differ only where the first episode cannot lead give equal play."""
    transition = np.zeros((1, 3, 2, 3))
    transition[..., 0] = 1.0  # always back to state 0
    reward = np.zeros((2, 3, 2))
    reward[1, 1:] = 100.0
    tasks = Tasks({"transition": np.repeat(transition, 2, 0), "reward": reward})
    family = TabularMDP(states=3, actions=2, episodes=2)
    for name in set(NAMES) - {"random", "informed"}:
        solver = ms.solver(name, family)
        assert np.array_equal(solver.play(tasks[:1], 20, Key(0)), solver.play(tasks[1:].at(""), 20, Key(0)))


def test_epsilon_is_the_probability_of_a_random_action():
    """One state pays 1 for action 0 and 0 for the other, so the mean reward counts the explorers."""
    transition = np.full((1, 2, 2, 2), 0.5)
    reward = np.array([[[50.0, 0.0], [50.0, 0.0]]])
    family = TabularMDP(states=2, actions=2, episodes=30)
    solver = ms.MDPSolver(family, strategies.EpsilonGreedy(0.4))
    late = solver.play(Tasks({"transition": transition, "reward": reward}), 400, Key(0))[:, :, 20:]
    assert abs(late.mean() / 10 - 50 * 0.8) < 0.5


def test_a_curve_has_a_score_an_episode_and_repeats():
    family = TabularMDP(episodes=4)
    tasks, solver = family.fixed("test", 20), ms.solver("psrl", family)
    scores = solver.curve(tasks, Budget(episodes=3), seed=1)
    assert scores.values.shape == (20, 4)
    assert scores.env_steps == (0, 10, 20, 30)
    assert scores.kind == "return"
    assert np.array_equal(scores.values, solver.curve(tasks, Budget(episodes=3), seed=1).values)
    assert not np.isclose(scores.values, solver.curve(tasks, Budget(episodes=3), seed=2).values).any()


def test_constants_come_from_the_nearest_trial_length(monkeypatch):
    monkeypatch.setattr(ms, "CONSTANTS", {10: (0.0, 1.0, 0.1, 2), 100: (0.0, 2.0, 0.1, 2)})
    assert [ms.constants(TabularMDP(episodes=n))[1] for n in (1, 25, 40, 500)] == [1.0, 1.0, 2.0, 2.0]


def test_what_is_not_there_is_refused():
    with pytest.raises(UserError, match="no MDP solver 'gittins'; choose from random"):
        ms.solver("gittins", TabularMDP())
    with pytest.raises(UserError, match="metarl/BernoulliBandit-v0 is none"):
        ms.solver("psrl", make_family("metarl/BernoulliBandit-v0"))


def test_plans_know_how_many_steps_are_left():
    """Going to state 1 costs 1 now and pays 10 next step, so the last step must not go there."""
    transition, reward = np.zeros((1, 2, 2, 2)), np.zeros((1, 2, 2))
    transition[0, 0, 0, 0] = transition[0, 0, 1, 1] = transition[0, 1, :, 0] = 1
    reward[0, 0] = 1, 0
    reward[0, 1] = 10
    family = TabularMDP(states=2, actions=2, steps=3, episodes=1)
    returns = ms.solver("informed", family).play(Tasks({"transition": transition, "reward": reward}), 4000, Key(0))
    assert abs(returns.mean() - 11) < 4 * np.sqrt(3 / 4000)


def test_constants_are_those_chosen_on_validation_tasks():
    tuning = json.loads((Path(__file__).parents[2] / "results" / "tabular_mdp" / "tuning.json").read_text())
    names = ("epsilon-greedy", "beb", "ucrl2", "optimistic-psrl")
    for episodes, chosen in ms.CONSTANTS.items():
        for name, constant in zip(names, chosen, strict=True):
            means = {
                float(key.split()[1]): row[f"n={episodes}"] for key, row in tuning.items() if key.startswith(f"{name} ")
            }
            assert constant == max(means, key=means.__getitem__)
