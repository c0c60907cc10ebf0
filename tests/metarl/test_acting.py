"""Agents put on a task and driven step by step, in environments of a family and in those of others."""

import math
from dataclasses import dataclass, replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from metarl import registry
from metarl.agents import rl2
from metarl.agents.baselines import Oracle, Random, StandStill
from metarl.agents.ppo_oracle import Oracle as PPOOracle
from metarl.envs import make_family
from metarl.envs.wrappers.gym_family import GymFamily
from metarl.envs.wrappers.task_observed import TaskObserved
from metarl.envs.wrappers.trials import RL2Env
from metarl.errors import NonFiniteError, UserError
from metarl.learning.contract import Budget
from metarl.learning.gradient_adaptation import Adapting
from metarl.learning.memory_adaptation import AdaptationWarning
from metarl.nets.policies import mlp_policy
from metarl.seeding import Key
from metarl.tasks import Tasks

PEARL = make_family("metarl/Navigation2D-v0", "pearl")  # luck in the start and in the actions; 20 steps
STILL = make_family("metarl/Navigation2D-v0")  # begins at 0: luck in the actions alone; 100 steps
GOAL = PEARL.fixed("test", 3)[1:2]


@dataclass(frozen=True)
class Pendulums(GymFamily):
    name = "mine/Pendulums-v0"
    presets = ("mine",)
    horizon = 20
    preset: str = "mine"

    def draw(self, n, uniform, split):
        return Tasks({"gravity": 5.0 + 7.0 * uniform((n,))})

    def build(self, task):
        return gymnasium.make("Pendulum-v1", g=float(task["gravity"]))


class Corridor(gymnasium.Env):
    """Three choices, counted from -1; walls end an episode."""

    observation_space = Box(-9.0, 9.0, (1,), np.float32)
    action_space = Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(-1, 2))
        return np.float32([self.place]), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.place += int(action)
        return np.float32([self.place]), float(-abs(self.place)), abs(self.place) > 3, False, {}


@dataclass(frozen=True)
class Corridors(GymFamily):
    name = "mine/Corridors-v0"
    presets = ("mine",)
    horizon = 8
    preset: str = "mine"

    def draw(self, n, uniform, split):
        return Tasks({"nothing": uniform((n,))})

    def build(self, task):
        return Corridor()


def adapting(family, std=1.0):
    policy = mlp_policy(family.observation_space, family.action_space, (8,), init_std=std)
    return Adapting(policy, policy.init(Key(0).torch()), family, 0.1, 0.99, 1.0)


def remembering(family, episodes=2, likeliest=False):
    config = rl2.Config(hidden=8, trial_episodes=episodes)
    policy = rl2._policy(config, rl2._trials(config, family))
    params = {name: value * 3 for name, value in policy.init(Key(0).torch()).items()}  # first actions all but agree
    return replace(rl2._agent(config, family, policy, params), likeliest=likeliest)


def drive(agent, env, episodes=1, deterministic=False, seed=0):
    """The loop that everybody writes; returns of the episodes."""
    state, reward, ended, returns = None, None, False, []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed + episode)
        total, over = 0.0, False
        for _ in range(10_000):
            action, state = agent.predict(obs, state, ended, deterministic, reward=reward)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, ended, over = total + reward, False, terminated or truncated
            if over:
                break
        assert over
        ended = True
        returns.append(total)
    return returns


# Gradient steps


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_adapting_to_a_frozen_task_is_what_the_curve_judges(steps):
    agent = adapting(PEARL)
    scores = agent.curve(GOAL, Budget(steps, 5), seed=3)
    adapted = agent.adapt(GOAL, steps=steps, episodes=5, seed=3)
    assert adapted.returns == tuple(scores.values[0, :steps])
    assert (adapted.steps, adapted.env_steps) == (steps, scores.env_steps[-1]) == (steps, steps * 100)
    for name, value in adapted.params.items():
        assert value.shape == (1, *agent.params[name].shape)
        assert value[0].equal(agent.params[name]) == (steps == 0)


