"""The bound that a belief is learned from: literal values, its terms one by one, and its gradient."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from metarl.learning.belief_bound import BeliefModel, Transitions, chain_divergence
from metarl.learning.belief_settings import BeliefSettings
from metarl.nets.belief import Belief
from metarl.nets.distributions import Gaussian
from metarl.seeding import Key

ENCODER = Belief(2, 1, latent=2, hidden=3, state_embedding=0, action_embedding=0, reward_embedding=2)
SETTINGS = BeliefSettings(reward_decoder=(4,), state_decoder=(3,), kl_weight=0.7, reward_weight=1.3, state_weight=0.4)
HORIZON, ROWS = 6, 3


def doubled(params):
    return {name: value.double() for name, value in params.items()}


def some_trials():
    """Observations `[state, action, reward, ended]` of trials of 6 steps, an episode ending after 3; one trial of 5."""
    obs = torch.randn(HORIZON, ROWS, 5, generator=Key(2).torch(), dtype=torch.float64)
    obs[..., -1] = 0
    obs[3, :, -1] = 1
    valid = torch.ones(HORIZON, ROWS, dtype=torch.bool)
    valid[5, 0] = False
    obs[5, 0] = 0
    return obs, valid


def a_loss(settings=SETTINGS, moments=(0, 2, 5), decoded=(0, 2, 4), **changes):
    model = BeliefModel(ENCODER, settings)
    encoder = doubled(ENCODER.encoder(ENCODER.init(Key(0).torch())))
    decoders = doubled(model.init(Key(1).torch()))
    obs, valid = some_trials()
    noise = torch.randn(len(moments), ROWS, 2, generator=Key(3).torch(), dtype=torch.float64)
    drawn = {"moments": torch.tensor(moments), "decoded": torch.tensor(decoded, dtype=torch.long), "noise": noise}
    return model, {"encoder": encoder, "decoders": decoders, "obs": obs, "valid": valid, **drawn, **changes}


def relu_layers(params, name, x):
    hidden = np.maximum(x @ params[f"{name}.0.weight"].numpy() + params[f"{name}.0.bias"].numpy(), 0)
    return hidden @ params[f"{name}.1.weight"].numpy() + params[f"{name}.1.bias"].numpy()


def test_literal_values_of_a_belief_that_sees_nothing():
    """Mean 1 and variance 4 at all moments; rewards 1, 3 predicted as 2; next states (1, 0), (0, 1) as (0, 0)."""
    settings = replace(SETTINGS, reward_decoder=(), state_decoder=(1,), kl_weight=0.5, reward_weight=1, state_weight=1)
    encoder = replace(ENCODER, latent=1)
    model = BeliefModel(encoder, settings)
    zero = {name: torch.zeros_like(value) for name, value in encoder.init(Key(0).torch()).items()}
    zero |= {"mean.0.bias": torch.tensor([1.0]), "log_variance.0.bias": torch.tensor([math.log(4)])}
    nothing = {name: torch.zeros_like(value) for name, value in model.init(Key(1).torch()).items()}
    nothing["reward.0.bias"] += 2.0
    obs = torch.tensor([[0.0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 3, 0]])[:, None]
    everything = {"moments": torch.arange(3), "decoded": torch.arange(2), "noise": torch.zeros(3, 1, 1)}
    loss, terms = model.loss(zero, nothing, obs, torch.ones(3, 1, dtype=torch.bool), **everything)
    # A sum over two transitions, a mean over three moments, of which only the first has something to pay.
    first = 0.5 * (4 + 1 - 1 - math.log(4))
    assert float(terms["reward"]) == pytest.approx(1 + 1)
    assert float(terms["state"]) == pytest.approx(0.5 + 0.5)
    assert float(terms["divergence"]) == pytest.approx(first / 3)
    assert float(loss) == pytest.approx(2 + 1 + 0.5 * first / 3)


def test_all_terms_are_those_of_a_computation_step_by_step():
    model, given = a_loss()
    loss, terms = model.loss(**given)
    encoder, decoders, obs, valid = (given[name] for name in ("encoder", "decoders", "obs", "valid"))
    reward = state = divergence = count = 0.0
    for row in range(ROWS):
        hidden, beliefs = torch.zeros(1, 3, dtype=torch.float64), []
        for t in range(HORIZON):
            belief, hidden = ENCODER.posterior(encoder, obs[t : t + 1, row : row + 1], hidden)
            beliefs.append(Normal(belief.mean[0, 0], belief.log_std[0, 0].exp()))
        for m, t in enumerate(given["moments"].tolist()):
            if not valid[t, row]:
                continue
            count += 1
            before = beliefs[t - 1] if t else Normal(torch.zeros(2).double(), torch.ones(2).double())
            divergence += float(kl_divergence(beliefs[t], before).sum())
            drawn = beliefs[t].mean + beliefs[t].stddev * given["noise"][m, row]
            for i in given["decoded"].tolist():
                if not valid[i + 1, row]:
                    continue
                s, a, r = obs[i, row, :2], obs[i + 1, row, 2:3], float(obs[i + 1, row, 3])
                after, ended = obs[i + 1, row, :2].numpy(), float(obs[i + 1, row, 4])
                told = np.concatenate([drawn, s, a, np.zeros(2) if ended else after, [ended]])
                reward += float((relu_layers(decoders, "reward", told)[0] - r) ** 2)
                if not ended:
                    told = np.concatenate([drawn, s, a])
                    state += float(((relu_layers(decoders, "state", told) - after) ** 2).mean())
    expected = {"reward": reward / count, "state": state / count, "divergence": divergence / count}
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, rel=1e-12)
    assert float(loss) == pytest.approx(
        1.3 * expected["reward"] + 0.4 * expected["state"] + 0.7 * expected["divergence"], rel=1e-12
    )


def test_divergences_are_from_the_moment_before_and_first_from_a_standard_normal():
    mean, log_std = torch.randn(2, 4, 3, 2, generator=Key(0).torch(), dtype=torch.float64)
    chain = chain_divergence(Gaussian(mean, log_std))
    each = [Normal(mean[t], log_std[t].exp()) for t in range(4)]
    before = [Normal(torch.zeros(3, 2).double(), torch.ones(3, 2).double()), *each]
    torch.testing.assert_close(
        chain, torch.stack([kl_divergence(q, p).sum(-1) for q, p in zip(each, before, strict=False)])
    )
    still = chain_divergence(Gaussian(mean[:1].expand(4, -1, -1), log_std[:1].expand(4, -1, -1)))
    assert still[0].all()
    assert still[1:].abs().max() < 1e-12  # a belief that stays as it is pays nothing
    assert not chain_divergence(Gaussian(torch.zeros(4, 3, 2), torch.zeros(4, 3, 2))).any()


@pytest.mark.parametrize("name", ["gru.weight_hh", "reward.0.weight", "mean.0.bias", "log_variance.0.weight"])
def test_the_encoders_gradient_is_a_finite_difference(name):
    check_gradient("encoder", name)


@pytest.mark.parametrize("name", ["reward.0.weight", "reward.1.bias", "state.1.weight"])
def test_the_decoders_gradient_is_a_finite_difference(name):
    check_gradient("decoders", name)


def check_gradient(which, name, step=1e-6):
    model, given = a_loss()
    value = given[which][name].requires_grad_()
    [gradient] = torch.autograd.grad(model.loss(**given)[0], value)
    direction = torch.randn(value.shape, generator=Key(5).torch(), dtype=torch.float64)
    ends = []
    for sign in (1, -1):
        moved = {**given[which], name: (value + sign * step * direction).detach()}
        ends.append(float(model.loss(**{**given, which: moved})[0]))
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)
    assert gradient.any()


def test_what_is_no_step_changes_nothing():
    model, given = a_loss()
    loss, _ = model.loss(**given)
    obs = given["obs"].clone()
    obs[5, 0] = 1e3
    assert torch.equal(model.loss(**{**given, "obs": obs})[0], loss)
    obs[5, 1] = 1e3
    assert not torch.equal(model.loss(**{**given, "obs": obs})[0], loss)


def test_parts_of_a_minibatch_add_up_to_it():
    model, given = a_loss()
    count = given["valid"][given["moments"]].sum()
    parts = []
    for rows in ([0], [1, 2]):
        part = {name: given[name][:, rows] for name in ("obs", "valid", "noise")}
        parts.append(model.loss(**{**given, **part}, count=count)[0])
    torch.testing.assert_close(sum(parts), model.loss(**given)[0])


def test_the_state_that_follows_the_end_of_an_episode_is_not_known():
    obs, valid = some_trials()
    transitions = Transitions.of(obs, valid, 2, torch.arange(HORIZON - 1))
    assert transitions.ended.tolist() == [[0] * 3, [0] * 3, [1] * 3, [0] * 3, [0] * 3]
    assert not transitions.after[2].any()
    torch.testing.assert_close(transitions.after[0], obs[1, :, :2])
    torch.testing.assert_close(transitions.reward, obs[1:, :, 3])
    assert transitions.valid.sum(0).tolist() == [4, 5, 5]


def test_a_trial_of_one_step_has_nothing_to_decode():
    model, given = a_loss(moments=(0,), decoded=())
    one = {name: given[name][:1] for name in ("obs", "valid")}
    loss, terms = model.loss(**{**given, **one})
    assert (float(terms["reward"]), float(terms["state"])) == (0, 0)
    assert float(loss) == pytest.approx(0.7 * float(terms["divergence"]))
