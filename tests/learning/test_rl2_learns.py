import pytest

from metarl.agents import rl2
from metarl.agents.solvers.bandits import solver
from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials, TrialVectorEnv
from metarl.learning.contract import Budget
from metarl.runs.run import Run

ARMS, PULLS = 2, 10
FAMILY = make_family("metarl/BernoulliBandit-v0", arms=ARMS, pulls=PULLS)
TASKS, BUDGET = FAMILY.fixed("validation", 1000), Budget(steps=0, episodes=20)
SETTINGS = {"trials": 500, "hidden": 32, "minibatches": 5, "step_size": 5e-3, "threads": 1, "checkpoint_every": 1000}


class UnseenRewards(Trials):
    """Trials whose agent is not shown what its actions paid."""

    def make_vec(self, tasks, replicas=1, *, threads=1):
        return UnseenVectorEnv(self, tasks, replicas, self.family.make_vec(tasks, replicas, threads=threads))


class UnseenVectorEnv(TrialVectorEnv):
    def _advance(self, actions):
        obs, terms, over = super()._advance(actions)
        obs[:, -2] = 0.0
        return obs, terms, over


def return_after(iterations, folder, **options):
    config = rl2.Config(iterations=iterations, **{**SETTINGS, **options})
    run = Run.create(folder, learner="rl2", config=config, source=FAMILY, seed=0)
    rl2.train(config, FAMILY, run)
    return rl2.load(run, FAMILY).curve(TASKS, BUDGET, 0).values.mean()


@pytest.mark.learning
def test_rl2_learns_to_learn_which_arm_pays(tmp_path, monkeypatch):
    """Two Bernoulli arms, ten pulls: 5 without memory, 6.02 at best; on the very same tasks, the exact optimum.

    The control is trained alike but never shown a reward: all that is left is pulling arms blindly.
    """
    optimum = solver("bayes-optimum", FAMILY).curve(TASKS, BUDGET, 0).values.mean()
    learned = return_after(60, tmp_path / "run")
    assert optimum - 0.12 < learned < optimum + 0.06
    monkeypatch.setattr(rl2, "Trials", UnseenRewards)
    blind = return_after(30, tmp_path / "control")
    arms = PULLS * TASKS.arrays["mean"].mean(0)
    assert arms.min() - 0.06 < blind < arms.max() + 0.06


@pytest.mark.learning
@pytest.mark.parametrize(
    "options",
    [
        {"memory": "transformer", "step_size": 3e-3},
        {"token": "transition"},
        {"memory": "mingru", "layers": 2, "token": "transition"},
        {"actor": "hypernetwork"},
    ],
    ids=str,
)
def test_rl2_learns_it_with_another_memory_or_actor_as_well(tmp_path, options):
    """After 25 of 60 updates; 5 is chance, and a GRU of moments earns 5.71 to 5.75 after 20 (two seeds)."""
    optimum = solver("bayes-optimum", FAMILY).curve(TASKS, BUDGET, 0).values.mean()
    learned = return_after(25, tmp_path / "run", **options)
    assert optimum - 0.25 < learned < optimum + 0.06


@pytest.mark.learning
def test_rl2_learns_it_from_a_solver_in_fewer_updates_and_keeps_it(tmp_path):
    """Twelve lessons and two updates by rewards; fourteen by rewards alone earn 5.4."""
    optimum = solver("bayes-optimum", FAMILY).curve(TASKS, BUDGET, 0).values.mean()
    taught = return_after(14, tmp_path / "run", teacher="gittins", teacher_iterations=12)
    assert optimum - 0.15 < taught < optimum + 0.06
