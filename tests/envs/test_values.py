"""Trials that show value iteration's estimates: what they are, row by row, and whose."""

import numpy as np
import pytest

from metarl.envs import make_family
from metarl.envs.tabular_belief import Belief
from metarl.envs.tabular_planning import model, plan
from metarl.envs.wrappers.trials import Trials
from metarl.envs.wrappers.values import Estimator, ValueTrials
from metarl.errors import UserError

MDP = make_family("metarl/TabularMDP-v0", states=3, actions=2, steps=4, episodes=3)
TASKS = MDP.fixed("train", 5)


def acted(trials, steps=12, seed=0):
    env, rng = trials.make_vec(TASKS, 2), np.random.default_rng(seed)
    seen = [env.reset(seed=7)[0]]
    for _ in range(steps):
        seen.append(env.step(rng.integers(2, size=10))[0])
    return env, np.stack(seen)


def test_estimates_stand_between_the_observation_and_the_rest_which_stays():
    env, shown = acted(ValueTrials(family=Trials(family=MDP)), 7)
    assert shown.shape == (8, 10, 3 + 4 + 2 + 2)
    joined, rng = Trials(family=MDP).make_vec(TASKS, 2), np.random.default_rng(0)
    joined.reset(seed=env._key("inner").integer())
    for t in range(7):
        plain = joined.step(rng.integers(2, size=10))[0]
        np.testing.assert_array_equal(np.delete(shown[t + 1], range(3, 7), -1), plain)
    space = ValueTrials(family=Trials(family=MDP)).observation_space
    assert all(space.contains(row) for row in shown.reshape(-1, 11))


def test_at_the_start_nothing_is_known_and_every_action_is_worth_the_same():
    _, shown = acted(ValueTrials(family=Trials(family=MDP)), 0)
    np.testing.assert_allclose(shown[0, :, 3:5], 0, atol=1e-12)
    np.testing.assert_array_equal(shown[0, :, 5:7], 1)


def test_estimates_are_those_of_the_posterior_mean_of_what_was_seen():
    """Planned anew at every moment for the steps that are left; the state an episode ended in is never shown."""
    _, shown = acted(ValueTrials(family=Trials(family=MDP)))
    for row in range(10):
        belief, seen = Belief.prior(1, 3, 2), shown[:, row]
        for t in range(12):
            state = seen[t, :3].argmax()
            worth = plan(model(belief.reward, belief.transition), 1, 3, 4 - t % 4)[0, 0, state]
            np.testing.assert_allclose(seen[t, 3:5], worth - worth.max(), atol=1e-9)
            np.testing.assert_allclose(seen[t, 5:7], 1 / (1 + belief.count[0, state]))
            action, reward, ended = seen[t + 1, 7:9].argmax(), seen[t + 1, 9], seen[t + 1, 10]
            belief.count[0, state, action] += 1
            belief.total[0, state, action] += reward
            if not ended:
                belief.concentration[0, state, action, seen[t + 1, :3].argmax()] += 1


def test_a_trial_that_begins_forgets_and_the_others_go_on():
    trials = ValueTrials(family=Trials(family=MDP))
    env, shown = acted(trials, 5)
    mask = np.arange(10) < 4
    again, _ = env.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(again[mask, 5:7], 1)
    np.testing.assert_array_equal(again[~mask], shown[-1][~mask])
    other, _ = acted(trials, 5)
    actions = np.zeros(10, np.int64)
    np.testing.assert_array_equal(env.step(actions)[0][~mask], other.step(actions)[0][~mask])


def test_what_was_known_before_is_left_as_it_is():
    estimator = Estimator(3, 2, 4)
    seen = np.zeros((2, 7))
    seen[:, 0] = 1
    _, known = estimator(seen, None)
    kept = [part.copy() for part in known]
    seen[:, 3], seen[:, 5] = 1, 2.5
    _, after = estimator(seen, known)
    assert all(np.array_equal(part, old) for part, old in zip(known, kept, strict=True))
    assert after.total[:, 0, 0].tolist() == [2.5, 2.5]
    assert after.step.tolist() == [1, 1]


def test_other_families_have_no_values():
    with pytest.raises(UserError, match="values are estimated in tabular MDPs, and metarl/BernoulliBandit-v0 is none"):
        ValueTrials(family=Trials(family=make_family("metarl/BernoulliBandit-v0")))
