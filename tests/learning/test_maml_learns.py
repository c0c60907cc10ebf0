import numpy as np
import pytest

from metarl.agents import maml_trpo
from metarl.envs import make_family
from metarl.fewshot.datasets.sinusoid import Sinusoid
from metarl.fewshot.learners import maml
from metarl.learning.contract import Budget
from metarl.learning.gradient_adaptation import Adapting
from metarl.nets.policies import mlp_policy
from metarl.runs.run import Run
from metarl.seeding import Key


@pytest.mark.learning
def test_maml_trpo_learns_to_adapt_to_goals_it_has_not_seen(tmp_path):
    """Standing still scores -38.3; a policy gradient from a random start gains almost nothing."""
    family = make_family("metarl/Navigation2D-v0")
    config = maml_trpo.Config(iterations=8, tasks=10, episodes=10, hidden=(32,), threads=1)
    run = Run.create(tmp_path / "run", learner="maml-trpo", config=config, source=family, seed=0)
    tasks, budget = family.fixed("validation", 20), Budget(steps=1, episodes=20)
    policy = mlp_policy(family.observation_space, family.action_space, config.hidden)
    untrained = Adapting(policy, policy.init(Key(0).torch()), family, 0.1, 0.99, 1.0)
    before = untrained.curve(tasks, budget, 0).values.mean(0)
    maml_trpo.train(config, family, run)
    after = maml_trpo.load(run, family).curve(tasks, budget, 0).values.mean(0)
    assert after[1] - after[0] > 10
    assert after[1] > before[1] + 8
    assert after[1] > -32


@pytest.mark.learning
def test_maml_learns_sinusoids(tmp_path):
    """Predicting 0 scores E[A^2] / 2 = 4.3; without meta-learning one step of .01 stays near it."""
    source = Sinusoid()
    config = maml.Config(iterations=600, log_every=100, checkpoint_every=600, strategy="vmap", outer_step_size=3e-3)
    run = Run.create(tmp_path / "run", learner="maml", config=config, source=source, seed=0)
    maml.train(config, source, run)
    scores = maml.load(run, source).curve(source.fixed("validation", 300), Budget(steps=5), 0)
    mean = scores.values.mean(0)
    assert scores.kind == "mse"
    assert mean[1] < 1.5
    assert mean[0] > 2 * mean[1]
    assert np.all(np.diff(mean) < 0)
    assert scores.shots == (0, 10, 10, 10, 10, 10)
