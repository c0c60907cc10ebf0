"""Networks that users bring to learners that adapt by gradients: by name or in Python, honoured or refused."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metarl.agents import maml_trpo, promp
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.learning.contract import Budget
from metarl.meta import inner
from metarl.nets.mlp import MLP
from metarl.nets.module import make_network
from metarl.nets.params import flatten
from metarl.runs.run import Run
from metarl.seeding import Key

NAVIGATION, BANDIT = make_family("metarl/Navigation2D-v0"), make_family("metarl/BernoulliBandit-v0")
SMALL = {"iterations": 2, "tasks": 3, "episodes": 2, "threads": 1, "checkpoint_every": 1}
AGENTS = {"maml-trpo": maml_trpo, "promp": promp}


class Net(nn.Module):
    """Tied layers, a normalisation by row and a buffer."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.enter, self.one, self.two = nn.Linear(inputs, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.norm, self.leave = nn.LayerNorm(4), nn.Linear(4, outputs)
        self.register_buffer("scale", torch.full((4,), 2.0))

    def forward(self, x):
        return self.leave(self.norm(self.two(torch.tanh(self.one(self.enter(x) * self.scale)))))


@pytest.fixture(autouse=True)
def brought(monkeypatch):
    """A module of the user's, where `--network brought:NAME` finds it."""
    module = ModuleType("brought")
    module.Net = Net
    monkeypatch.setitem(sys.modules, "brought", module)
    return module


def trained(folder, name, family, config, network=None):
    run = Run.create(folder, learner=name, config=config, source=family, seed=0)
    AGENTS[name].train(config, family, run, network)
    return run


@pytest.mark.parametrize(("name", "family"), [("maml-trpo", NAVIGATION), ("promp", BANDIT)], ids=["box", "discrete"])
def test_a_network_named_in_the_config_trains_adapts_and_resumes_bit_for_bit(tmp_path, name, family):
    config = AGENTS[name].Config(**SMALL, network="brought:Net")
    run = trained(tmp_path / "whole", name, family, config)
    params = run.restore()[1]["params"]
    assert "one.weight" in params
    assert "two.weight" not in params
    assert not torch.equal(params["one.weight"], config.policy(family).init(Key(0)(name, "init").torch())["one.weight"])
    scores = AGENTS[name].load(run, family).curve(family.fixed("test", 2), Budget(1, 2), 0)
    assert scores.values.shape == (2, 2)
    trained(tmp_path / "part", name, family, replace(config, iterations=1))
    resumed = Run.resume(tmp_path / "part", learner=name, config=config, source=family, seed=0)
    AGENTS[name].train(config, family, resumed)
    assert all(torch.equal(value, params[n]) for n, value in resumed.restore()[1]["params"].items())


def test_threads_that_share_a_network_do_not_disturb_one_another(tmp_path):
    config = promp.Config(**{**SMALL, "tasks": 8, "iterations": 1}, network="brought:Net", updates=2)
    params = [
        trained(tmp_path / f"{n}", "promp", BANDIT, replace(config, threads=n)).restore()[1]["params"] for n in (1, 4)
    ]
    assert all(torch.equal(value, params[1][n]) for n, value in params[0].items())


def test_a_module_of_the_same_layers_has_the_meta_gradient_of_the_mlp(gathered_with):
    def layers(inputs, outputs):
        return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs))

    policy, params, rule, data = gathered_with(maml_trpo.Config(tasks=3, episodes=3, hidden=(5,)))
    mine = maml_trpo.Config(tasks=3, episodes=3).policy(NAVIGATION, layers)
    same = {
        "0.weight": params["0.weight"].T.contiguous(),
        "0.bias": params["0.bias"],
        "2.weight": params["1.weight"].T.contiguous(),
        "2.bias": params["1.bias"],
        "log_std": params["log_std"],
    }
    iterates = [
        {n: (v.mT if n.endswith("weight") else v) for n, v in zip(same, iterate.values(), strict=True)}
        for iterate in data.iterates
    ]
    our_objective = maml_trpo.Objective(policy, rule, data, params, 3)
    their_objective = maml_trpo.Objective(mine, rule, replace(data, iterates=iterates), same, 3)
    ours, theirs = our_objective.local(flatten(params)), their_objective.local(flatten(same))
    torch.testing.assert_close(theirs.loss, ours.loss)
    torch.testing.assert_close(theirs.gradient.norm(), ours.gradient.norm(), rtol=1e-4, atol=0)
    ones = torch.ones_like(flatten(same))
    ours, theirs = our_objective.curvature(flatten(params))(ones), their_objective.curvature(flatten(same))(ones)
    torch.testing.assert_close(theirs.sum(), ours.sum(), rtol=1e-4, atol=1e-6)


@pytest.fixture
def gathered_with():
    def gather(config):
        from metarl.learning.meta_batch import adapt_to_tasks

        policy = config.policy(NAVIGATION)
        params, rule = policy.init(Key(0).torch()), config.rule(policy)
        env = NAVIGATION.make_vec(NAVIGATION.fixed("train", config.tasks), config.episodes)
        return policy, params, rule, adapt_to_tasks(env, policy, params, rule, Key(1), 0.99, 1.0)

    return gather


# ---- any kind of module


ACTIVATIONS = [nn.Tanh, nn.ReLU, lambda: nn.ReLU(inplace=True), nn.GELU, nn.SiLU, nn.Softplus, nn.ELU]


