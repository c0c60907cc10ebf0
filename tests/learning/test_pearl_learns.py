"""PEARL learns to infer a goal it has not seen from one episode, and to go there."""

import pytest

from metarl.agents import pearl
from metarl.envs import make_family
from metarl.learning.contract import Budget
from metarl.runs.run import Run


@pytest.mark.learning
def test_pearl_learns_to_infer_goals_it_has_not_seen(tmp_path):
    family = make_family("metarl/Navigation2D-v0", preset="pearl")
    config = pearl.Config(iterations=12, tasks=20, gradient_steps=100)
    run = Run.create(tmp_path / "run", learner="pearl", config=config, source=family, seed=0)
    pearl.train(config, family, run)
    scores = pearl.load(run, family).curve(family.fixed("validation", 40), Budget(2, 4), 0).values.mean(0)
    assert scores[1] > scores[0] + 1.2  # 2.1 and 2.2 with two seeds; nothing where nothing is inferred
    assert scores[1] > -17.5
