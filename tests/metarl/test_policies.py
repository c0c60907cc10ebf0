import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary
from hypothesis import given
from hypothesis import strategies as st

from metarl.errors import UserError
from metarl.meta.inner import stack
from metarl.nets.distributions import Categorical, Gaussian
from metarl.nets.mlp import MLP
from metarl.nets.policies import CategoricalPolicy, GaussianPolicy, mlp_policy
from metarl.seeding import Key


def test_gaussian_agrees_with_torch():
    generator = torch.Generator().manual_seed(0)
    mean, log_std, other = torch.randn(3, 4, 2, generator=generator).unbind(0)
    ours, theirs = Gaussian(mean, log_std), torch.distributions.Normal(mean, log_std.exp())
    x = torch.randn(4, 2, generator=generator)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    far = torch.distributions.Normal(other, torch.ones_like(other))
    expected = torch.distributions.kl_divergence(theirs, far).sum(-1)
    torch.testing.assert_close(ours.kl(Gaussian(other, torch.zeros_like(other))), expected)


def test_categorical_agrees_with_torch():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.log_softmax(torch.randn(2, 5, 3, generator=generator), -1).unbind(0)
    theirs = torch.distributions.Categorical(logits=a)
    actions = torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(Categorical(a).log_prob(actions), theirs.log_prob(actions))
    torch.testing.assert_close(Categorical(a).entropy(), theirs.entropy())
    expected = torch.distributions.kl_divergence(theirs, torch.distributions.Categorical(logits=b))
    torch.testing.assert_close(Categorical(a).kl(Categorical(b)), expected)


def test_categorical_sampling_inverts_the_cumulative_distribution():
    p = torch.tensor([0.2, 0.5, 0.3]).log()
    noise = torch.tensor([[0.0], [0.19], [0.21], [0.69], [0.71], [1.0]])
    assert Categorical(p.expand(6, 3)).sample(noise).tolist() == [0, 0, 1, 1, 2, 2]


def test_gaussian_sampling_is_mean_plus_std_times_noise():
    found = Gaussian(torch.tensor([1.0]), torch.tensor([math.log(2)])).sample(torch.tensor([3.0]))
    assert float(found) == pytest.approx(7)


@pytest.mark.parametrize("policy", [GaussianPolicy(MLP((2, 8, 3))), CategoricalPolicy(MLP((2, 8, 3), "relu"))])
def test_stacked_parameters_are_a_policy_a_task(policy):
    sets = [policy.init(Key(seed).torch()) for seed in range(3)]
    stacked = {name: torch.stack([params[name] for params in sets]) for name in sets[0]}
    obs = torch.randn(3, 4, 5, 2, generator=Key(9).torch())
    together = policy.distribution(stacked, obs).description()
    for t, params in enumerate(sets):
        for a, b in zip(together, policy.distribution(params, obs[t]).description(), strict=True):
            torch.testing.assert_close(a[t], b)
    shared = policy.distribution(stack(sets[0], 3), obs).description()[0]
    torch.testing.assert_close(shared, policy.distribution(sets[0], obs).description()[0])


def test_initialisation_is_glorot_and_keyed():
    params = MLP((100, 50, 2)).init(Key(0).torch())
    bound = math.sqrt(6 / 150)
    assert params["0.weight"].abs().max() <= bound
    assert float(params["0.weight"].std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not params["0.bias"].any()
    assert torch.equal(params["1.weight"], MLP((100, 50, 2)).init(Key(0).torch())["1.weight"])


def test_noise_has_the_shape_that_sampling_wants():
    rng = np.random.default_rng(0)
    assert GaussianPolicy(MLP((2, 3))).noise(rng, (4, 5)).shape == (4, 5, 3)
    assert CategoricalPolicy(MLP((2, 3))).noise(rng, (4, 5)).shape == (4, 5, 1)


def test_initial_weights_are_glorots():
    """Uniform up to sqrt(6 / (in + out)): .25 for 40 and 56."""
    params = MLP((40, 56)).init(Key(0).torch())
    assert 0.249 < params["0.weight"].abs().max() <= 0.25
    assert float(params["0.weight"].std()) == pytest.approx(0.25 / 3**0.5, rel=0.03)
    assert not params["0.bias"].any()


def test_policy_for_spaces():
    box = Box(-1, 1, (3,))
    assert isinstance(mlp_policy(box, Discrete(4)), CategoricalPolicy)
    assert mlp_policy(box, Box(-1, 1, (2,)), (5,)).network.sizes == (3, 5, 2)
    with pytest.raises(UserError, match="flat Box observation"):
        mlp_policy(Discrete(3), Discrete(2))
    with pytest.raises(UserError, match="MultiBinary"):
        mlp_policy(box, MultiBinary(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(log_std=st.lists(st.floats(-20, 3, width=32), min_size=2, max_size=2), tasks=st.integers(0, 3))
def test_projection_puts_deviations_back_to_their_least_and_moves_nothing_else(dtype, log_std, tasks):
    policy = GaussianPolicy(MLP((2, 2)), min_std=0.5)
    params = {n: v.to(dtype) for n, v in policy.init(Key(0).torch()).items()}
    params["log_std"] = torch.tensor(log_std, dtype=dtype)
    params = stack(params, tasks) if tasks else params
    within = policy.project(params)
    assert torch.equal(within["log_std"], params["log_std"].clamp(min=math.log(0.5)))
    assert torch.equal(policy.project(within)["log_std"], within["log_std"])
    assert all(within[n] is params[n] for n in params if n != "log_std")
    assert CategoricalPolicy(MLP((2, 2))).project(params) is params


@pytest.mark.parametrize("below", [0.0, 5.0])
def test_a_deviation_at_or_below_its_least_still_has_its_gradient(below):
    """An action two deviations off should have been likelier: d log p / d log std = z^2 - 1 = 3."""
    policy = GaussianPolicy(MLP((1, 1)), min_std=0.5)
    log_std = torch.tensor([math.log(0.5) - below]).requires_grad_()
    params = {"0.weight": torch.zeros(1, 1), "0.bias": torch.zeros(1), "log_std": log_std}
    action = 2 * log_std.exp().detach()
    policy.distribution(params, torch.zeros(1)).log_prob(action).backward()
    assert log_std.grad.tolist() == [pytest.approx(3.0, rel=1e-5)]