def test_driving_a_loop_scores_what_the_curve_says():
    agent = replace(adapting(STILL, std=1e-6), step_size=3e-7)  # as good as deterministic
    scores = agent.curve(STILL.fixed("test", 2)[1:], Budget(2, 4), seed=0)
    adapted = agent.adapt(STILL.fixed("test", 2)[1:], steps=2, episodes=4, seed=0)
    [score] = drive(adapted, STILL.make(STILL.fixed("test", 2)[1]), deterministic=True)
    assert score == pytest.approx(scores.values[0, 2], rel=1e-3)
    assert scores.values[0, 2] != pytest.approx(scores.values[0, 0], rel=1e-2)


@pytest.mark.parametrize("where", ["task", "environment", "registered"])
def test_driving_a_loop_scores_what_the_curve_says_where_luck_decides(where):
    agent, task = adapting(PEARL), GOAL[0]
    scores = agent.curve(PEARL.fixed("test", 3)[1:2], Budget(1, 400), seed=0).values[0, 1]
    envs = {
        "task": lambda: PEARL.make(task),
        "environment": lambda: PEARL.make(task),
        "registered": lambda: gymnasium.make("metarl/Navigation2D-v0", preset="pearl", task=task),
    }
    env = envs[where]()
    adapted = agent.adapt(GOAL if where == "task" else env, steps=1, episodes=400 if where == "task" else 100)
    returns = np.array(drive(adapted, env, 60))
    spread = returns.std(ddof=1) / math.sqrt(len(returns))
    assert abs(returns.mean() - scores) < 4 * spread + 0.5  # the adapted policies differ a little by their luck


def test_adapting_in_an_environment_gains_what_adapting_to_its_task_does():
    family = make_family("metarl/Navigation2D-v0")
    task, agent = {"goal": np.array([0.4, 0.4])}, adapting(family, std=0.3)
    agent = replace(agent, step_size=0.5)
    env = family.make(task)
    before = np.mean(drive(agent, env, 5))
    adapted = agent.adapt(env, steps=2, episodes=10)
    after = np.mean(drive(adapted, env, 5))
    assert after > before + 10
    assert adapted.returns[0] == pytest.approx(before, abs=15)
    assert len(adapted.returns) == adapted.steps == 2
    assert 0 < adapted.env_steps <= 2 * 10 * family.horizon
    again = agent.adapt(family.make(task), steps=2, episodes=10)
    assert all(value.equal(again.params[name]) for name, value in adapted.params.items())  # by the seed alone


def test_an_environment_that_is_empty_is_an_environment_all_the_same():
    class Empty(gymnasium.Wrapper):
        resets = 0

        def __len__(self) -> int:
            return 0

        def reset(self, **options):
            Empty.resets += 1
            return super().reset(**options)

    adapting(PEARL).adapt(Empty(PEARL.make(GOAL[0])), steps=1, episodes=3)
    assert Empty.resets >= 3


def test_before_adapting_an_agent_acts_as_after_no_steps():
    agent, obs = adapting(PEARL), np.array([0.2, -0.4])
    first, state = agent.predict(obs, deterministic=True)
    assert state is None
    np.testing.assert_array_equal(first, agent.adapt(GOAL, steps=0).predict(obs, deterministic=True)[0])
    drawn = [agent.predict(obs)[0] for _ in range(3)]
    assert len({one.tobytes() for one in drawn}) == 3  # not the same luck every time
    np.testing.assert_array_equal(
        drawn[0], agent.adapt(GOAL, steps=0).predict(obs)[0]
    )  # from the same streams in every process


def test_several_observations_are_answered_one_by_one():
    adapted = adapting(PEARL).adapt(GOAL, steps=1, episodes=3)
    several = np.array([[0.2, -0.4], [0.5, 0.1], [0.0, 0.0]])
    actions, _ = adapted.predict(several, deterministic=True)
    assert actions.shape == (3, 2)
    singly = [adapted.predict(one, deterministic=True)[0] for one in several]
    np.testing.assert_allclose(actions, singly, rtol=1e-5)
    assert adapted.predict(several[:1])[0].shape == (1, 2)
    assert PEARL.action_space.contains(singly[0])


