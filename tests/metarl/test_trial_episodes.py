import numpy as np
import pytest
import torch
from small_trials import BANDIT, act, acting, synthetic, vivid

from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.errors import NonFiniteError, UserError
from metarl.nets.actor_critic import recurrent_policy
from metarl.nets.mingru import MinGRU
from metarl.nets.recurrent import GRU, LSTM
from metarl.nets.transformer import Transformer
from metarl.nets.transitions import Transitions
from metarl.sampling.blocks import Blocks
from metarl.sampling.trials import run_trials
from metarl.seeding import Key
from metarl.tasks import Tasks

MEMORIES = [
    GRU,
    LSTM,
    lambda inputs, width: MinGRU(inputs, width, layers=2),
    lambda inputs, width: Transitions(GRU(2 * inputs, width)),
    lambda inputs, width: Transformer(inputs, 12, width),
]


@pytest.mark.parametrize("memory", MEMORIES)
def test_memory_lasts_over_episodes_of_a_trial_and_not_into_the_next(memory, monkeypatch):
    """By intervention: other rewards in the first episode change what is done in the third, but not the next trial."""
    env, policy, params = acting(memory=memory, tasks=20)
    reference, next_reference = (act(env, policy, params, Key(i)) for i in (1, 2))
    honest, intervening = env.inner.step, [True]

    def step(actions):
        obs, rewards, *rest = honest(actions)
        return obs, rewards + 5.0 * (intervening[0] and env.episode[0] == 0), *rest

    monkeypatch.setattr(env.inner, "step", step)
    changed = act(env, policy, params, Key(1))
    intervening[0] = False
    next_changed = act(env, policy, params, Key(2))
    assert torch.equal(changed.values[0], reference.values[0])  # nothing was paid before the first action
    assert (changed.values[8:] != reference.values[8:]).all()
    assert not torch.equal(changed.episodes.actions[..., 8:], reference.episodes.actions[..., 8:])
    assert torch.equal(next_changed.episodes.obs, next_reference.episodes.obs)
    assert torch.equal(next_changed.values, next_reference.values)


def test_memory_is_zero_at_the_start_of_every_trial():
    env, policy, params = acting()
    first, second = (act(env, policy, params, Key(i), chunk=4) for i in (1, 2))
    for experience in (first, second):
        assert not experience.states[0].any()
        assert experience.states[1].abs().min() > 0
        empty = policy.step(params, experience.episodes.obs[..., 0, :].flatten(0, 1), torch.zeros(8, 8))
        assert torch.equal(experience.values[0], empty.value)


def test_rows_do_not_depend_on_how_many_there_are():
    joined = Trials(family=BANDIT, episodes=2)
    policy = recurrent_policy(joined.observation_space, joined.action_space, lambda inputs: GRU(inputs, 8))
    params, tasks = vivid(policy), joined.fixed("train", 5)
    few, many = (act(joined.make_vec(tasks[:n]), policy, params, Key(3)) for n in (2, 5))
    assert torch.equal(few.episodes.actions, many.episodes.actions[:2])
    assert torch.equal(few.episodes.rewards, many.episodes.rewards[:2])


def test_the_likeliest_actions_are_taken_when_asked_for():
    for family in (BANDIT, make_family("metarl/Navigation2D-v0")):
        env, policy, params = acting(family, episodes=2)
        one, other = (act(env, policy, params, Key(i), likeliest=True) for i in (0, 1))
        decision = policy.sequence(params, one.episodes.obs.flatten(0, 1).transpose(0, 1), policy.start(8))
        best = decision.distribution.mode().transpose(0, 1).unflatten(0, (4, 2))
        valid = one.episodes.valid
        torch.testing.assert_close(one.episodes.actions[valid], best[valid], atol=1e-4, rtol=1e-4)
        assert torch.equal(one.episodes.actions[..., 0], other.episodes.actions[..., 0]) or family is not BANDIT


