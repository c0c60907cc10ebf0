import pytest
import torch

from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.learning.memory_policy import PolicySettings
from metarl.nets.hypernetwork import Hypernetwork
from metarl.nets.memory import MEMORIES
from metarl.nets.mlp import MLP
from metarl.seeding import Key

SMALL = Hypernetwork(features=4, policy=MLP((2, 5, 3)), latent=6)


def some(*shape, seed=1):
    return torch.randn(*shape, generator=Key(seed).torch(), dtype=torch.float64)


def vivid(network=SMALL):
    return {
        n: v.double() + 0.3 * some(*v.shape, seed=i) for i, (n, v) in enumerate(network.init(Key(0).torch()).items())
    }


def test_each_moment_has_a_policy_of_its_own_whose_weights_are_linear_in_the_latent():
    """Against the same policy with each moment's weights written down."""
    params, features, obs = vivid(), some(3, 7, 4), some(3, 7, 2, seed=2)
    latent = features @ params["latent.0.weight"] + params["latent.0.bias"]
    names = [name for name in params if name.startswith("policy.")]
    for i in range(3):
        for j in range(7):
            weights = {
                name.removeprefix("policy."): params[name]
                + torch.tensordot(latent[i, j], params[name.removeprefix("policy.")], 1)
                for name in names
            }
            torch.testing.assert_close(SMALL(params, features, obs)[i, j], SMALL.policy(weights, obs[i, j]))


def test_by_hand():
    """A latent 2 * 3 + 1 = 7; a policy with the weight 1 + 7 * 10 = 71 and the bias 2 + 7 * 5 = 37, of 4: 321."""
    network = Hypernetwork(1, MLP((1, 1)), 1)
    values = {"latent.0.weight": 2.0, "policy.0.weight": 1.0}
    params = {name: torch.full((1, 1), value) for name, value in values.items()}
    params |= {"latent.0.bias": torch.ones(1), "policy.0.bias": torch.full((1,), 2.0)}
    params |= {"0.weight": torch.full((1, 1, 1), 10.0), "0.bias": torch.full((1, 1), 5.0)}
    assert network(params, torch.tensor([[3.0]]), torch.tensor([[4.0]])).tolist() == [[321.0]]


def test_at_the_start_every_memory_gives_the_same_ordinary_policy():
    """Bias-HyperInit, with weights of the policy as `MLP` draws them; the last layer's are smaller by the gain."""
    params, obs = SMALL.init(Key(0).torch(), gain=0.1), torch.randn(9, 2, generator=Key(1).torch())
    out = [SMALL(params, torch.randn(9, 4, generator=Key(seed).torch()), obs) for seed in (2, 3)]
    assert torch.equal(*out)
    policy = SMALL.policy.init(Key(0).torch())
    policy["1.weight"] *= 0.1
    torch.testing.assert_close(out[0], SMALL.policy(policy, obs))
    assert params["latent.0.weight"].std() > 0.3


def test_the_gradient_is_that_of_finite_differences_and_reaches_everything():
    params, features, obs = vivid(), some(3, 4), some(3, 2, seed=2)
    names = list(params)

    def outputs(features, *values):
        return SMALL(dict(zip(names, values, strict=True)), features, obs)

    leaves = [features.requires_grad_(), *(params[n].requires_grad_() for n in names)]
    assert torch.autograd.gradcheck(outputs, leaves)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad((outputs(*leaves) ** 2).sum(), leaves))


def test_the_first_step_moves_the_directions_and_the_second_the_latent():
    """Where all directions are 0 nothing can be said to the memory yet."""
    params = {name: value.requires_grad_() for name, value in SMALL.init(Key(0).torch()).items()}
    features, obs = torch.randn(3, 4, generator=Key(1).torch()), torch.randn(3, 2, generator=Key(2).torch())
    for moved in (False, True):
        loss = (SMALL(params, features, obs) ** 2).sum()
        gradient = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        assert bool(gradient["latent.0.weight"].any()) == moved
        assert gradient["0.weight"].any() or moved
        params = {name: (value - 0.1 * gradient[name]).detach().requires_grad_() for name, value in params.items()}


@pytest.mark.parametrize("settings", [{}, {"embedding": 3, "memory": "lstm", "critic": "task"}])
def test_its_policy_sees_the_present_observation_and_nothing_else(settings):
    """What was done, earned and remembered acts through the weights alone: with directions of 0 it does not act."""
    family = make_family("metarl/Navigation2D-v0")
    trials = Trials(family=family, episodes=2)
    made = PolicySettings(hidden=5, actor="hypernetwork", latent=3, base=(4,), **settings)
    policy = made.policy(trials.observation_space, trials.action_space, 200, seen=2)
    assert policy.hypernetwork == Hypernetwork(5, MLP((2, 4, 2), "tanh"), 3)
    params = policy.init(Key(0).torch())
    assert params["actor.policy.1.weight"].abs().max() < 0.02  # first actions hardly depend on anything
    obs = torch.randn(6, 6, generator=Key(1).torch())
    other = torch.cat([obs[:, :2], torch.randn(6, 4, generator=Key(2).torch())], 1)
    one, same = (policy.step(params, x, policy.start(6)).distribution.mean for x in (obs, other))
    assert torch.equal(one, same)
    params |= {n: v + 0.1 for n, v in params.items() if n.startswith("actor.") and "policy" not in n}
    one, differs = (policy.step(params, x, policy.start(6)).distribution.mean for x in (obs, other))
    assert not torch.allclose(one, differs)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("actor", ["head", "hypernetwork"])
def test_the_estimate_of_parameters_is_from_below(memory, actor):
    layers = 2 if memory in ("mingru", "transformer") else 1
    settings = PolicySettings(memory=memory, hidden=40, layers=layers, head=(7,), actor=actor)
    space = Trials(family=make_family("metarl/BernoulliBandit-v0", arms=3))
    params = settings.policy(space.observation_space, space.action_space, 10, seen=1).init(Key(0).torch())
    count = sum(value.numel() for value in params.values())
    assert 0.7 * count < settings.least_parameters(3) < count


def test_all_weights_of_the_policy_are_generated_and_the_critic_is_a_head():
    settings = PolicySettings(hidden=5, actor="hypernetwork")
    space = Trials(family=make_family("metarl/BernoulliBandit-v0", arms=3))
    params = settings.policy(space.observation_space, space.action_space, 10, seen=1).init(Key(0).torch())
    shapes = {name: tuple(value.shape) for name, value in params.items() if not name.startswith("cell.")}
    assert shapes == {
        "critic.0.weight": (5, 1),
        "critic.0.bias": (1,),
        "actor.latent.0.weight": (5, 25),
        "actor.latent.0.bias": (25,),
        "actor.policy.0.weight": (1, 32),
        "actor.policy.0.bias": (32,),
        "actor.policy.1.weight": (32, 32),
        "actor.policy.1.bias": (32,),
        "actor.policy.2.weight": (32, 3),
        "actor.policy.2.bias": (3,),
        "actor.0.weight": (25, 1, 32),
        "actor.0.bias": (25, 32),
        "actor.1.weight": (25, 32, 32),
        "actor.1.bias": (25, 32),
        "actor.2.weight": (25, 32, 3),
        "actor.2.bias": (25, 3),
    }
