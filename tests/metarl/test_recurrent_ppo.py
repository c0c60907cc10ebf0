from dataclasses import replace

import numpy as np
import pytest
import torch
from small_trials import BANDIT, act, acting, synthetic, vivid

from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.learning import sequence_blocks
from metarl.learning.memory_policy import PolicySettings
from metarl.learning.recurrent_ppo import ppo_loss, project, update
from metarl.learning.recurrent_settings import Settings, annealed
from metarl.learning.sequence_blocks import blocks
from metarl.learning.sequences import Sequences, prepare
from metarl.learning.shared_gradient import sum_gradients
from metarl.nets.actor_critic import Decision, RecurrentPolicy
from metarl.nets.distributions import Categorical
from metarl.nets.policies import MIN_STD
from metarl.nets.recurrent import GRU, LSTM
from metarl.nets.transformer import Transformer
from metarl.ops.reward_scale import RewardScale
from metarl.seeding import Key

MIN_STD_LOG = float(np.log(MIN_STD))
SMALL = Settings(halve_every=0, epochs=2, minibatches=2)


POLICIES = [
    {},
    {"memory": "lstm", "token": "transition"},
    {"memory": "mingru", "layers": 2, "token": "transition"},
    {"memory": "mingru", "actor": "hypernetwork"},
    {"memory": "transformer", "token": "moment"},
]


@pytest.mark.parametrize("options", POLICIES, ids=str)
@pytest.mark.parametrize("chunk", [0, 3])
def test_what_was_recorded_when_acting_is_what_the_sequence_says(options, chunk):
    """Also in chunks, in which episodes end: those of the bandit have 4 steps."""
    for family in (BANDIT, make_family("metarl/Navigation2D-v0", preset="pearl")):
        trials = Trials(family=family, episodes=2)
        settings = PolicySettings(hidden=8, **options)
        policy = settings.policy(trials.observation_space, trials.action_space, trials.horizon + 2, seen=1)
        env, params = trials.make_vec(trials.fixed("train", 4), 2), vivid(policy, scale=0.5)
        experience = act(env, policy, params, Key(0), chunk=chunk)
        batch, _ = prepare(experience, Settings(chunk=chunk), RewardScale())
        decision = policy.sequence(params, batch.obs, batch.states)
        valid = batch.valid.bool()
        log_prob = decision.distribution.log_prob(batch.actions)
        torch.testing.assert_close(log_prob[valid], batch.log_prob[valid], atol=1e-4, rtol=1e-4)
        assert experience.log_prob.std() > 0.1
        if not chunk:
            torch.testing.assert_close(decision.value, experience.values, atol=1e-4, rtol=1e-4)


def small_blocks(monkeypatch, steps=8, least=1):
    """Cut minibatches into blocks of so few steps that small ones have several."""
    monkeypatch.setattr(sequence_blocks, "BLOCK_STEPS", steps)
    monkeypatch.setattr(sequence_blocks, "LEAST_OF_OTHERS", least)


# Advantages


def test_advantages_flow_over_the_ends_of_episodes_and_stop_at_the_trials():
    config = Settings(gamma=0.5, gae_lambda=1.0, normalise_advantages=False)
    ends = {"truncated": [[False, True, False, True]] * 2}
    batch, _ = prepare(
        synthetic([[0.0, 0, 0, 8], [0, 0, 0, 0]], [[0.0] * 4] * 2, inner=2, **ends), config, RewardScale()
    )
    assert batch.advantages.T.tolist() == [[1, 2, 4, 8], [0, 0, 0, 0]]
    ends = {"terminated": [[False, True, False, False]] * 2}
    again, _ = prepare(
        synthetic([[0.0, 0, 0, 8], [0, 0, 0, 0]], [[0.0] * 4] * 2, inner=2, **ends), config, RewardScale()
    )
    assert torch.equal(batch.advantages, again.advantages)


def test_advantages_by_hand():
    """With gamma .5, lambda .5: deltas 1 + .5*4 - 2 = 1, 0 + .5*6 - 4 = -1, 2 + 0 - 6 = -4; the fourth is padding."""
    config = Settings(gamma=0.5, gae_lambda=0.5, normalise_advantages=False)
    experience = synthetic([[1.0, 0, 2, 0]], [[2.0, 4, 6, 9]], valid=[[True, True, True, False]])
    batch, _ = prepare(experience, config, RewardScale())
    assert batch.advantages.T.tolist() == [[0.5, -2, -4, 0]]
    assert batch.targets.T.tolist() == [[2.5, 2, 2, 0]]
    assert batch.valid.T.tolist() == [[1, 1, 1, 0]]


