"""A memory that is shown estimates sees the same step by step, in one environment, as in a vector of trials."""

import dataclasses

import numpy as np
import pytest
import torch

from metarl.agents import rl2
from metarl.envs import make_family
from metarl.envs.wrappers.trials import RL2Env
from metarl.errors import UserError
from metarl.learning.contract import Budget
from metarl.runs.run import Run

MDP = make_family("metarl/TabularMDP-v0", states=3, actions=2, steps=4, episodes=3)
CONFIG = rl2.Config(
    iterations=2,
    trials=4,
    hidden=5,
    epochs=1,
    minibatches=2,
    inputs="values",
    teacher="online-beb",
    teacher_iterations=1,
)
TASK = MDP.fixed("test", 1)


def trained(folder, config=CONFIG, family=MDP):
    run = Run.create(folder, learner="rl2", config=config, source=family, seed=0)
    rl2.train(config, family, run)
    return rl2.load(run, family)


class Spy:
    """A policy that notes what it is shown."""

    def __init__(self, policy):
        self.policy, self.shown = policy, []

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def step(self, params, obs, state, task=None):
        self.shown.append(obs.numpy().copy())
        return self.policy.step(params, obs, state, task)


def test_step_by_step_it_is_shown_what_the_estimator_says_of_the_whole_trial(tmp_path):
    agent = trained(tmp_path / "run")
    agent = dataclasses.replace(agent, policy=(spy := Spy(agent.policy)))
    adapted, env, state, reward, ended = agent.unadapted(), MDP.make(TASK[0]), None, None, None
    obs, _ = env.reset(seed=0)
    seen, last = [], np.zeros(4)
    for _ in range(12):
        seen.append(np.concatenate([obs, last]))
        action, after = adapted.predict(obs, state, ended, reward=reward)
        again, _ = adapted.predict(obs, state, ended, deterministic=True, reward=reward)
        state = after
        obs, reward, _, truncated, _ = env.step(action)
        ended = truncated
        last = np.array([*np.eye(2)[action], reward, truncated])
        if truncated:
            obs, _ = env.reset()
        assert 0 <= again < 2
    known, expected = None, []
    for row in seen:
        shown, known = agent.trials.estimator(row[None], known)
        expected.append(shown[0])
    shown = np.concatenate(spy.shown)
    np.testing.assert_allclose(shown[::2], expected, atol=1e-6)
    np.testing.assert_array_equal(shown[1::2], shown[::2])  # asked again from a state, it says the same


def test_it_acts_in_trials_of_rl2env_adapts_and_has_a_curve(tmp_path):
    agent = trained(tmp_path / "run")
    env = RL2Env(MDP, task=TASK[0])
    obs, _ = env.reset(seed=0)
    action, state = agent.unadapted().predict(obs)
    obs, *_ = env.step(action)
    assert agent.unadapted().predict(obs, state)[0] in (0, 1)
    after = agent.adapt(TASK, steps=2)
    assert after.env_steps == 8
    assert after.start.known.visits.sum() == 7  # the eighth is taken in when the next observation comes
    rows, states = after.predict(np.eye(3))
    assert rows.shape == (3,)
    assert states.known.visits.sum((1, 2)).tolist() == [8, 8, 8]
    scores = agent.curve(MDP.fixed("test", 3), Budget(0, 2), 0)
    assert scores.values.shape == (3, 3)
    assert np.isfinite(scores.values).all()


def test_other_families_are_refused(tmp_path):
    family = make_family("metarl/BernoulliBandit-v0", arms=2, pulls=3)
    with pytest.raises(UserError, match="values are estimated in tabular MDPs"):
        trained(tmp_path / "run", dataclasses.replace(CONFIG, teacher=None, teacher_iterations=0), family)


def test_who_teaches_is_not_confused_by_the_estimates(tmp_path, monkeypatch):
    """The teacher reads states at the front, and ends at the back, of what the trials show."""
    from metarl.agents.solvers import mdps

    heard, honest = [], mdps.MDPSolver.advise

    def advise(self, episodes, tasks, key):
        plain = dataclasses.replace(episodes, obs=torch.cat([episodes.obs[..., :3], episodes.obs[..., 7:]], -1))
        heard.append(np.array_equal(honest(self, episodes, tasks, key), honest(self, plain, tasks, key)))
        return honest(self, episodes, tasks, key)

    monkeypatch.setattr(mdps.MDPSolver, "advise", advise)
    trained(tmp_path / "run")
    assert heard == [True]
