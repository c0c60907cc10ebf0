"""The belief as a memory: what it sees, what the policy sees of it, and how far gradients go."""

import itertools
from dataclasses import replace

import pytest
import torch
from small_trials import BANDIT, act, vivid

from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.learning.belief_settings import BeliefSettings
from metarl.learning.recurrent_ppo import ppo_loss
from metarl.learning.recurrent_settings import Settings
from metarl.learning.sequences import prepare
from metarl.nets.belief import Belief
from metarl.nets.memory import MemoryOptions, check_memory
from metarl.ops.reward_scale import RewardScale
from metarl.seeding import Key

BELIEF = Belief(3, 2, latent=2, hidden=5, state_embedding=4, action_embedding=0, reward_embedding=3, policy_embedding=6)
BARE = replace(BELIEF, policy_embedding=0, state_embedding=0, reward_embedding=0)
SMALL = BeliefSettings(hidden=6, latent=3, head=(5,), policy_embedding=4)


def parameters(belief, seed=0):
    generator = Key(seed)("vivid").torch()
    params = {n: v + 0.3 * torch.randn(v.shape, generator=generator) for n, v in belief.init(Key(seed).torch()).items()}
    return params | {"norm.deviation": params["norm.deviation"].abs() + 0.5}


def moments(belief, length=6, rows=4):
    return torch.randn(length, rows, belief.observed + belief.acted + 2, generator=Key(1).torch())


@pytest.mark.parametrize("belief", [BELIEF, BARE, replace(BELIEF, through=True)])
def test_it_is_a_memory(belief):
    check_memory(replace(belief, through=True), MemoryOptions(inputs=7, length=6), "the belief")
    if belief.policy_embedding:
        check_memory(belief, MemoryOptions(inputs=7, length=6), "the belief")


def test_the_encoder_is_torchs_gru_on_its_embeddings():
    params, x = parameters(BELIEF), moments(BELIEF)
    gru = torch.nn.GRU(4 + 2 + 3 + 1, 5)
    gru.load_state_dict({f"{n}_l0": params[f"gru.{n}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")})
    state = torch.relu(x[..., :3] @ params["state.0.weight"] + params["state.0.bias"])
    reward = torch.relu(x[..., 5:6] @ params["reward.0.weight"] + params["reward.0.bias"])
    out, _ = gru(torch.cat([state, x[..., 3:5], reward, x[..., 6:]], -1))
    mean = out @ params["mean.0.weight"] + params["mean.0.bias"]
    log_variance = out @ params["log_variance.0.weight"] + params["log_variance.0.bias"]
    belief, _ = BELIEF.posterior(params, x, BELIEF.start(4))
    torch.testing.assert_close(belief.mean, mean)
    torch.testing.assert_close((2 * belief.log_std).exp(), log_variance.exp())
    shown = torch.cat([x[..., :3], mean, log_variance], -1)
    shown = (shown - params["norm.mean"]) / params["norm.deviation"]
    seen = torch.tanh(shown[..., :3] @ params["policy_state.0.weight"] + params["policy_state.0.bias"])
    believed = torch.tanh(shown[..., 3:] @ params["policy_belief.0.weight"] + params["policy_belief.0.bias"])
    torch.testing.assert_close(BELIEF.sequence(params, x, BELIEF.start(4))[0], torch.cat([seen, believed], -1))


def test_without_layers_before_the_policy_it_sees_state_mean_and_log_variance():
    params, x = BARE.init(Key(0).torch()), moments(BARE)
    belief, _ = BARE.posterior(params, x, BARE.start(4))
    features, _ = BARE.sequence(params, x, BARE.start(4))
    torch.testing.assert_close(features, torch.cat([x[..., :3], belief.mean, 2 * belief.log_std], -1))
    assert BARE.features == BARE.shown == 7


@pytest.mark.parametrize("through", [False, True])
def test_the_gradient_of_the_features_reaches_the_encoder_only_where_it_is_let_through(through):
    belief = replace(BELIEF, through=through)
    params = {name: value.requires_grad_() for name, value in parameters(belief).items()}
    (belief.sequence(params, moments(belief), belief.start(4))[0] ** 2).sum().backward()
    moved = {name for name, value in params.items() if value.grad is not None and value.grad.any()}
    policy = {name for name in params if name.startswith("policy_")}
    assert moved == (policy | belief.encoder(params).keys() if through else policy)
    assert belief.encoder(params).keys() == params.keys() - policy - {"norm.mean", "norm.deviation"}


def test_a_cut_keeps_the_belief_and_shortens_its_gradient():
    params, x = parameters(BELIEF), moments(BELIEF).requires_grad_()
    reach = {}
    for cut in (0, 2, 4):
        belief, _ = BELIEF.posterior(params, x, BELIEF.start(4), cut)
        [gradient] = torch.autograd.grad(belief.mean[-1].sum(), x)
        reach[cut] = [bool(each.any()) for each in gradient]
        torch.testing.assert_close(belief.mean, BELIEF.posterior(params, x, BELIEF.start(4))[0].mean)
    assert reach == {0: [True] * 6, 2: [False] * 4 + [True] * 2, 4: [False] * 4 + [True] * 2}


@pytest.mark.parametrize(
    ("family", "chunk", "through"),
    [*itertools.product([BANDIT, make_family("metarl/GridNavigation-v0", steps=4)], [0, 3], [False, True])],
    ids=str,
)
def test_probabilities_learned_from_are_those_acted_with(family, chunk, through):
    """Episode ends within a chunk included: the belief lasts over all of a trial."""
    joined = Trials(family=family, episodes=3)
    policy = replace(SMALL, through=through).policy(joined.observation_space, joined.action_space)
    params = vivid(policy, scale=0.3)
    env = joined.make_vec(joined.fixed("train", 4), 2)
    experience = act(env, policy, params, Key(0), chunk=chunk)
    settings = Settings(chunk=chunk)
    batch, _ = prepare(experience, settings, RewardScale())
    decision = policy.sequence(params, batch.obs, batch.states)
    there = batch.valid.bool()
    torch.testing.assert_close(decision.distribution.log_prob(batch.actions)[there], batch.log_prob[there])
    assert experience.episodes.obs[..., -1].any()
    assert ppo_loss(policy, params, batch, settings)[1]["policy/approximate_kl"].abs() < 1e-6


@pytest.mark.parametrize("through", [False, True])
def test_the_policys_loss_moves_the_encoder_only_where_it_is_let_through(through):
    joined = Trials(family=BANDIT, episodes=2)
    policy = replace(SMALL, through=through).policy(joined.observation_space, joined.action_space)
    params = {name: value.requires_grad_() for name, value in vivid(policy).items()}
    experience = act(joined.make_vec(joined.fixed("train", 4), 2), policy, params, Key(0))
    batch, _ = prepare(experience, Settings(), RewardScale())
    ppo_loss(policy, params, batch, Settings())[0].backward()
    reached = {name.split(".")[1] for name, value in params.items() if value.grad is not None and "cell" in name}
    encoder = {"gru", "state", "reward", "mean", "log_variance"} if through else set()
    assert reached == {"policy_state", "policy_belief"} | encoder
