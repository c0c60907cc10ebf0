import numpy as np
import pytest
from gymnasium.spaces import Discrete
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from metarl.envs import make_family
from metarl.envs.bandit import BernoulliBandit, GaussianBandit
from metarl.envs.grid import RIGHT, STAY, UP, GridNavigation
from metarl.envs.navigation import Navigation2D
from metarl.envs.tabular_mdp import TabularMDP
from metarl.envs.wrappers.trials import RL2Env, Trials, trial_episodes
from metarl.tasks import Tasks

FAMILIES = [BernoulliBandit(), GaussianBandit(), TabularMDP(), GridNavigation(), Navigation2D(preset="pearl")]


def test_a_trial_by_hand():
    trials = Trials(family=GridNavigation(steps=2), episodes=2)
    env = trials.make_vec(Tasks({"goal": [[1.0, 1.0]]}))
    assert trials.horizon == 4
    obs, _ = env.reset(seed=0)
    #                       x  y  stay up right down left reward ended
    assert obs.tolist() == [[0, 0, 0, 0, 0, 0, 0, 0, 0]]
    steps = [env.step(np.array([action])) for action in (RIGHT, UP, STAY, RIGHT, UP)]
    assert [step[0][0].tolist() for step in steps[:4]] == [
        [1, 0, 0, 0, 1, 0, 0, -0.1, 0],
        [0, 0, 0, 1, 0, 0, 0, 1.0, 1],  # the next episode's start, with the last one's end
        [0, 0, 1, 0, 0, 0, 0, -0.1, 0],
        [1, 0, 0, 0, 1, 0, 0, -0.1, 1],
    ]
    assert [step[1][0] for step in steps] == [-0.1, 1.0, -0.1, -0.1, 0.0]
    assert [bool(step[2][0]) for step in steps] == [False, False, False, True, False]  # terminated, once
    assert not any(step[3][0] for step in steps)  # never truncated
    assert steps[1][4]["reward_goal"][0] == 1.0


def test_episodes_that_terminate_early_end_the_trial_early_row_by_row():
    trials = Trials(family=Navigation2D(), episodes=2)
    env = trials.make_vec(Tasks({"goal": [[0.1, 0.0], [0.3, 0.0]]}))
    env.reset(seed=0)
    ended, over = [], []
    for _ in range(7):
        obs, _, terminated, _, _ = env.step(np.array([[1.0, 0.0], [1.0, 0.0]]))
        ended.append(obs[:, -1].tolist())
        over.append(terminated.tolist())
    assert np.transpose(ended).tolist() == [[1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1, 0]]
    assert np.transpose(over).tolist() == [[0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0]]


def test_the_previous_action_is_what_was_carried_out():
    env = Trials(family=Navigation2D()).make_vec(Tasks({"goal": [[0.5, 0.5]]}))
    env.reset(seed=0)
    obs = env.step(np.array([[7.0, -0.5]]))[0]
    assert np.allclose(obs[0, :4], [0.1, -0.05, 1.0, -0.5])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_joined_episodes_are_the_familys_own(family):
    """A trial's rewards are those of the family's environment, reset by hand where its episodes end."""
    trials = Trials(family=family, episodes=3)
    tasks = family.fixed("test", 3)
    env = trials.make_vec(tasks, 2)
    env.reset(seed=0)
    plain = family.make_vec(tasks, 2)
    plain._key = env.inner._key
    plain.reset()
    rng = np.random.default_rng(0)
    for _ in range(trials.horizon):
        if isinstance(family.action_space, Discrete):
            actions = rng.integers(0, family.action_space.n, 6)
        else:
            actions = rng.uniform(-1, 1, (6, *family.action_space.shape))
        obs, rewards, over, _, _ = env.step(actions)
        expected, paid, terminated, truncated, _ = plain.step(actions)
        assert np.array_equal(rewards, paid)
        assert np.array_equal(obs[:, -2], paid)
        assert np.array_equal(obs[:, -1], terminated | truncated)
        if (terminated | truncated).any() and not over.any():
            expected = plain.reset(options={"reset_mask": terminated | truncated})[0]
        assert np.array_equal(obs[:, : expected.shape[1]], expected)
        assert trials.observation_space.contains(obs[0])
    assert over.all()


