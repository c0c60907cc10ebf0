"""ProMP, E-MAML and MAML-PPO learn an initialisation from which one gradient step pays, on goals not seen."""

from dataclasses import replace

import pytest

from metarl.agents import promp
from metarl.envs import make_family
from metarl.learning.contract import Budget
from metarl.runs.run import Run
from metarl.seeding import Key


@pytest.mark.learning
@pytest.mark.parametrize("preset", ["promp", "e-maml", "maml-ppo"])
def test_promp_and_its_kin_learn_to_adapt_to_goals_they_have_not_seen(tmp_path, preset):
    family, budget = make_family("metarl/Navigation2D-v0"), Budget(1, 20)
    like = promp.DEFAULTS.get(preset, promp.Config())
    config = replace(like, iterations=12, tasks=10, episodes=10, threads=1, step_size=1e-2)
    tasks = family.fixed("validation", 20)
    untrained = config.adapting(config.policy(family), config.policy(family).init(Key(0).torch()), family)
    run = Run.create(tmp_path / "run", learner="promp", config=config, source=family, seed=0)
    promp.train(config, family, run)
    before = untrained.curve(tasks, budget, 0).values.mean(0)
    after = promp.load(run, family).curve(tasks, budget, 0).values.mean(0)
    assert after[1] - after[0] > 10
    assert after[1] > before[1] + 8
    assert after[1] > -32
