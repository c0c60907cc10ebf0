"""A task's luck is named by its split and its index: for every agent, in every family.

So a task is judged alone as it is among others, in any order and in any chunk; and nothing that is drawn twice, for
support and query, for one score and the next, for one split and another, is the same.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.agents import rl2
from metarl.agents.baselines import Random
from metarl.agents.solvers import bandits as bandit_solvers
from metarl.agents.solvers import mdps as mdp_solvers
from metarl.envs import FAMILIES, make_family
from metarl.learning import gradient_adaptation, memory_adaptation
from metarl.learning import non_adaptive as fixed
from metarl.learning.contract import Budget
from metarl.learning.gradient_adaptation import Adapting
from metarl.learning.meta_batch import adapt_to_tasks
from metarl.meta import inner
from metarl.nets.policies import GaussianPolicy, mlp_policy
from metarl.seeding import Key
from metarl.tasks import TaskVectorEnv

NAVIGATION = make_family("metarl/Navigation2D-v0", "pearl")  # starts anywhere: luck in the start and in the actions
BANDIT = make_family("metarl/BernoulliBandit-v0", arms=3, pulls=4)
GAUSSIAN = make_family("metarl/GaussianBandit-v0", arms=3, pulls=4)
MDP = make_family("metarl/TabularMDP-v0", states=3, actions=2, steps=3, episodes=3)


def adapting(family):
    policy = mlp_policy(family.observation_space, family.action_space, (8,))
    return Adapting(policy, policy.init(Key(0).torch()), family, 0.1, 0.99, 1.0)


def remembering(family):
    config = rl2.Config(hidden=8, trial_episodes=2)
    policy = rl2._policy(config, rl2._trials(config, family))
    return rl2._agent(config, family, policy, policy.init(Key(0).torch()))


# Alone as among others


@pytest.mark.parametrize("name", FAMILIES)
def test_tasks_are_judged_alone_as_they_are_in_the_batch(name):
    family = make_family(name)
    tasks = family.fixed("test", 4).cycled(4)
    for agent in (adapting(family), remembering(family), Random(family)):
        whole, part = (agent.curve(some, Budget(1, 1), 0).values for some in (tasks, tasks[2:]))
        np.testing.assert_allclose(part, whole[2:], rtol=1e-5, err_msg=type(agent).__name__)


def agents():
    for family in (BANDIT, GAUSSIAN):
        for name in bandit_solvers.STRATEGIES:
            if name != "bayes-optimum" or family is BANDIT:
                yield pytest.param(bandit_solvers.solver(name, family), id=f"{family.likelihood}-{name}")
    for name in mdp_solvers.STRATEGIES:
        yield pytest.param(mdp_solvers.solver(name, MDP), id=f"mdp-{name}")
    for family in (NAVIGATION, BANDIT, MDP):
        for agent in (adapting(family), remembering(family), Random(family)):
            yield pytest.param(agent, id=f"{family.name.removeprefix('metarl/')}-{type(agent).__name__}")


@pytest.mark.parametrize("agent", list(agents()))
@given(rows=st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), chunk=st.integers(1, 7))
@settings(max_examples=5)
def test_any_tasks_in_any_order_and_chunk_are_judged_the_same(agent, rows, chunk):
    budget = Budget(1, 2)
    tasks = agent.family.fixed("test", 6)
    whole = agent.curve(tasks, budget, 0).values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_adaptation, "EVALUATION_CHUNK", chunk)
        for module, name, each in (
            (memory_adaptation, "EVALUATION_STEPS", 2 * agent.family.horizon * 2),
            (fixed, "BATCH", 2 * agent.family.horizon),
            (bandit_solvers, "BATCH", 2 * getattr(agent.family, "arms", 1)),
            (mdp_solvers, "BATCH", 2),
        ):
            patch.setattr(module, name, chunk * each)
        np.testing.assert_allclose(agent.curve(tasks[rows], budget, 0).values, whole[rows], rtol=1e-5)


def test_chunks_of_30_and_of_100_give_the_same_curve(monkeypatch):
    agent, tasks = adapting(NAVIGATION), NAVIGATION.fixed("test", 100)
    whole = agent.curve(tasks, Budget(1, 5), 0)
    monkeypatch.setattr(gradient_adaptation, "EVALUATION_CHUNK", 30)
    parts = agent.curve(tasks, Budget(1, 5), 0)
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-5)


# Never the same twice


@dataclass(frozen=True)
class Overheard(GaussianPolicy):
    """A policy that keeps the noise it draws, an array `(H, E, A)` a task."""

    drawn: list[np.ndarray] = field(default_factory=list, compare=False)

    def noise(self, rng, shape):
        self.drawn.append(super().noise(rng, shape))
        return self.drawn[-1]


@pytest.fixture
def luck(monkeypatch):
    """What is drawn for actions, and for starts, a list of arrays each."""
    policy = mlp_policy(NAVIGATION.observation_space, NAVIGATION.action_space, (8,))
    overheard, starts, draw = Overheard(**vars(policy)), [], TaskVectorEnv._noise

    def noise(self, *args):
        starts.append(draw(self, *args))
        return starts[-1]

    monkeypatch.setattr(TaskVectorEnv, "_noise", noise)
    return overheard, overheard.drawn, starts


def assert_all_differ(drawn, n):
    rows = np.concatenate([np.ravel(each) for each in drawn])
    assert len(np.unique(rows)) == len(rows) >= n


def judged(luck, splits=NAVIGATION.splits, seeds=(0,)):
    policy, *_ = luck
    agent = replace(adapting(NAVIGATION), policy=policy)
    for split in splits:
        for seed in seeds:
            agent.curve(NAVIGATION.fixed(split, 3), Budget(2, 2), seed)


def test_every_score_of_every_split_has_noise_of_its_own(luck):
    _, actions, starts = luck
    judged(luck, seeds=(0, 1))
    assert_all_differ([block[:2] for block in actions], 4 * 2 * 3 * 3 * 2 * 2 * 2)
    assert_all_differ(starts, 4 * 2 * 3 * 3 * 2 * 2)


def test_support_and_query_have_noise_of_their_own(luck):
    policy, actions, starts = luck
    params = policy.init(Key(0).torch())
    env = NAVIGATION.make_vec(NAVIGATION.fixed("train", 3), 2)
    for iteration in range(2):
        at = Key(0)("iteration", iteration)
        adapt_to_tasks(env, policy, params, inner.Rule(0.1, 3), at, 0.99, 1.0)
    assert len(actions) == 2 * 4 * 3
    assert_all_differ([block[:2] for block in actions], 2 * 4 * 3 * 2 * 2 * 2)
    assert_all_differ(starts, 2 * 4 * 3 * 2 * 2)


def test_a_step_size_is_chosen_on_other_luck_than_the_test(luck):
    """Validation and test tasks of equal index, at equal seeds."""
    _, actions, _ = luck
    judged(luck, ("validation", "test"))
    half = len(actions) // 2
    assert not any(np.array_equal(one, other) for one, other in zip(actions[:half], actions[half:], strict=True))


def test_what_is_drawn_for_actions_is_drawn_for_tasks_by_place(luck):
    _, actions, starts = luck
    judged(luck, ("test",))
    noise, start = list(actions), list(starts)
    actions.clear(), starts.clear()
    agent = replace(adapting(NAVIGATION), policy=luck[0])
    agent.curve(NAVIGATION.fixed("test", 3)[2:], Budget(2, 2), 0)
    for k in range(3):
        np.testing.assert_array_equal(actions[k], noise[3 * k + 2])
        np.testing.assert_array_equal(starts[k], start[k][4:])


@pytest.mark.parametrize("family", [NAVIGATION, BANDIT, MDP], ids=lambda family: family.name)
def test_random_actions_differ_from_score_to_score_from_task_to_task_and_from_split_to_split(family, monkeypatch):
    seen, control = [], Random.controller

    def controller(self, tasks, episodes, key):
        act = control(self, tasks, episodes, key)
        steps = [act(np.zeros((len(tasks), episodes, 1)), t) for t in range(family.horizon)]
        seen.extend(np.stack(steps, 2).reshape(len(tasks), -1))
        return act

    monkeypatch.setattr(Random, "controller", controller)
    for split in family.splits:
        Random(family).curve(family.fixed(split, 3), Budget(2, 40), 0)
    assert len(np.unique(seen, axis=0)) == len(seen) == 3 * 3 * len(family.splits)


def test_trials_have_noise_of_their_own(monkeypatch):
    agent, drawn = remembering(NAVIGATION), []
    noise = type(agent.policy).noise

    def overheard(self, rng, shape):
        drawn.append(noise(self, rng, shape))
        return drawn[-1]

    monkeypatch.setattr(type(agent.policy), "noise", overheard)
    for split in ("validation", "test"):
        agent.curve(NAVIGATION.fixed(split, 3), Budget(0, 2), 0)
    assert_all_differ([block[:, :2] for block in drawn], 2 * 3 * 2 * 2 * 2)