def test_permuting_arms_permutes_behaviour():
    """An agent whose arms are renamed, on the bandit with renamed arms, pulls the renamed arms and earns the same."""
    env, policy, params = acting(tasks=20, trials=3)
    order = [2, 0, 1]  # new arm i is old arm order[i]
    renamed = dict(params)
    renamed["actor.0.weight"] = 1e4 * params["actor.0.weight"]  # so sure that sampling has nothing to decide
    params = dict(renamed)
    renamed["actor.0.weight"] = renamed["actor.0.weight"][:, order]
    renamed["actor.0.bias"] = params["actor.0.bias"][order]
    arms = [1 + i for i in order]  # inputs: the constant, three arms, reward, done
    renamed["cell.weight_ih"] = params["cell.weight_ih"][:, [0, *arms, 4, 5]]
    one = act(env, policy, params, Key(4))
    env.reset(options={"tasks": Tasks({"mean": env.tasks.arrays["mean"][:, order]}, split=env.tasks.split)})
    other = act(env, policy, renamed, Key(4))
    assert torch.equal(torch.tensor(order)[other.episodes.actions], one.episodes.actions)
    assert torch.equal(other.episodes.rewards, one.episodes.rewards)
    assert len(one.episodes.actions.unique()) == 3


def test_returns_go_to_the_episode_they_were_earned_in():
    experience = synthetic([[1.0, 2, 4, 8, 16, 32]], [[0.0] * 6], valid=[[True] * 5 + [False]], inner=3)
    experience.episodes.obs[0, 0, :, -1] = torch.tensor([0.0, 0, 1, 1, 0, 0])  # episodes of 2, 1 and 2 steps
    assert experience.returns().tolist() == [[[3, 4, 24]]]


def test_regret_is_what_the_best_arm_would_have_paid_more():
    tasks = Tasks({"mean": np.array([[0.2, 0.9, 0.5]])})
    experience = synthetic([[0.0, 1, 1]], [[0.0] * 3])
    experience.episodes.actions[0, 0] = torch.tensor([0, 1, 2])
    np.testing.assert_allclose(experience.regret(tasks), [[[0.7, 0, 0.4]]])
    with pytest.raises(UserError, match="regret is counted on bandits"):
        experience.regret(Tasks({"goal": np.zeros((1, 2))}))


@pytest.mark.parametrize("chunk", [0, 5])
def test_blocks_that_act_side_by_side_take_the_trials_of_one_vector(chunk):
    """Five tasks in two blocks, with a critic that is told a number of each."""
    joined = Trials(family=BANDIT, episodes=3)
    tasks = joined.fixed("train", 5)
    policy = recurrent_policy(
        joined.observation_space, joined.action_space, lambda inputs: Transformer(inputs, 15, 8), told=1
    )
    params, options = vivid(policy), {"chunk": chunk, "task": torch.arange(5.0)[:, None]}
    whole = act(joined.make_vec(tasks, 2), policy, params, Key(0), **options)
    blocks = Blocks(joined, tasks, 2, threads=2)
    assert [len(part.tasks) for part in blocks.parts] == [2, 3]
    split = run_trials(blocks, policy, params, Key(0), inner=3, **options)
    for name in ("obs", "actions", "rewards", "terminated", "truncated", "valid"):
        assert torch.equal(getattr(split.episodes, name), getattr(whole.episodes, name))
    for name in ("log_prob", "values", "states"):
        torch.testing.assert_close(getattr(split, name), getattr(whole, name))
    assert len({tuple(values) for values in whole.values.T.tolist()}) == 10
    assert whole.states.shape[0] == (3 if chunk else 1)


def test_the_tasks_to_blame_are_numbered_over_all_blocks():
    joined = Trials(family=BANDIT, episodes=2)
    policy = recurrent_policy(joined.observation_space, joined.action_space, lambda inputs: GRU(inputs, 8), told=1)
    blocks = Blocks(joined, joined.fixed("train", 4), 1, threads=2)
    told = torch.tensor([[0.0], [0.0], [0.0], [torch.nan]])
    with pytest.raises(NonFiniteError, match="a value of the critic is not finite") as caught:
        run_trials(blocks, policy, vivid(policy), Key(0), inner=2, task=told)
    assert caught.value.tasks == [3]
