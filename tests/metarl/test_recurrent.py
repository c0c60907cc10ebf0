import gymnasium
import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.nets.actor_critic import RecurrentPolicy, recurrent_policy
from metarl.nets.hypernetwork import Hypernetwork
from metarl.nets.mingru import MinGRU
from metarl.nets.mlp import MLP
from metarl.nets.recurrent import GRU, LSTM
from metarl.nets.transitions import Transitions
from metarl.seeding import Key


def two_layers(inputs, hidden):
    return MinGRU(inputs, hidden, 2)


def transitions(inputs, hidden):
    return Transitions(LSTM(2 * inputs, hidden))


VARIANTS = [
    {"memory": memory, "embedding": embedding, "head": head, "layer_norm": norm, "discrete": discrete}
    for memory, embedding, head, norm, discrete in (
        (GRU, 0, (), False, True),
        (LSTM, 0, (), False, False),
        (GRU, 4, (6,), True, False),
        (LSTM, 4, (6, 3), True, True),
        (GRU, 0, (), True, True),
        (two_layers, 0, (), False, True),
        (transitions, 4, (), True, False),
    )
]
VARIANTS += [
    {"memory": GRU, "embedding": 4, "layer_norm": True, "discrete": discrete, "hypernetwork": True}
    for discrete in (True, False)
]


def actor_critic(memory, hidden, embedding=0, hypernetwork=False, **options):
    """Three numbers seen, two actions; the policy of a hypernetwork sees two of them."""
    if hypernetwork:
        options["hypernetwork"] = Hypernetwork(hidden, MLP((2, 4, 2)), latent=3)
    return RecurrentPolicy(3, 2, memory=memory(embedding or 3, hidden), embedding=embedding, **options)


def drawn(policy, dtype=torch.float64, seed=0):
    """Parameters none of which is zero or one by construction, so that every one of them matters."""
    params = policy.init(Key(seed).torch())
    noise = Key(seed)("noise").torch()
    return {n: v.to(dtype) + 0.3 * torch.randn(v.shape, generator=noise, dtype=dtype) for n, v in params.items()}


def some(*shape, seed=1):
    return torch.randn(*shape, generator=Key(seed).torch(), dtype=torch.float64)


@pytest.mark.parametrize("options", VARIANTS)
def test_steps_one_by_one_are_the_sequence(options):
    policy = actor_critic(hidden=5, **options)
    params, obs = drawn(policy), some(7, 4, 3)
    state = start = some(*policy.start(4).shape, seed=2)
    whole = policy.sequence(params, obs, start)
    for t in range(len(obs)):
        decision = policy.step(params, obs[t], state)
        state = decision.state
        torch.testing.assert_close(decision.value, whole.value[t])
        for part, all_parts in zip(decision.distribution.description(), whole.distribution.description(), strict=True):
            torch.testing.assert_close(part, all_parts[t])
    torch.testing.assert_close(state, whole.state)


@pytest.mark.parametrize(("memory", "module"), [(GRU, torch.nn.GRU), (LSTM, torch.nn.LSTM)])
def test_the_recurrent_layer_is_torchs(memory, module):
    policy = RecurrentPolicy(3, 2, True, memory(3, 5))
    params, obs = drawn(policy), some(6, 4, 3)
    layer = module(3, 5, dtype=torch.float64)
    layer.load_state_dict({f"{n}_l0": params[f"cell.{n}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")})
    out, last = layer(obs)
    decision = policy.sequence(params, obs, policy.start(4).double())
    torch.testing.assert_close(decision.value, (out @ params["critic.0.weight"] + params["critic.0.bias"]).squeeze(-1))
    torch.testing.assert_close(decision.state, torch.cat([h[0] for h in (last if memory is LSTM else [last])], -1))


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_gets_its_gradient(options):
    policy = actor_critic(hidden=3, **options)
    params, obs = drawn(policy), some(3, 2, 3)
    names, state = list(params), some(*policy.start(2).shape)

    def outputs(*values):
        decision = policy.sequence(dict(zip(names, values, strict=True)), obs, state)
        return decision.value, *decision.distribution.description()

    assert torch.autograd.gradcheck(outputs, [params[n].requires_grad_() for n in names])
    decision = policy.sequence(params, obs, state)
    grads = torch.autograd.grad(
        decision.value.sum() + sum((p * p).sum() for p in decision.distribution.description()), params.values()
    )
    assert all(g.abs().sum() > 0 for g in grads)


def test_initial_parameters_come_from_the_generator_alone():
    before = torch.get_rng_state()
    policy = RecurrentPolicy(3, 4, True, LSTM(5, 6), embedding=5, layer_norm=True)
    one, same, other = (policy.init(Key(seed).torch()) for seed in (0, 0, 1))
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not torch.equal(one["cell.weight_ih"], other["cell.weight_ih"])
    assert torch.equal(before, torch.get_rng_state())


def test_the_start_is_orthogonal_gate_by_gate_and_hardly_prefers_an_action():
    policy = RecurrentPolicy(3, 4, True, LSTM(3, 6))
    params = policy.init(Key(0).torch())
    for gate in params["cell.weight_hh"].split(6):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6))
    assert params["cell.bias_ih"].tolist() == [0] * 6 + [1] * 6 + [0] * 12
    probabilities = policy.step(params, torch.randn(50, 3, generator=Key(1).torch()), policy.start(50))
    torch.testing.assert_close(probabilities.distribution.logits.exp(), torch.full((50, 4), 0.25), atol=0.01, rtol=0)
    assert not policy.start(2).any()
    assert policy.start(2).shape == (2, 12)


def test_spaces_choose_the_policy():
    box = gymnasium.spaces.Box(-1, 1, (3,))
    assert recurrent_policy(box, gymnasium.spaces.Discrete(4), GRU) == RecurrentPolicy(3, 4, True, GRU(3))
    embedded = recurrent_policy(box, gymnasium.spaces.Discrete(4), GRU, embedding=5)
    assert embedded == RecurrentPolicy(3, 4, True, GRU(5), embedding=5)
    continuous = recurrent_policy(box, gymnasium.spaces.Box(-1, 1, (2,)), GRU, init_std=0.5)
    assert (continuous.actions, continuous.discrete) == (2, False)
    assert continuous.init(Key(0).torch())["log_std"].exp().tolist() == [0.5, 0.5]
    assert continuous.noise(np.random.default_rng(0), (3, 4)).shape == (3, 4, 2)
    with pytest.raises(UserError, match="flat Box observation"):
        recurrent_policy(gymnasium.spaces.Discrete(3), box, GRU)
    with pytest.raises(UserError, match="action space"):
        recurrent_policy(box, gymnasium.spaces.MultiBinary(3), GRU)
