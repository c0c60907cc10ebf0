import numpy as np
import pytest

from metarl.envs import chart
from metarl.envs.tabular_mdp import TabularMDP, dirichlet
from metarl.tasks import Tasks


def chain(states=3, actions=2):
    """Action 0 goes to the next state round, action 1 stays; the mean reward is 10 s + a."""
    transition = np.zeros((1, states, actions, states))
    for state in range(states):
        transition[0, state, 0, (state + 1) % states] = 1
        transition[0, state, 1, state] = 1
    reward = 10.0 * np.arange(states)[:, None] + np.arange(actions)
    return Tasks({"transition": transition, "reward": reward[None]})


def test_transitions_and_rewards_by_hand():
    env = TabularMDP(states=3, actions=2, steps=5).make_vec(chain(), 400)
    obs, _ = env.reset(seed=0)
    assert obs.tolist() == [[1, 0, 0]] * 400
    visited, paid = [], []
    for action in (0, 1, 0, 0, 1):
        obs, rewards, terminated, truncated, _ = env.step(np.full(400, action))
        visited.append(obs.argmax(1))
        paid.append(rewards)
    assert np.array_equal(np.unique(np.stack(visited), axis=1)[:, 0], [1, 1, 2, 0, 0])
    assert not terminated.any()
    assert truncated.all()
    noise = np.stack(paid) - np.array([0, 11, 10, 20, 1])[:, None]
    assert abs(noise.mean()) < 4 / np.sqrt(2000)
    assert abs(noise.std() - 1) < 4 / np.sqrt(4000)


def test_next_states_have_their_probabilities():
    family = TabularMDP(steps=1)
    tasks = family.fixed("test", 1)
    env = family.make_vec(tasks, 40_000)
    env.reset(seed=0)
    obs = env.step(np.full(40_000, 3))[0]
    expected = tasks.arrays["transition"][0, 0, 3] * 40_000
    assert ((obs.sum(0) - expected) ** 2 / expected).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = .001


def test_every_episode_starts_in_state_0_with_new_luck():
    family = TabularMDP()
    env = family.make_vec(family.fixed("train", 3), 4)
    episodes = []
    env.reset(seed=0)
    for _ in range(2):
        episodes.append([env.step(np.zeros(12, np.int64))[1] for _ in range(10)])
        obs, _ = env.reset()
        assert obs[:, 0].all()
    assert not np.isclose(*map(np.array, episodes)).any()


def test_some_rows_may_start_again_while_others_go_on():
    family = TabularMDP(steps=4)
    tasks, mask = family.fixed("train", 4), np.array([True, False, True, False])

    def run(disturb):
        env = family.make_vec(tasks)
        env.reset(seed=0)
        out = []
        for t in range(4):
            obs, rewards, _, truncated, _ = env.step(np.full(4, t))
            out.append(np.column_stack([obs, rewards, truncated]))
            if t == 1 and disturb:
                obs, _ = env.reset(options={"reset_mask": mask})
                assert obs[mask, 0].all()
                assert np.array_equal(obs[~mask], out[-1][~mask, :10])
        return np.stack(out)

    calm, disturbed = run(False), run(True)
    assert np.array_equal(calm[:, ~mask], disturbed[:, ~mask])
    assert calm[3, :, -1].tolist() == [1, 1, 1, 1]
    assert disturbed[3, :, -1].tolist() == [0, 1, 0, 1]


def test_luck_is_keyed_by_seed_and_place():
    family = TabularMDP()
    tasks, actions = family.fixed("train", 6), np.random.default_rng(0).integers(0, 5, (10, 6))

    def run(n, seed):
        env = family.make_vec(tasks[:n])
        env.reset(seed=seed)
        return np.stack([env.step(a[:n])[1] for a in actions])

    whole = run(6, 0)
    assert np.array_equal(run(2, 0), whole[:, :2])
    assert not np.isclose(run(6, 1), whole).any()


@pytest.mark.parametrize("action", [-1, 5])
def test_an_action_that_is_not_there_is_refused(action):
    env = TabularMDP().make_vec(TabularMDP().fixed("train", 2))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="integers from 0 to 4"):
        env.step(np.array([0, action]))


@pytest.mark.parametrize("option", [{"states": 1}, {"actions": 1}, {"steps": 0}, {"episodes": 0}])
def test_impossible_options_are_refused(option):
    with pytest.raises(ValueError, match="needs states"):
        TabularMDP(**option)


def test_the_priors():
    rng = np.random.default_rng(0)
    train = TabularMDP().sample(400, rng).arrays
    assert np.allclose(train["transition"].sum(-1), 1)
    assert abs(train["transition"].var() - 9 / 1100) < 1e-4  # Dirichlet(1) over 10: variance 9 / (100 * 11)
    assert abs(train["reward"].mean() - 1) < 0.03
    assert abs(train["reward"].std() - 1) < 0.02
    ood = TabularMDP().sample(400, rng, "ood").arrays["transition"]
    assert np.allclose(ood.sum(-1), 1)
    assert abs(ood.var() - 9 / 350) < 4e-4  # Dirichlet(1/4): 9 / (100 * 3.5)


def test_dirichlet_by_hand():
    u = np.exp([[-1.0, -3.0]])
    assert np.allclose(dirichlet(u, 1.0), [[0.25, 0.75]])
    assert np.isfinite(dirichlet(np.zeros((1, 3)), 1.0)).all()


def test_the_picture_shows_the_state():
    env = TabularMDP(states=3, actions=2).make_vec(chain())
    env.reset(seed=0)
    before = env.render_frame(0)
    env.step(np.array([0]))
    assert before.shape == (360, 480, 3)
    assert not np.array_equal(env.render_frame(0), before)


def test_the_picture_says_what_the_last_step_did(monkeypatch):
    said = []
    monkeypatch.setattr(chart.Chart, "text", lambda self, place, words, *_, **__: said.append(words))
    env = TabularMDP(states=3, actions=2).make_vec(chain())
    env.reset(seed=0)
    env.render_frame(0)
    assert said[:3] == ["0", "1", "2"]  # in the states
    assert "by action" not in said
    said.clear()
    reward = env.step(np.array([1]))[1][0]
    env.render_frame(0)
    told = dict(zip(said[3::2], said[4::2], strict=True))
    state = str(env.state[0])
    assert (told["state"], told["left"], told["by action"], told["reward"]) == (state, "0", "1", f"{reward:+.2f}")


def test_every_row_runs_its_own_task():
    first, second = chain().arrays, chain().arrays
    tasks = Tasks({name: np.concatenate([first[name], second[name] + (name == "reward") * 1000]) for name in first})
    env = TabularMDP(states=3, actions=2).make_vec(tasks, 2)
    env.reset(seed=0)
    rewards = env.step(np.array([0, 1, 0, 1]))[1]
    assert np.allclose(rewards, [0, 1, 1000, 1001], atol=6)
    assert env.state.tolist() == [1, 0, 1, 0]


def test_what_rounding_takes_from_a_row_goes_to_the_last_state():
    class Coarse(TabularMDP):
        def check_tasks(self, tasks):
            pass  # the rounding is made large, to be seen

    tasks = Tasks({"transition": np.tile([0.0, 0.5, 0.4], (1, 3, 2, 1)), "reward": np.zeros((1, 3, 2))})
    env = Coarse(states=3, actions=2).make_vec(tasks, 4000)
    env.reset(seed=0)
    states = env.step(np.zeros(4000, np.int64))[0].mean(0)
    assert states[0] == 0
    assert abs(states[1] - 0.5) < 0.03
