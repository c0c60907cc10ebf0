"""A critic that is told the task: what it is told, when, and that the actor is not."""

import numpy as np
import pytest
import torch
from small_trials import BANDIT, act, vivid

from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.errors import UserError
from metarl.learning.recurrent_ppo import ppo_loss
from metarl.learning.recurrent_settings import Settings
from metarl.learning.sequences import prepare
from metarl.learning.told_task import ToldTask, flat
from metarl.nets.actor_critic import recurrent_policy
from metarl.nets.recurrent import GRU
from metarl.ops.reward_scale import RewardScale
from metarl.seeding import Key
from metarl.tasks import Tasks

TASKS = BANDIT.fixed("train", 4)


def policy_told(told=3, episodes=2):
    joined = Trials(family=BANDIT, episodes=episodes)
    spaces = joined.observation_space, joined.action_space
    policy = recurrent_policy(*spaces, lambda inputs: GRU(inputs, 8), told=told)
    return joined.make_vec(TASKS, 2), policy, vivid(policy, scale=0.3)


def test_numbers_are_all_arrays_in_the_order_of_their_names():
    tasks = Tasks({"b": np.array([[1, 2], [3, 4]]), "a": np.array([0.5, 0.25])})
    np.testing.assert_array_equal(flat(tasks), [[0.5, 1, 2], [0.25, 3, 4]])


@pytest.mark.parametrize("arrays", [{}, {"name": np.array(["x", "y"])}])
def test_tasks_without_numbers_are_refused(arrays):
    with pytest.raises(UserError, match="--critic task is told a task's numbers"):
        flat(Tasks(arrays) if arrays else Tasks({"empty": np.zeros((2, 0))}))


def test_numbers_have_zero_mean_and_unit_deviation_over_training_tasks():
    told = ToldTask(BANDIT, Key(0)("told"))
    values = told(BANDIT.sample(4000, Key(1).numpy()))
    assert values.shape == (4000, told.size) == (4000, 3)
    np.testing.assert_allclose(values.mean(0), 0, atol=0.15)
    np.testing.assert_allclose(values.std(0), 1, atol=0.1)


def test_a_number_that_is_the_same_in_all_tasks_is_0():
    class Same(type(BANDIT)):
        def sample(self, n, rng):
            return Tasks({"mean": np.full((n, 2), 7.0)})

    assert not ToldTask(Same(), Key(0))(Tasks({"mean": np.full((3, 2), 7.0)})).any()


def test_the_task_moves_the_values_and_never_the_actions():
    env, policy, params = policy_told()
    task = ToldTask(BANDIT, Key(0))(TASKS)
    told, other = (act(env, policy, params, Key(3), task=each) for each in (task, task.flip(0)))
    untold = act(env, policy, params, Key(3))
    for name in ("actions", "rewards", "obs"):
        assert torch.equal(getattr(told.episodes, name), getattr(other.episodes, name))
        assert torch.equal(getattr(told.episodes, name), getattr(untold.episodes, name))
    assert torch.equal(told.log_prob, untold.log_prob)
    assert not torch.isclose(told.values, other.values).any()
    assert not untold.values.any()  # who acts on an unknown task needs none


@pytest.mark.parametrize("chunk", [0, 3])
def test_learning_sees_the_task_that_each_sequence_was_acted_on(chunk):
    env, policy, params = policy_told()
    task = ToldTask(BANDIT, Key(0))(TASKS)
    experience = act(env, policy, params, Key(3), task=task, chunk=chunk)
    settings = Settings(chunk=chunk, gae_lambda=0.0, gamma=0.0, normalise_advantages=False)
    batch, _ = prepare(experience, settings, RewardScale(), task)
    with torch.no_grad():
        value = policy.sequence(params, batch.obs, batch.states, batch.task).value
    # With lambda and gamma 0 the target is the reward and the advantage the reward minus the value when acting.
    torch.testing.assert_close((batch.targets - batch.advantages)[batch.valid > 0], value[batch.valid > 0])
    rows = torch.tensor([len(batch) - 1, 0])
    part = batch.take(rows)
    assert torch.equal(part.task, batch.task[rows])


def test_the_gradient_of_the_policy_does_not_reach_the_task_s_layers_and_that_of_the_critic_does():
    env, policy, params = policy_told()
    task = ToldTask(BANDIT, Key(0))(TASKS)
    batch, _ = prepare(act(env, policy, params, Key(3), task=task), Settings(), RewardScale(), task)
    params = {name: value.requires_grad_() for name, value in params.items()}
    names = [name for name in params if name.startswith("task.")]
    assert len(names) == 4
    for weight in (0.0, 0.5):
        loss, _ = ppo_loss(policy, params, batch, Settings(value_weight=weight))
        gradients = torch.autograd.grad(loss, [params[name] for name in names], materialize_grads=True)
        assert all(bool(gradient.any()) == bool(weight) for gradient in gradients)


def test_tasks_of_any_family_can_be_told():
    for name in ("metarl/TabularMDP-v0", "metarl/Navigation2D-v0", "metarl/HalfCheetahVelocity-v0"):
        family = make_family(name)
        told = ToldTask(family, Key(0))
        assert told(family.fixed("train", 3)).isfinite().all()
