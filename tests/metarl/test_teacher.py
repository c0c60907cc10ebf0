"""Lessons: the loss, when they are given, and what they leave as it is."""

import math

import numpy as np
import pytest
import torch
from small_trials import BANDIT, act, acting, synthetic

from metarl.errors import UserError
from metarl.learning.recurrent_ppo import ppo_loss
from metarl.learning.recurrent_settings import Settings
from metarl.learning.sequences import prepare
from metarl.learning.teacher import NO_LESSONS, Lessons, LessonSettings, log_probability
from metarl.nets.distributions import Categorical, Gaussian
from metarl.ops.reward_scale import RewardScale
from metarl.seeding import Key

TASKS = BANDIT.fixed("train", 4)


class Favourite:
    """A teacher that always says the same."""

    def __init__(self, arm=1):
        self.arm = arm

    def advise(self, episodes, tasks, key):
        best = np.zeros((episodes.actions.shape[0] * episodes.actions.shape[1], episodes.actions.shape[2], 3), bool)
        best[..., self.arm] = True
        return best


def test_any_of_the_best_actions_is_right_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]] * 3))
    advice = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    expected = [math.log(0.7), math.log(0.3), 0.0]  # without advice everything is right
    torch.testing.assert_close(log_probability(Categorical(logits), advice), torch.tensor(expected))


def test_its_gradient_by_finite_differences():
    logits = torch.randn(4, 3, dtype=torch.float64, generator=Key(0).torch(), requires_grad=True)
    advice = torch.tensor([[True, False, True], [False, True, False], [True, True, True], [False, False, False]])
    assert torch.autograd.gradcheck(
        lambda x: log_probability(Categorical(torch.log_softmax(x, -1)), advice), (logits,), eps=1e-6, atol=1e-8
    )


def test_continuous_actions_have_no_teacher():
    with pytest.raises(ValueError, match="a teacher advises on choices among actions, not on a Gaussian"):
        log_probability(Gaussian(torch.zeros(1), torch.zeros(1)), torch.ones(1, dtype=torch.bool))


def test_advice_takes_the_surrogates_place_and_nothing_elses():
    env, policy, params = acting(BANDIT, episodes=1)
    experience = act(env, policy, params, Key(0))
    advice = torch.from_numpy(Favourite().advise(experience.episodes, TASKS, Key(0)))
    settings = Settings(entropy_weight=0.1)
    taught, _ = prepare(experience, settings, RewardScale(), None, advice)
    plain, _ = prepare(experience, settings, RewardScale())
    losses, named = zip(*(ppo_loss(policy, params, batch, settings) for batch in (taught, plain)), strict=True)
    logits = policy.sequence(params, taught.obs, taught.states).distribution.logits
    assert float(named[0]["teacher/log_probability"]) == pytest.approx(float(logits[..., 1].mean()), rel=1e-5)
    assert float(losses[0] + named[0]["teacher/log_probability"]) == pytest.approx(
        float(losses[1] + named[1]["policy/surrogate"]), rel=1e-5
    )
    assert named[0].keys() ^ named[1].keys() == {"teacher/log_probability", "policy/surrogate"}


def test_advice_is_cut_and_taken_like_all_that_has_steps():
    """Two trials of three steps in chunks of two: the fourth is padding, on which nothing is advised."""
    experience = synthetic([[1.0, 0, 2], [0, 0, 0]], [[0.0] * 3] * 2)
    advice = torch.arange(6).view(2, 3, 1) % 2 == torch.tensor([0, 1])
    batch, _ = prepare(experience, Settings(chunk=2), RewardScale(), None, advice)
    assert batch.advice.shape == (2, 4, 2)
    assert batch.advice[:, 0].tolist() == advice[0, :2].tolist()
    assert batch.advice[:, 3].tolist() == [advice[1, 2].tolist(), [False, False]]
    taken = batch.take(torch.tensor([1, 0]))
    assert torch.equal(taken.advice, batch.advice[:, [1, 0]])
    assert torch.equal(taken.states, batch.states[[1, 0]])


def test_lessons_are_given_in_the_first_iterations_alone():
    env, policy, params = acting(BANDIT, episodes=1)
    episodes = act(env, policy, params, Key(0)).episodes
    lessons = Lessons(Favourite(), 2)
    given = [lessons(episodes, TASKS, iteration, Key(0)) is not None for iteration in range(4)]
    assert given == [True, True, False, False]
    assert NO_LESSONS(episodes, TASKS, 0, Key(0)) is None


@pytest.mark.parametrize("options", [{"teacher": "gittins"}, {"teacher_iterations": 3}])
def test_a_teacher_and_its_iterations_go_together(options):
    with pytest.raises(UserError, match=r"--teacher is \w+ and --teacher-iterations \d; give both, or neither"):
        LessonSettings(**options)


def test_who_cannot_teach_is_refused():
    settings = LessonSettings("random", 3)
    with pytest.raises(UserError, match="--teacher is random, which gives no advice"):
        settings.lessons(lambda name, family: object(), BANDIT, 1, 1)
    settings = LessonSettings("gittins", 3)
    with pytest.raises(UserError, match="plays trials of 1 episodes, not 2: leave --trial-episodes out"):
        settings.lessons(lambda name, family: Favourite(), BANDIT, 2, 1)
    lessons = settings.lessons(lambda name, family: Favourite(), BANDIT, 1, 1)
    assert lessons.iterations == 3
