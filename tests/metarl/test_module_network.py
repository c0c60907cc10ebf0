"""Networks that users bring: called as an `MLP` is, or refused."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from metarl.errors import UserError
from metarl.nets.module import make_network
from metarl.seeding import Key


class Net(nn.Module):
    """Two layers with tied weights, a normalisation by row and a buffer."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.enter = nn.Linear(inputs, 4)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.norm, self.leave = nn.LayerNorm(4), nn.Linear(4, outputs)
        self.register_buffer("scale", torch.full((4,), 2.0))

    def forward(self, x):
        return self.leave(self.norm(self.two(torch.relu(self.one(self.enter(x) * self.scale)))))


@pytest.fixture
def bring(monkeypatch):
    """A network by its name, as a user would give it."""

    def make(kind, inputs=3, outputs=2):
        module = ModuleType("brought")
        module.Net = kind
        monkeypatch.setitem(sys.modules, "brought", module)
        return make_network("brought:Net", inputs, outputs, "--network")

    return make


def test_a_module_is_a_network_of_explicit_parameters(bring):
    before = torch.get_rng_state()
    network = bring(Net)
    params = network.init(Key(0).torch())
    assert torch.equal(before, torch.get_rng_state())
    assert "two.weight" not in params
    assert all(torch.equal(value, params[n]) for n, value in network.init(Key(0).torch()).items())
    assert not torch.equal(network.init(Key(1).torch())["one.weight"], params["one.weight"])
    module, x = Net(3, 2), torch.randn(5, 7, 3, generator=Key(2).torch())
    module.load_state_dict(params | {"two.weight": params["one.weight"], "scale": torch.full((4,), 2.0)})
    torch.testing.assert_close(network(params, x), module(x))
    torch.testing.assert_close(network(params, x[0, 0]), module(x[0, 0]))


def test_stacked_parameters_are_one_set_a_task(bring):
    network = bring(Net)
    each = [network.init(Key(seed).torch()) for seed in range(3)]
    stacked = {n: torch.stack([params[n] for params in each]) for n in each[0]}
    x = torch.randn(3, 5, 7, 3, generator=Key(2).torch())
    expected = torch.stack([network(params, part) for params, part in zip(each, x, strict=True)])
    torch.testing.assert_close(network(stacked, x), expected)


def test_second_derivatives_go_through(bring):
    network = bring(Net)
    params = {n: v.double() for n, v in network.init(Key(0).torch()).items()}
    names, x = list(params), torch.randn(4, 3, generator=Key(2).torch(), dtype=torch.float64)

    def out(*values):
        return network(dict(zip(names, values, strict=True)), x)

    leaves = [value.requires_grad_() for value in params.values()]
    assert torch.autograd.gradgradcheck(out, leaves)


def test_a_network_moves_with_its_parameters(bring):
    network = bring(Net)
    params = {n: v.to("meta") for n, v in network.init(Key(0).torch()).items()}
    assert network(params, torch.zeros(5, 3, device="meta")).device.type == "meta"


class Counting(Net):
    """Says more with every call."""

    def forward(self, x):
        self.scale += 1
        return super().forward(x)


def frozen(inputs, outputs):
    network = Net(inputs, outputs)
    network.one.requires_grad_(False)
    return network


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (frozen, "one.weight, one.bias are frozen: make them buffers"),
        (
            lambda inputs, outputs: nn.Linear(inputs, 5),
            r"it gives \(3, 5\) for 3 rows of 3, where \(3, 2\) is expected",
        ),
        (lambda inputs, outputs: nn.Linear(4, outputs), "trying it out failed: RuntimeError"),
        (lambda inputs, outputs: nn.LazyLinear(outputs), "have no shape yet"),
        (lambda inputs, outputs: nn.Linear(inputs, outputs).double(), "are not float32"),
        (lambda inputs, outputs: 5, "it gives a int where a torch.nn.Module is expected"),
        (lambda inputs: nn.Linear(inputs, 2), "calling it with inputs and outputs failed: TypeError"),
        (lambda inputs, outputs: nn.Sequential(nn.Dropout(), nn.Linear(inputs, outputs)), "it draws random numbers"),
        (
            lambda inputs, outputs: nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(2)),
            "Expected more than 1|alone",
        ),
        (Counting, "it gives something else when asked again: it draws random numbers, or changes its buffers"),
        (lambda inputs, outputs: nn.Sequential(nn.LSTM(inputs, outputs)), "it gives tuple for 3 rows"),
        (lambda inputs, outputs: nn.Identity(), r"it gives \(3, 3\)"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(bring, kind, complaint):
    with pytest.raises(UserError, match=f"^--network is brought:Net; .*({complaint})") as caught:
        bring(kind)
    assert "\n" not in str(caught.value)


def test_a_network_without_parameters_is_refused(bring):
    with pytest.raises(UserError, match="no gradient reaches its parameters"):
        bring(lambda inputs, outputs: nn.Identity(), 2, 2)