def test_advantages_are_normalised_over_the_whole_update_where_valid():
    experience = synthetic([[1.0, 5, 2], [3, 3, 0]], [[0.0] * 3] * 2, valid=[[True] * 3, [True, True, False]])
    batch, _ = prepare(experience, Settings(), RewardScale())
    kept = batch.advantages[batch.valid.bool()]
    assert float(kept.mean()) == pytest.approx(0, abs=1e-6)
    assert float(kept.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    assert float(batch.advantages[2, 1]) == 0


def test_normalised_rewards_are_what_is_learned_from_and_nothing_else():
    experience, scale = synthetic([[2.0, 4.0]], [[0.0, 0.0]]), RewardScale(10, 0.0, 40.0)
    config = Settings(gamma=1.0, gae_lambda=1.0, normalise_advantages=False)
    plain, _ = prepare(experience, config, scale)
    scaled, _ = prepare(experience, replace(config, normalise_rewards=True), scale)
    assert plain.targets.T.tolist() == [[6, 4]]
    assert scaled.targets.T.tolist() == [[3, 2]]
    assert experience.returns().tolist() == [[[6]]]


@pytest.mark.parametrize("chunk", [1, 4, 5, 12])
def test_chunks_say_the_same_as_the_whole_trial_before_any_step(chunk):
    """The memories kept at their starts join them; gradients stop there, so they differ."""
    env, policy, params = acting()
    config = Settings(chunk=chunk, gamma=0.9, gae_lambda=0.9)
    params = {n: v.requires_grad_() for n, v in params.items()}
    outcomes = {}
    for name, settings in {"whole": replace(config, chunk=0), "chunks": config}.items():
        batch, _ = prepare(act(env, policy, params, Key(5), chunk=settings.chunk), settings, RewardScale())
        loss, diagnostics = ppo_loss(policy, params, batch, settings)
        gradient = torch.autograd.grad(loss, params["cell.weight_hh"])[0]
        outcomes[name] = (loss.detach(), diagnostics["policy/entropy"], batch.valid.sum(), gradient)
    for whole, chunks in zip(outcomes["whole"][:3], outcomes["chunks"][:3], strict=True):
        torch.testing.assert_close(whole, chunks)
    assert torch.allclose(outcomes["whole"][3], outcomes["chunks"][3], atol=1e-6) == (chunk == 12)


# The loss


class Oblivious:
    """A policy that says what it was given."""

    def __init__(self, probability, value):
        self.decision = Decision(Categorical(torch.tensor(probability).log()), torch.tensor(value), torch.zeros(1))

    def sequence(self, params, obs, state, task):
        return self.decision


def test_ppo_loss_by_hand():
    """Two steps of one trial and one of padding; actions were drawn with probability .5 each."""
    policy = Oblivious([[[0.75, 0.25]], [[0.5, 0.5]], [[0.9, 0.1]]], [[1.0], [2.0], [100.0]])
    batch = Sequences(
        obs=torch.zeros(3, 1, 1),
        actions=torch.tensor([[0], [1], [0]]),
        log_prob=torch.full((3, 1), 0.5).log(),
        advantages=torch.tensor([[1.0], [-2.0], [0.0]]),
        targets=torch.tensor([[4.0], [2.0], [0.0]]),
        valid=torch.tensor([[1.0], [1.0], [0.0]]),
        states=torch.zeros(1, 1),
    )
    loss, diagnostics = ppo_loss(policy, {}, batch, Settings(clip=0.2, value_weight=0.5, entropy_weight=0.1))
    surrogate = (1.2 * 1 + 1.0 * -2) / 2  # the ratio 1.5 counts as 1.2
    value = 0.5 * (9 + 0) / 2
    entropy = (-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) + np.log(2)) / 2
    assert float(diagnostics["policy/surrogate"]) == pytest.approx(surrogate)
    assert float(diagnostics["value/loss"]) == pytest.approx(value)
    assert float(diagnostics["policy/entropy"]) == pytest.approx(entropy)
    assert float(loss) == pytest.approx(-surrogate + 0.5 * value - 0.1 * entropy)
    assert float(diagnostics["policy/clip_fraction"]) == pytest.approx(0.5)
    assert float(diagnostics["policy/approximate_kl"]) == pytest.approx((1.5 - 1 - np.log(1.5)) / 2, rel=1e-5)