class Residual(nn.Module):
    def __init__(self, inner_module):
        super().__init__()
        self.inner = inner_module

    def forward(self, x):
        return x + self.inner(x)


@st.composite
def architectures(draw):
    """A factory of feed-forward modules: widths, activations, normalisations, residual and tied layers."""
    widths = draw(st.lists(st.integers(1, 6), min_size=0, max_size=3))
    kinds = [draw(st.sampled_from(["plain", "norm", "residual", "tied", "eval"])) for _ in widths]
    activations = [draw(st.sampled_from(ACTIVATIONS)) for _ in widths]
    bias = draw(st.booleans())

    def make(inputs, outputs):
        layers = []
        for width, kind, activation in zip(widths, kinds, activations, strict=True):
            layers += [nn.Linear(inputs, width, bias=bias), activation()]
            if kind == "norm":
                layers.append(nn.LayerNorm(width))
            elif kind == "residual":
                layers.append(Residual(nn.Sequential(nn.Linear(width, width), nn.Tanh())))
            elif kind == "tied":
                layer = nn.Linear(width, width)
                layers += [layer, nn.Tanh(), layer]
            elif kind == "eval":
                layers += [nn.BatchNorm1d(width).eval(), nn.Dropout(0.5).eval()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    return make


@settings(max_examples=20)
@given(architectures(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**20))
def test_any_module_adapts_many_tasks_as_it_adapts_each(make, inputs, outputs, seed):
    network, tasks = make_network(make, inputs, outputs, "network="), 3
    generator = Key(seed).torch()
    params = network.init(generator)
    x = torch.randn(tasks, 4, inputs, generator=generator)
    y = torch.randn(tasks, 4, outputs, generator=generator)

    def loss(values, data):
        return ((network(values, data[0]) - data[1]) ** 2).mean((-1, -2))

    def meta_gradient(n, data):
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        start = inner.stack(leaves, n) if n else leaves
        adapted = inner.adapt(start, loss, data, inner.Rule(0.05, 2))[-1]
        return torch.autograd.grad(loss(adapted, data).sum(), list(leaves.values()), allow_unused=True)

    together = meta_gradient(tasks, (x, y))
    alone = [meta_gradient(0, (x[t], y[t])) for t in range(tasks)]
    for i, gradient in enumerate(together):
        expected = sum(each[i] for each in alone)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


# ---- in Python


@pytest.mark.parametrize("network", [Net, lambda inputs, outputs: Net(inputs, outputs), Net(2, 2)])
def test_a_network_given_in_python_is_remembered(tmp_path, network):
    config = maml_trpo.Config(**SMALL)
    run = trained(tmp_path / "run", "maml-trpo", NAVIGATION, config, network)
    assert run.recall("network")["parameters"]["one.weight"] == [4, 4]
    agent = maml_trpo.load(run, NAVIGATION, network)
    assert agent.curve(NAVIGATION.fixed("test", 1), Budget(1, 1), 0).values.shape == (1, 2)
    with pytest.raises(UserError, match=r"was trained with a network of its user's own .*: give it again in Python"):
        maml_trpo.load(run, NAVIGATION)
    with pytest.raises(UserError, match=r"another network .*: the names or shapes of its parameters differ"):
        maml_trpo.load(run, NAVIGATION, lambda inputs, outputs: nn.Linear(inputs, outputs))


def test_a_run_of_the_configs_network_takes_no_other(tmp_path):
    run = trained(tmp_path / "run", "promp", NAVIGATION, promp.Config(**SMALL))
    with pytest.raises(UserError, match=r"was trained with the network of its config: leave network=... out"):
        promp.load(run, NAVIGATION, Net)
    with pytest.raises(UserError, match=r"--network is brought:Net and network=... is given too: leave one out"):
        promp.Config(**SMALL, network="brought:Net").policy(NAVIGATION, Net)


def test_a_module_starts_with_its_own_weights_and_stays_as_it_is():
    module = Net(2, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    policy = maml_trpo.Config().policy(NAVIGATION, module)
    params = policy.init(Key(0).torch())
    assert torch.equal(params["enter.weight"], module.enter.weight)
    params["enter.weight"].add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    obs = torch.randn(5, 2, generator=Key(1).torch())
    fresh = policy.init(Key(2).torch())
    torch.testing.assert_close(policy.distribution(fresh, obs).mean, module(obs).detach())


# ---- refused


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class OnceDifferentiable(nn.Linear):
    def forward(self, x):
        return Once.apply(super().forward(x))


class Named(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer, self.log_std = nn.Linear(inputs, outputs), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return self.layer(x) + self.log_std


class Kinked(nn.Module):
    """The root at 0 has no finite derivative."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.layer(x) + (0 * self.layer(x)).abs().sqrt()


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (lambda inputs, outputs: OnceDifferentiable(inputs, outputs), "failed"),
        (Named, "has a parameter log_std, as the policy has: give it another name"),
        (Kinked, "not finite"),
        (nn.Linear(3, 2), "trying it out failed"),
        (nn.Linear(2, 2).requires_grad_(False), "are frozen"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout()), "it draws random numbers"),
        (5, "it is to be a torch.nn.Module, or a class or function that gives one"),
        (MLP, "failed"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_one_line(network, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        maml_trpo.Config().policy(NAVIGATION, network)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("net", "it is mlp, or your own as mypackage.module:Name"), ("", "it is mlp, or your own")],
)
def test_names_have_a_form(name, complaint):
    with pytest.raises(UserError, match=f"--network is {name!r}; {complaint}"):
        maml_trpo.Config(network=name)