# Environments of one's own


def test_actions_are_in_the_units_of_the_environment():
    family = Pendulums()
    agent, raw = adapting(family), gymnasium.make("Pendulum-v1", g=9.0)
    in_own = agent.adapt(raw, steps=1, episodes=2)
    assert in_own.action_space == raw.action_space
    obs = np.array([1.0, 0.0, 0.5], np.float32)
    for deterministic in (True, False):
        action, _ = in_own.predict(obs, deterministic=deterministic)
        assert raw.action_space.contains(action)
    task = {"gravity": np.array(9.0)}
    of_family = agent.adapt(task, steps=0)
    theirs, _ = agent.adapt(raw, steps=0).predict(obs, deterministic=True)
    ours, _ = of_family.predict(obs, deterministic=True)
    np.testing.assert_allclose(theirs, 2.0 * ours, rtol=1e-6)
    assert family.make(task).action_space.contains(ours)
    assert len(drive(in_own, raw)) == 1


def test_episodes_of_any_environment_are_cut_at_the_familys_horizon():
    family = Pendulums()
    adapted = adapting(family).adapt(gymnasium.make("Pendulum-v1", g=9.0), steps=2, episodes=3)  # 200 steps by itself
    assert adapted.env_steps == 2 * 3 * family.horizon


@pytest.mark.parametrize("make", [adapting, remembering])
def test_choices_are_the_environments_own(make):
    family, env = Corridors(), Corridor()
    adapted = make(family).adapt(env, steps=1, episodes=4)
    state, reward, seen = None, None, set()
    obs, _ = env.reset(seed=0)
    for _ in range(40):
        action, state = adapted.predict(obs, state, reward=reward)
        assert env.action_space.contains(action)
        seen.add(int(action))
        obs, reward, over, _, _ = env.step(action)
        if over:
            obs, _ = env.reset()
    assert seen == {-1, 0, 1}
    several, _ = adapted.predict(np.zeros((5, 1), np.float32))
    assert several.shape == (5,)


# Memories


def test_a_memory_driven_in_a_loop_scores_what_the_curve_says():
    agent = remembering(STILL, episodes=3, likeliest=True)  # nothing here is luck
    tasks = STILL.fixed("test", 2)[1:]
    scores = agent.curve(tasks, Budget(), seed=0)
    returns = drive(agent.adapt(tasks, steps=0), STILL.make(tasks[0]), 3, deterministic=True)
    np.testing.assert_allclose(returns, scores.values[0], rtol=1e-5)
    for steps in (1, 2, None):
        adapted = agent.adapt(tasks, steps=steps)
        count = 2 if steps is None else steps
        assert adapted.steps == count
        assert adapted.env_steps == scores.env_steps[count]
        np.testing.assert_allclose(adapted.returns, scores.values[0, :count], rtol=1e-5)
        later = drive(adapted, STILL.make(tasks[0]), 3 - count, deterministic=True)
        np.testing.assert_allclose(later, scores.values[0, count:], rtol=1e-5)
    assert len(set(np.round(returns, 6))) == 3  # memory matters


def test_a_memory_is_told_in_a_plain_loop_what_trials_show():
    agent, task = remembering(PEARL), GOAL[0]
    env, trials = PEARL.make(task), RL2Env(PEARL, 2, task)
    rng = np.random.default_rng(0)
    plain = in_trials = None
    told, _ = trials.reset(seed=0)
    reward, ended = None, False
    for t in range(2 * PEARL.horizon):
        obs = told[:2]
        ours, plain = agent.predict(obs, plain, ended, True, reward=reward)
        theirs, in_trials = agent.predict(told, in_trials, t == 0, True)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        told, reward, _, _, _ = trials.step(ours)
        ended = bool(told[-1])
    assert rng is not None
    assert env.action_space.contains(ours)