def test_an_update_moves_towards_what_paid():
    """One step of one sort of trial: action 1 was better than expected, so it becomes likelier; the critic follows."""
    policy = RecurrentPolicy(1, 2, True, GRU(1, 4))
    params = {n: v.requires_grad_() for n, v in policy.init(Key(0).torch()).items()}
    obs, state = torch.ones(1, 8, 1), policy.start(8)
    before = policy.sequence(params, obs, state)
    actions = torch.tensor([[0, 1] * 4])
    log_prob = before.distribution.log_prob(actions).detach()
    advantages = torch.where(actions == 1, 1.0, -1.0)
    batch = Sequences(obs, actions, log_prob, advantages, torch.full((1, 8), 3.0), torch.ones(1, 8), state)
    optimiser = torch.optim.Adam(params.values(), 1e-2)
    metrics = update(policy, params, optimiser, batch, replace(SMALL, epochs=5), Key(1))
    after = policy.sequence(params, obs, state)
    assert (after.distribution.logits[..., 1] > before.distribution.logits[..., 1] + 0.03).all()
    assert (after.value > before.value + 0.05).all()
    assert metrics["policy/approximate_kl"] > 0
    assert metrics["policy/gradient_norm"] > 0


@pytest.mark.parametrize("steps", [2000, 24])
def test_an_update_is_plain_descent_over_shuffled_minibatches(monkeypatch, steps):
    """Against a loop by hand: every pass in another order, every minibatch from fresh gradients, also in two blocks."""
    small_blocks(monkeypatch, steps)
    config = replace(SMALL, epochs=3, minibatches=2, max_gradient_norm=1e6)
    env, policy, start = acting()
    batch, _ = prepare(act(env, policy, start, Key(5)), config, RewardScale())
    params = {n: v.clone().requires_grad_() for n, v in start.items()}
    update(policy, params, torch.optim.SGD(params.values(), 0.1), batch, config, Key(1))
    expected, orders = {n: v.clone() for n, v in start.items()}, []
    for epoch in range(3):
        orders.append(torch.from_numpy(Key(1)("order", epoch).numpy().permutation(8)))
        for rows in (orders[-1][:4], orders[-1][4:]):
            leaves = {n: v.clone().requires_grad_() for n, v in expected.items()}
            loss, _ = ppo_loss(policy, leaves, batch.take(rows), config)
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            expected = {n: v - 0.1 * g for (n, v), g in zip(expected.items(), gradients, strict=True)}
    assert len({tuple(order.tolist()) for order in orders}) == 3
    for name, value in params.items():
        torch.testing.assert_close(value.detach(), expected[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("norm", [1e-3, 1e6])
def test_gradients_are_scaled_down_to_their_largest_norm(norm):
    """A step of plain descent of size 1 is as long as the gradient, or as it may be at most."""
    policy = RecurrentPolicy(1, 2, True, GRU(1, 4))
    params = {n: v.requires_grad_() for n, v in vivid(policy).items()}
    obs, state = torch.ones(1, 8, 1), policy.start(8)
    decision = policy.sequence(params, obs, state)
    actions = torch.tensor([[0, 1] * 4])
    log_prob = decision.distribution.log_prob(actions).detach()
    batch = Sequences(obs, actions, log_prob, torch.ones(1, 8), torch.full((1, 8), 3.0), torch.ones(1, 8), state)
    before = {n: v.detach().clone() for n, v in params.items()}
    config = replace(SMALL, epochs=1, minibatches=1, max_gradient_norm=norm)
    metrics = update(policy, params, torch.optim.SGD(params.values(), 1.0), batch, config, Key(1))
    moved = torch.cat([(params[n].detach() - before[n]).flatten() for n in params]).norm()
    assert metrics["policy/gradient_norm"] > 0.1  # what it was before
    assert float(moved) == pytest.approx(min(norm, metrics["policy/gradient_norm"]), rel=1e-3)


@pytest.mark.parametrize("start", [-14.0, MIN_STD_LOG])
def test_a_deviation_never_stays_below_its_least_and_rises_again(start):
    """Steps down, then up: actions at the mean want a smaller deviation, actions far from it a larger one."""
    policy = RecurrentPolicy(1, 2, False, GRU(1, 4))
    params = policy.init(Key(0).torch()) | {"log_std": torch.full((2,), start)}
    project(policy, params)
    params = {n: v.requires_grad_() for n, v in params.items()}
    optimiser = torch.optim.SGD(params.values(), 1e-2)
    obs, state, log_stds = torch.ones(1, 8, 1), policy.start(8), []
    for z in (0.0, 3.0):
        with torch.no_grad():
            decision = policy.sequence(params, obs, state)
            actions = decision.distribution.mean + z * decision.distribution.log_std.exp()
            log_prob = decision.distribution.log_prob(actions)
        batch = Sequences(obs, actions, log_prob, torch.ones(1, 8), decision.value, torch.ones(1, 8), state)
        update(policy, params, optimiser, batch, replace(SMALL, epochs=1, minibatches=1, max_gradient_norm=1e9), Key(1))
        log_stds.append(params["log_std"].tolist())
    assert log_stds[0] == pytest.approx([MIN_STD_LOG] * 2)
    assert min(log_stds[1]) > MIN_STD_LOG + 0.01


def test_step_size_and_entropy_bonus_halve_smoothly():
    config = Settings(step_size=8e-3, entropy_weight=0.4, halve_every=10)
    settings = [annealed(config, i) for i in (0, 5, 10, 30)]
    assert [c.step_size for c in settings] == pytest.approx([8e-3, 8e-3 / 2**0.5, 4e-3, 1e-3])
    assert [c.entropy_weight for c in settings] == pytest.approx([0.4, 0.4 / 2**0.5, 0.2, 0.05])
    assert annealed(replace(config, halve_every=0), 1000) == replace(config, halve_every=0)
    assert 0 < annealed(config, 100_000).step_size < 1e-300  # 0 would be no step size


# Blocks


def test_the_gradient_of_blocks_is_that_of_the_whole(monkeypatch):
    """In double precision, of ten trials, some of whose steps are padding, in blocks of one to three."""
    env, policy, params = acting(tasks=5)
    params = {n: v.double().requires_grad_() for n, v in params.items()}
    batch, _ = prepare(act(env, policy, vivid(policy), Key(5)), Settings(), RewardScale())
    doubled = {n: v.double() if v.dtype == torch.float32 else v for n, v in vars(batch).items() if v is not None}
    batch = replace(Sequences(**doubled), valid=doubled["valid"].tril(1))
    leaves, count = list(params.values()), batch.valid.sum()
    small_blocks(monkeypatch, steps=30)
    parts, gradients = blocks(batch, policy.memory), []
    assert [len(part) for part in parts] == [3, 3, 2, 2]
    for some in ([batch], parts):
        numbers = sum_gradients(lambda part: ppo_loss(policy, params, part, Settings(), count), some, leaves)
        gradients.append(torch.cat([leaf.grad.flatten() for leaf in leaves] + [torch.stack(list(numbers.values()))]))
    torch.testing.assert_close(*gradients, atol=1e-13, rtol=1e-10)
    assert float(gradients[0].norm()) > 1e-3


@pytest.mark.parametrize("threads", [1, 3])
def test_an_update_has_the_same_bits_on_any_number_of_threads(monkeypatch, threads):
    env, policy, start = acting(tasks=8)
    batch, _ = prepare(act(env, policy, start, Key(5)), SMALL, RewardScale())
    small_blocks(monkeypatch)
    outcomes = []
    for n in (threads, 2):
        params = {name: v.clone().requires_grad_() for name, v in start.items()}
        optimiser = torch.optim.Adam(params.values(), 1e-2)
        metrics = update(policy, params, optimiser, batch, replace(SMALL, threads=n), Key(1))
        outcomes.append((params, metrics))
    assert outcomes[0][1] == outcomes[1][1]
    assert all(torch.equal(outcomes[0][0][name], outcomes[1][0][name]) for name in start)


def test_blocks_are_an_even_number_of_two_thousand_steps_or_ten_sequences(monkeypatch):
    def counted(sequences, steps, memory):
        batch = Sequences(*[torch.zeros(steps, sequences)] * 6, torch.zeros(sequences, 1))
        return [len(part) for part in blocks(batch, memory)]

    assert counted(25, 100, LSTM(1, 1)) == [13, 12]
    assert counted(10, 400, Transformer(1, 400)) == [10]
    assert counted(400, 10, LSTM(1, 1)) == [200, 200]
    assert counted(90, 50, LSTM(1, 1)) == [45, 45]  # three would leave one of two threads idle
    assert counted(80, 400, GRU(1, 1)) == [80]
    assert counted(160, 400, GRU(1, 1)) == [80, 80]
