"""What solvers say about trials that others have acted."""

import numpy as np
import pytest
import torch

from metarl.agents.solvers import bandits, mdps
from metarl.envs import make_family
from metarl.envs.tabular_belief import Belief
from metarl.envs.wrappers.trials import Trials
from metarl.learning.acting import PlansTrials
from metarl.sampling.episodes import Episodes
from metarl.sampling.rollout import run_episodes
from metarl.seeding import Key

BANDIT = make_family("metarl/BernoulliBandit-v0", arms=3, pulls=6)
MDP = make_family("metarl/TabularMDP-v0", states=3, actions=2, steps=4, episodes=3)


def acted(family, tasks, choose):
    """Trials of a controller `choose(observations (N, D), t) -> actions (N,)`."""
    env = Trials(family=family).make_vec(tasks, 1)
    return run_episodes(env, lambda obs, t: torch.from_numpy(choose(obs[:, 0].numpy(), t)), Key(0))


def at_random(actions, seed=0):
    rng = np.random.default_rng(seed)
    return lambda obs, t: rng.integers(actions, size=len(obs))


@pytest.mark.parametrize("name", [n for n in bandits.STRATEGIES if n not in ("thompson", "optimistic-thompson")])
def test_a_bandits_advice_is_what_the_solver_does(name):
    """Who always does what is advised earns what the solver earns; equals are told apart by chance there."""
    tasks = BANDIT.fixed("train", 2000)
    solver = bandits.solver(name, BANDIT)
    pulled = solver.play(tasks, 1, Key(1))
    episodes = acted(BANDIT, tasks, lambda obs, t: pulled.arms[:, 0, t])
    advice = solver.advise(episodes, tasks, Key(0))
    assert advice.shape == (2000, 6, 3)
    assert advice.any(-1).all()
    first = advice[:, 0]
    assert first.all()  # nothing is known
    followed = np.take_along_axis(advice, episodes.actions[:, 0].numpy()[..., None], 2)
    assert followed[:, 0].all()


def test_gittins_advice_by_hand():
    """After arm 0 paid: arm 0. After it did not: any other. After both others failed too: the one tried least."""
    tasks = BANDIT.fixed("train", 1)
    arms = np.array([[0, 0, 0, 1, 2, 0]])
    rewards = np.array([[1.0, 0, 0, 0, 0, 0]])
    episodes = Episodes(
        obs=torch.zeros(1, 1, 6, 6),
        actions=torch.from_numpy(arms)[:, None],
        rewards=torch.from_numpy(rewards).float()[:, None],
        **{name: torch.zeros(1, 1, 6, dtype=torch.bool) for name in ("terminated", "truncated")},
        valid=torch.ones(1, 1, 6, dtype=torch.bool),
        unstable=torch.zeros(1, 1, dtype=torch.bool),
    )
    advice = bandits.solver("gittins", BANDIT).advise(episodes, tasks, Key(0))[0]
    assert advice[0].tolist() == [True, True, True]
    assert advice[1].tolist() == [True, False, False]
    assert advice[3].tolist() == [False, True, True]  # Beta(2, 3) against Beta(1, 1)
    assert advice[4].tolist() == [False, False, True]


@pytest.mark.parametrize("name", ["beb", "online-beb", "greedy", "ucrl2", "informed"])
def test_an_mdps_advice_is_the_plan_from_what_was_seen(name):
    tasks = MDP.fixed("train", 40)
    episodes = acted(MDP, tasks, at_random(2))
    solver = mdps.solver(name, MDP)
    advice = solver.advise(episodes, tasks, Key(0))
    obs, actions, rewards = (x[:, 0].numpy() for x in (episodes.obs, episodes.actions, episodes.rewards))
    states = obs[..., :3].argmax(-1)
    for row in range(40):
        belief, task = Belief.prior(1, 3, 2), tasks[row : row + 1].arrays
        for t in range(12):
            if solver.online or t % 4 == 0:
                plan, since = solver.strategy.worth(belief, task, t, 4 - t % 4, np.random.default_rng(0)), t
            worth = plan[0, t - since, states[row, t]]
            np.testing.assert_array_equal(advice[row, t], worth >= worth.max() - 1e-9)
            s, a = states[row, t], actions[row, t]
            belief.count[0, s, a] += 1
            belief.total[0, s, a] += float(rewards[row, t])
            if t % 4 < 3:  # the agent is shown the next episode's first state in place of this one's last
                belief.concentration[0, s, a, states[row, t + 1]] += 1


def test_advice_does_not_depend_on_how_many_trials_are_looked_at_together(monkeypatch):
    tasks = MDP.fixed("train", 7)
    episodes = acted(MDP, tasks, at_random(2))
    solver = mdps.solver("online-beb", MDP)
    whole = solver.advise(episodes, tasks, Key(0))
    monkeypatch.setattr(mdps, "BATCH", 3)
    np.testing.assert_array_equal(solver.advise(episodes, tasks, Key(0)), whole)


def test_who_follows_online_beb_earns_what_it_earns():
    """Act by the advice on what has been acted so far: the same mean, though it never sees an episode's last state."""
    family = make_family("metarl/TabularMDP-v0", episodes=4)
    tasks, solver = family.fixed("train", 300), mdps.solver("online-beb", family)
    rng, env = np.random.default_rng(0), Trials(family=family).make_vec(family.fixed("train", 300), 1)
    obs, _ = env.reset(seed=5)
    belief, total = Belief.prior(300, 10, 5), np.zeros(300)
    for t in range(40):
        state = obs[:, :10].argmax(1)
        worth = solver.strategy.worth(belief, env.task, t, 10 - t % 10, rng)[np.arange(300), 0, state]
        action = (worth + 1e-9 * rng.random(worth.shape)).argmax(1)
        obs, reward, *_ = env.step(action)
        belief.update(state, action, reward, obs[:, :10].argmax(1), entered=bool((t + 1) % 10))
        total += reward
    played = solver.play(tasks, 1, Key(3)).sum((1, 2))
    assert abs(total.mean() - played.mean()) < 3 * np.hypot(total.std(), played.std()) / np.sqrt(300)


def test_planners_still_cannot_be_stepped():
    assert isinstance(mdps.solver("online-beb", MDP), PlansTrials)