def test_memories_of_several_rows_are_apart():
    agent = remembering(PEARL)
    obs = np.array([[0.2, -0.4], [0.5, 0.1]])
    first, state = agent.predict(obs, deterministic=True)
    both, _ = agent.predict(obs[::-1], state, [False, True], True, reward=[1.0, -2.0])
    for row in (0, 1):
        one, alone = agent.predict(obs[row], deterministic=True)
        np.testing.assert_allclose(one, first[row], rtol=1e-5)
        again, _ = agent.predict(obs[1 - row], alone, row == 1, True, reward=[1.0, -2.0][row])
        np.testing.assert_allclose(again, both[row], rtol=1e-5)
    restarted, _ = agent.predict(obs, None, None, True)
    np.testing.assert_array_equal(restarted, first)


def test_rewards_are_asked_for_in_one_line():
    agent, obs = remembering(PEARL), np.zeros(2)
    _, state = agent.predict(obs, reward=0.0)
    with pytest.raises(UserError, match=r"learns from rewards: give predict\(obs, state, reward=...\)"):
        agent.predict(obs, state)
    with pytest.raises(UserError, match="no action of this trial has brought the reward"):
        agent.predict(obs, reward=2.0)
    with pytest.raises(UserError, match="the state must be what predict returned for 1 observations"):
        agent.predict(obs, "state", reward=0.0)
    with pytest.raises(UserError, match="the state must be what predict returned for 2 observations"):
        agent.predict(np.zeros((2, 2)), state, reward=0.0)
    adapted = agent.adapt(GOAL)  # its last reward is known, and an episode has just ended
    adapted.predict(obs)
    with pytest.raises(UserError, match="no action of this trial"):
        adapted.predict(obs, reward=2.0)


def test_more_episodes_than_in_training_are_warned_of():
    with pytest.warns(AdaptationWarning, match="trials of 2 episodes, and is to act in the next after 3"):
        adapted = remembering(PEARL).adapt(PEARL.make(GOAL[0]), steps=3)
    assert adapted.env_steps == 60


def test_stable_baselines_judges_agents_as_its_own():
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    env = PEARL.make(GOAL[0])
    mean, _ = evaluation.evaluate_policy(adapting(PEARL).adapt(env, 1, episodes=3), env, 2, warn=False)
    assert np.isfinite(mean)
    mean, _ = evaluation.evaluate_policy(remembering(PEARL), RL2Env(PEARL, 2, GOAL[0]), 2, warn=False)
    assert np.isfinite(mean)


# Solvers


@pytest.mark.parametrize("name", ["gittins", "thompson", "ucb1", "bayes-optimum"])
def test_a_bandit_solver_driven_in_a_loop_scores_what_its_curve_says(name):
    family = make_family("metarl/BernoulliBandit-v0", arms=3, pulls=8)
    solver, tasks = registry.make_untrained(name, family), family.fixed("test", 3)[2:]
    expected = solver.curve(tasks, Budget(0, 2000), 0).values.mean()
    env, returns = family.make(tasks[0]), []
    adapted = solver.adapt(env, steps=0)
    for trial in range(150):
        obs, _ = env.reset(seed=trial)
        state, reward, over, total = None, None, False, 0.0
        while not over:
            arm, state = adapted.predict(obs, state, reward=reward)
            assert env.action_space.contains(arm)
            obs, reward, over, truncated, _ = env.step(arm)
            total, over = total + reward, over or truncated
        returns.append(total)
    spread = np.std(returns, ddof=1) / math.sqrt(len(returns))
    assert abs(np.mean(returns) - expected) < 4 * spread
    with pytest.raises(UserError, match="has 8 pulls; begin another with state=None"):
        adapted.predict(obs, state, reward=reward)
    _, state = solver.predict(obs)
    with pytest.raises(UserError, match="a solver learns from rewards"):
        solver.predict(obs, state)


