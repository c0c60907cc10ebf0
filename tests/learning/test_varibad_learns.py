import pytest

from metarl.agents import varibad
from metarl.envs import make_family
from metarl.learning.contract import Budget
from metarl.registry import make_untrained
from metarl.runs.run import Run

FAMILY = make_family("metarl/GridNavigation-v0", cells=3, steps=6, episodes=2)  # five goals
TASKS, BUDGET = FAMILY.fixed("validation", 5), Budget(steps=0, episodes=100)


@pytest.mark.learning
def test_varibad_learns_to_search_and_then_to_walk_straight_to_the_goal(tmp_path):
    """Told the goal, 4.02 can be earned an episode; without a memory every episode of a trial earns the same."""
    told = make_untrained("oracle", FAMILY).curve(TASKS, BUDGET, 0).values.mean()
    config = varibad.Config(
        iterations=75,
        trials=100,
        hidden=32,
        minibatches=2,
        step_size=5e-3,
        belief_updates=5,
        belief_step_size=3e-3,
        moments=6,
        checkpoint_every=1000,
    )
    run = Run.create(tmp_path / "run", learner="varibad", config=config, source=FAMILY, seed=0)
    varibad.train(config, FAMILY, run)
    first, second = varibad.load(run, FAMILY).curve(TASKS, BUDGET, 0).values.mean(0)
    assert first < told - 0.8  # nobody knows the goal at first
    assert told - 0.6 < second <= told
    assert first > 1.5
    errors = [line["belief/reward_error"] for line in run.metrics()]
    assert sum(errors[-5:]) / 5 < 1.5  # of 11 rewards, of which some cannot be foreseen
