import numpy as np
import pytest

from metarl.agents import ppo_oracle
from metarl.agents.baselines import Oracle, StandStill
from metarl.envs import make_family
from metarl.learning.contract import Budget
from metarl.runs.run import Run
from metarl.tasks import Tasks

FAMILY = make_family("metarl/Navigation2D-v0")
BUDGET = Budget(steps=0, episodes=1)


@pytest.mark.learning
def test_ppo_that_sees_the_goal_walks_there(tmp_path):
    """2D navigation: -.5 at best, -38 standing still; shown another goal than the real one, it does worse than that."""
    config = ppo_oracle.Config(iterations=15, envs=40, minibatches=8, epochs=8)
    run = Run.create(tmp_path / "run", learner="ppo-oracle", config=config, source=FAMILY, seed=0)
    ppo_oracle.train(config, FAMILY, run)
    oracle, tasks = ppo_oracle.load(run, FAMILY), FAMILY.fixed("validation", 200)
    optimum, still = (agent(FAMILY).curve(tasks, BUDGET, 0).values.mean() for agent in (Oracle, StandStill))
    assert optimum - 4 < oracle.curve(tasks, BUDGET, 0).values.mean() <= optimum + 1e-3

    class Misled(type(oracle.family)):
        def shown(self, tasks):
            return super().shown(Tasks({"goal": np.roll(tasks.arrays["goal"], 1, axis=0)}))

    misled = ppo_oracle.Oracle(Misled(family=FAMILY), oracle.policy, oracle.params)
    assert misled.curve(tasks, BUDGET, 0).values.mean() < still