def test_who_plans_whole_trials_says_so():
    family = make_family("metarl/TabularMDP-v0", states=3, actions=2, steps=3, episodes=3)
    for call in (lambda one: one.adapt(family.fixed("test", 1)), lambda one: one.predict(np.zeros(3))):
        with pytest.raises(UserError, match="MDPSolver plans whole trials and does not act step by step"):
            call(registry.make_untrained("psrl", family))


# Behaviours that do not adapt


def test_behaviours_act_and_cost_nothing():
    env = PEARL.make(GOAL[0])
    for behaviour in (Random(PEARL), Oracle(PEARL), StandStill(PEARL)):
        adapted = behaviour.adapt(env, steps=3)
        assert (adapted.steps, adapted.env_steps, adapted.returns) == (0, 0, ())
        score = np.mean(drive(adapted, env, 30))
        expected = behaviour.curve(GOAL, Budget(0, 400), 0).values.mean()
        assert score == pytest.approx(expected, abs=8 if isinstance(behaviour, Random) else 3)
    random = Random(PEARL)
    rows, state = random.predict(np.zeros((2, 2)))
    assert rows[0].tolist() != rows[1].tolist()
    later, _ = random.predict(np.zeros((2, 2)), state, [True, False])
    assert later.tolist() != rows.tolist()
    drive(random, env, 3)  # longer than one episode


def test_who_is_told_the_task_must_know_it():
    family = TaskObserved(family=PEARL)
    policy = mlp_policy(family.observation_space, family.action_space, (8,))
    oracle = PPOOracle(family, policy, policy.init(Key(0).torch()))
    obs = np.array([0.1, 0.2])
    action, _ = oracle.adapt(PEARL.make(GOAL[0])).predict(obs)
    shown = np.concatenate([obs, family.shown(GOAL)[0]]).astype(np.float32)
    mode = policy.distribution(oracle.params, torch.from_numpy(shown)[None]).mode()[0]
    np.testing.assert_allclose(action, mode.clip(-1, 1), rtol=1e-5)
    for one in (oracle, Oracle(PEARL)):
        with pytest.raises(UserError, match=r"told the task: call adapt\(task\) first"):
            one.predict(obs)
    with pytest.raises(UserError, match="Oracle is told the task, which this environment does not say"):
        Oracle(PEARL).adapt(Elsewhere())


# What cannot be