def test_a_new_trial_starts_blank_and_only_where_asked():
    trials = Trials(family=TabularMDP(), episodes=2)
    env = trials.make_vec(trials.fixed("train", 4))
    env.reset(seed=0)
    for _ in range(13):
        before = env.step(np.full(4, 2))[0]
    mask = np.array([True, False, False, True])
    obs, _ = env.reset(options={"reset_mask": mask})
    assert obs[mask].tolist() == [[1] + [0] * 16] * 2
    assert np.array_equal(obs[~mask], before[~mask])
    assert env.episode.tolist() == [0, 1, 1, 0]
    over = [env.step(np.full(4, 2))[2].tolist() for _ in range(20)]
    assert [row.index(True) for row in np.transpose(over).tolist()] == [19, 6, 6, 19]


def test_seeds_repeat_trials_and_new_trials_have_new_luck():
    trials = Trials(family=GaussianBandit())
    env = trials.make_vec(trials.fixed("train", 3))

    def play(**reset):
        env.reset(**reset)
        return np.stack([env.step(np.zeros(3, np.int64))[1] for _ in range(10)])

    first, second = play(seed=5), play()
    assert np.array_equal(play(seed=5), first)
    assert np.array_equal(play(), second)
    assert not np.isclose(first, second).any()
    assert not np.isclose(play(seed=6), first).any()


def test_new_tasks_reach_the_inner_environment():
    trials = Trials(family=BernoulliBandit(arms=2))
    env = trials.make_vec(Tasks({"mean": [[0.0, 1.0]]}))
    env.reset(seed=0, options={"tasks": Tasks({"mean": [[1.0, 0.0]]})})
    assert env.step(np.array([0]))[1].tolist() == [1.0]


def test_how_many_episodes_a_trial_has():
    counts = [(BernoulliBandit(), 1), (TabularMDP(episodes=25), 25), (GridNavigation(), 4), (Navigation2D(), 2)]
    for family, episodes in counts:
        assert trial_episodes(family) == Trials(family=family).episodes == episodes
    assert Trials(family=TabularMDP(), episodes=3).horizon == 30
    with pytest.raises(ValueError, match="at least one episode"):
        Trials(family=TabularMDP(), episodes=-1)


def test_tasks_are_the_familys():
    family = TabularMDP()
    trials = Trials(family=family)
    assert trials.fixed("test", 3) == family.fixed("test", 3)
    assert trials.sample(3, np.random.default_rng(0)) == family.sample(3, np.random.default_rng(0))
    assert (trials.splits, trials.unseen) == (family.splits, family.unseen)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_the_single_environment_passes_both_checkers(family):
    check_env(RL2Env(family), skip_render_check=True)
    check_env(RL2Env(family, render_mode="rgb_array"))
    sb3_check_env(RL2Env(family), skip_render_check=True)


def test_the_single_environment_keeps_the_task_it_is_given():
    task = {"goal": [2.0, 0.0]}
    env = RL2Env(make_family("metarl/GridNavigation-v0"), episodes=2, task=task)
    obs, _ = env.reset(seed=0)
    rewards = [env.step(RIGHT)[1] for _ in range(2)]
    assert obs.shape == (9,)
    assert rewards == [-0.1, 1.0]
    ends = [env.step(STAY)[2:4] for _ in range(28)]
    assert ends == [(False, False)] * 27 + [(True, False)]


def test_recurrent_ppo_of_sb3_contrib_finds_the_arm_that_always_pays():
    """On one fixed task, after less than a hundred trials."""
    contrib = pytest.importorskip("sb3_contrib")
    family = BernoulliBandit(arms=2)
    task = {"mean": np.array([0.0, 1.0])}
    envs = make_vec_env(lambda: RL2Env(family, task=task), n_envs=16, seed=0)
    model = contrib.RecurrentPPO(
        "MlpLstmPolicy",
        envs,
        n_steps=10,
        batch_size=160,
        n_epochs=3,
        learning_rate=1e-2,
        policy_kwargs={"lstm_hidden_size": 16},
        seed=0,
        device="cpu",
    ).learn(960)
    assert evaluate_policy(model, envs, n_eval_episodes=16)[0] > 9
