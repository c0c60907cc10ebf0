"""A policy that adapts by policy gradients is judged on fresh data, and what it consumes is counted."""

from types import SimpleNamespace

import numpy as np

from metarl.envs import make_family
from metarl.learning import gradient_adaptation
from metarl.learning.contract import Budget
from metarl.learning.gradient_adaptation import Adapting
from metarl.meta import inner
from metarl.nets.policies import mlp_policy
from metarl.sampling.rollout import rollout
from metarl.seeding import Key

FAMILY = make_family("metarl/Navigation2D-v0")


def test_the_curve_counts_what_adaptation_consumed():
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (4,))
    agent = Adapting(policy, policy.init(Key(0).torch()), FAMILY, 0.1, 0.99, 1.0)
    scores = agent.curve(FAMILY.fixed("test", 2), Budget(steps=2, episodes=3), seed=0)
    assert scores.values.shape == (2, 3)
    assert scores.gradient_steps == (0, 1, 2)
    assert scores.env_steps == (0, 300, 600)
    again = agent.curve(FAMILY.fixed("test", 2), Budget(steps=2, episodes=3), seed=0)
    other = agent.curve(FAMILY.fixed("test", 2), Budget(steps=2, episodes=3), seed=1)
    assert np.array_equal(scores.values, again.values)
    assert not np.array_equal(scores.values, other.values)


def test_a_curve_counts_the_steps_really_taken():
    """Hoppers fall: what an episode did not last for was not consumed."""
    hopper = make_family("metarl/HopperRandomParams-v0")
    policy = mlp_policy(hopper.observation_space, hopper.action_space, (4,))
    params, tasks = policy.init(Key(0).torch()), hopper.fixed("test", 3)
    agent = Adapting(policy, params, hopper, 0.0, 0.99, 1.0)  # a step of 0: the same policy throughout
    scores = agent.curve(tasks, Budget(steps=2, episodes=4), seed=0)
    key = Key(0)("policy-gradient", "evaluate")
    env = hopper.make_vec(tasks, 4)
    lengths = [rollout(env, policy, params, key(k)).lengths().sum(1).double() for k in range(2)]
    first, second = (float(steps.mean()) for steps in lengths)
    assert scores.env_steps == (0, round(first), round(first + second))
    assert scores.env_steps[-1] < 0.5 * 2 * 4 * hopper.horizon


def test_later_steps_of_the_test_protocol_are_half_as_long(monkeypatch):
    used = []

    def adapt(params, loss, batches, rule):
        used.append([rule.size(k) for k in range(rule.steps)])
        return inner.adapt(params, loss, batches, rule)

    monkeypatch.setattr(gradient_adaptation, "inner", SimpleNamespace(adapt=adapt, Rule=inner.Rule, stack=inner.stack))
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (4,))
    agent = Adapting(policy, policy.init(Key(0).torch()), FAMILY, 0.1, 0.99, 1.0)
    agent.curve(FAMILY.fixed("validation", 2), Budget(steps=3, episodes=2), 0)
    assert used == [[0.1, 0.05, 0.05]]