class Elsewhere(gymnasium.Env):
    """The spaces of 2D navigation, and ways to misbehave."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, obs=(0.0, 0.0), reward=0.0, error=None):
        self.obs, self.reward, self.error = np.array(obs), reward, error

    def reset(self, *, seed=None, options=None):
        return np.zeros(2), {}

    def step(self, action):
        if self.error:
            raise self.error
        return self.obs, self.reward, False, False, {}


def closed():
    env = PEARL.make(GOAL[0])
    env.close()
    return env


REFUSED = {
    "another task": ({"goal": np.zeros(3)}, r"goal of a task of metarl/Navigation2D-v0 has shape \(2,\)"),
    "another name": ({"aim": np.zeros(2)}, "a task of metarl/Navigation2D-v0 has"),
    "no array": ({"goal": object()}, "goal"),
    "several tasks": (PEARL.fixed("test", 2), "one task at a time, got 2; `curve` judges on many"),
    "no environment": (3, "adapts to a task .* or in a Gymnasium environment, got int"),
    "vector": (lambda: PEARL.make_vec(GOAL), "adapts to a task .* got NavigationEnv|VectorEnv"),
    "no task of its own": (PEARL.make, "draws another task at every reset: give family.make"),
    "another family": (lambda: STILL.make(STILL.fixed("test", 1)[0]), "the environment is of .*maml2017.*pearl"),
    "trials": (lambda: RL2Env(PEARL, 2, GOAL[0]), "the environment is of metarl/Trials"),
    "closed": (closed, "the environment is closed; make another one"),
    "other observations": (lambda: gymnasium.make("Pendulum-v1"), "observations of metarl/Navigation2D-v0 are"),
    "raises": (lambda: Elsewhere(error=RuntimeError("mine\nown")), "step raised RuntimeError: mine own"),
    "odd observation": (lambda: Elsewhere(obs=(0.0,)), r"an observation has shape \(2,\), got \[0.0\]"),
    "odd reward": (lambda: Elsewhere(reward="much"), r"a reward has shape \(\), got 'much'"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("make", [adapting, remembering, Random])
def test_what_an_agent_cannot_adapt_to_is_refused_in_one_line(make, name):
    where, words = REFUSED[name]
    if make is Random and name in ("raises", "odd observation", "odd reward"):
        pytest.skip("it adapts without a look")
    with pytest.raises(UserError, match=words) as caught:
        make(PEARL).adapt(where() if callable(where) else where, steps=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [adapting, remembering])
@pytest.mark.parametrize("env", [{"obs": (np.nan, 0.0)}, {"reward": np.inf}])
def test_numbers_that_are_not_finite_are_the_environments_fault(make, env):
    with pytest.raises(NonFiniteError, match=r"of the environment given for .* is .*mend the environment"):
        make(PEARL).adapt(Elsewhere(**env), steps=1)


def test_actions_that_do_not_map_are_refused():
    class Unbounded(Elsewhere):
        action_space = Box(-np.inf, np.inf, (2,), np.float32)

    for env in (Unbounded(), type("Three", (Elsewhere,), {"action_space": Discrete(3)})()):
        with pytest.raises(UserError, match=r"actions of metarl/Navigation2D-v0 are .* do not map to them"):
            adapting(PEARL).adapt(env)


@pytest.mark.parametrize("make", [adapting, remembering, Random])
def test_counts_must_be_counts(make):
    for steps in (-1, 1.5, True, "3"):
        with pytest.raises(UserError, match=r"steps is .*; it must be a whole number, at least 0"):
            make(PEARL).adapt(GOAL, steps=steps)
    if make is not remembering:
        with pytest.raises(UserError, match="episodes is 0; it must be a whole number, at least 1"):
            make(PEARL).adapt(GOAL, steps=1, episodes=0)


@pytest.mark.parametrize("obs", [np.zeros(3), np.zeros((2, 3)), np.zeros((0, 2)), 0.0, np.zeros((1, 1, 2))])
def test_observations_of_another_shape_are_refused(obs):
    with pytest.raises(UserError, match=r"an observation of metarl/Navigation2D-v0 has shape \(2,\)"):
        adapting(PEARL).predict(obs)


def test_observations_and_arguments_must_be_finite_numbers():
    agent = adapting(PEARL)
    for obs in (np.array([np.nan, 0.0]), np.array(["a", "b"]), np.array([1e300, 0.0])):
        with pytest.raises(UserError, match="an observation must be finite numbers"):
            agent.predict(obs)
    for words in ({"reward": [1.0, 2.0]}, {"reward": np.nan}, {"episode_start": "yes"}, {"reward": "much"}):
        with pytest.raises(UserError, match="is one finite number, or 1 of them"):
            agent.predict(np.zeros(2), **words)


@pytest.mark.parametrize(
    "ragged", [[[0.0], [0.0, 0.0]], torch.zeros(2, requires_grad=True), torch.zeros(2, dtype=torch.bfloat16)]
)
def test_what_is_no_array_is_refused_in_one_line(ragged):
    for words in ({"observation": ragged}, {"observation": np.zeros(2), "reward": ragged}):
        with pytest.raises(UserError, match=r"(an observation|reward) is no array: ") as caught:
            adapting(PEARL).predict(**words)
        assert "\n" not in str(caught.value)


def test_steps_that_diverge_are_said():
    agent = replace(adapting(PEARL), step_size=1e39)
    with pytest.raises(NonFiniteError, match="by 3 gradient steps diverged"):
        agent.adapt(GOAL, steps=3, episodes=2)
