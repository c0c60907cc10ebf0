"""What a memory is, tried out on ours and on those that users bring."""

import sys
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
import torch
from torch import nn

from metarl.errors import UserError
from metarl.nets.memory import MEMORIES, MemoryOptions, check_memory, check_memory_name, make_memory
from metarl.nets.recurrent import GRU
from metarl.nets.transitions import Transitions
from metarl.seeding import Key

OPTIONS = MemoryOptions(inputs=3, length=7, hidden=8)


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("token", [None, "moment", "transition"])
def test_ours_do_what_a_memory_does(name, length, token):
    layers = 2 if name in ("mingru", "transformer") else 1
    options = MemoryOptions(inputs=3, length=length, hidden=8, layers=layers, token=token)
    check_memory(make_memory(name, options), options, name)


@pytest.mark.parametrize(
    ("name", "token", "inputs"),
    [("gru", None, 3), ("lstm", "moment", 3), ("lstm", "transition", 6), ("mingru", "transition", 6)],
)
def test_a_token_is_a_moment_or_a_whole_transition(name, token, inputs):
    memory = make_memory(name, replace(OPTIONS, token=token))
    assert isinstance(memory, Transitions) == (token == "transition")
    weights = next(iter(memory.init(Key(0).torch()).values()))
    assert weights.shape[1] == inputs


@pytest.mark.parametrize(("token", "inputs"), [(None, 6), ("transition", 6), ("moment", 3)])
def test_a_transformer_sees_whole_transitions_unless_told_otherwise(token, inputs):
    memory = make_memory("transformer", replace(OPTIONS, token=token))
    assert memory.init(Key(0).torch())["token.weight"].shape == (inputs, 8)


@pytest.mark.parametrize("name", MEMORIES)
def test_memories_live_where_their_parameters_are(name):
    """Shapes alone, on torch's device without numbers: nothing asks for a value or makes a tensor elsewhere."""
    memory = make_memory(name, OPTIONS)
    params = {n: v.to("meta") for n, v in memory.init(Key(0).torch()).items()}
    out, state = memory.sequence(params, torch.zeros(4, 2, 3, device="meta"), memory.start(2, "meta"))
    assert (out.device.type, state.device.type, out.shape) == ("meta", "meta", (4, 2, 8))
    out, again = memory.step(params, torch.zeros(2, 3, device="meta"), state)
    assert (out.shape, again.shape) == ((2, 8), state.shape)


def test_names_are_ours_or_a_users():
    with pytest.raises(
        UserError, match=r"--memory is 'grue'; choose from gru, lstm, mingru, transformer, or name your own"
    ):
        check_memory_name("grue")
    check_memory_name("mine.memories:Own")


# Users' own


@dataclass(frozen=True)
class Windowed:
    """The last two inputs through a linear layer: pure functions of explicit parameters."""

    inputs: int
    hidden: int
    length: int

    @property
    def features(self):
        return self.hidden

    def init(self, generator):
        return {"weight": torch.randn(2 * self.inputs, self.hidden, generator=generator)}

    def start(self, n, device="cpu"):
        return torch.zeros(n, self.inputs, device=device)

    def step(self, params, x, state):
        return torch.tanh(torch.cat([x, state], -1) @ params["weight"]), x

    def sequence(self, params, x, state):
        return torch.tanh(torch.cat([x, torch.cat([state[None], x[:-1]])], -1) @ params["weight"]), x[-1]


class Minimal(nn.Module):
    """A module whose parameters are tied, and which has a buffer."""

    def __init__(self, inputs, hidden, length):
        super().__init__()
        self.features = hidden
        self.enter = nn.Linear(inputs, hidden)
        self.keep = nn.Linear(hidden, hidden)
        self.again = nn.Linear(hidden, hidden)
        self.again.weight = self.keep.weight
        self.register_buffer("scale", torch.full((hidden,), 0.5))

    def start(self, n):
        return torch.zeros(n, self.features)

    def step(self, x, state):
        state = torch.tanh(self.enter(x) + self.again(self.keep(state)) * self.scale)
        return state, state

    def sequence(self, x, state):
        out = []
        for moment in x:
            state = self.step(moment, state)[0]
            out.append(state)
        return torch.stack(out), state


@pytest.fixture
def bring(monkeypatch):
    """A memory by its name, as a user would give it."""

    def make(kind):
        module = ModuleType("brought")
        module.Own = kind
        monkeypatch.setitem(sys.modules, "brought", module)
        return make_memory("brought:Own", OPTIONS)

    return make


def test_a_users_pure_functions_are_a_memory(bring):
    assert bring(Windowed) == Windowed(3, 8, 7)


def test_a_users_module_is_a_memory(bring):
    before = torch.get_rng_state()
    memory = bring(Minimal)
    one, same, other = (memory.init(Key(seed).torch()) for seed in (0, 0, 1))
    assert set(one) == {"enter.weight", "enter.bias", "keep.weight", "keep.bias", "again.bias"}  # the tie is one
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not torch.equal(one["keep.weight"], other["keep.weight"])
    assert torch.equal(before, torch.get_rng_state())
    module = Minimal(3, 8, 7)
    module.load_state_dict({**one, "again.weight": one["keep.weight"], "scale": torch.full((8,), 0.5)})
    x = torch.randn(7, 2, 3, generator=Key(2).torch())
    expected, after = module.sequence(x, module.start(2))
    out, state = memory.sequence(one, x, memory.start(2))
    torch.testing.assert_close((out, state), (expected, after))
    doubled = {n: 2 * v for n, v in one.items()}
    assert not torch.allclose(memory.sequence(doubled, x, memory.start(2))[0], out)


def test_a_users_module_moves_with_its_parameters_and_buffers(bring):
    memory = bring(Minimal)
    params = {n: v.to("meta") for n, v in memory.init(Key(0).torch()).items()}
    out, _ = memory.step(params, torch.zeros(2, 3, device="meta"), memory.start(2, "meta"))
    assert out.device.type == "meta"


def broken(base, **changes):
    """A subclass with other methods or attributes."""
    return type("Broken", (base,), changes)


def forgetful(self, params, x, state):
    return Windowed.sequence(self, params, x, torch.zeros_like(state))


def overwriting(self, params, x, state):
    out, last = Windowed.step(self, params, x, state.clone())
    return out, state.copy_(last)


def mixing(self, params, x, state):
    out, last = Windowed.sequence(self, params, x, state)
    return out - out.mean(1, keepdim=True), last


def mixing_step(self, params, x, state):
    out, last = Windowed.step(self, params, x, state)
    return out - out.mean(0, keepdim=True), last


def drawing(self, params, x, state):
    out, last = Windowed.sequence(self, params, x, state)
    return out + torch.rand(()), last


def detached(self, params, x, state):
    out, last = Windowed.sequence(self, params, x, state)
    return out.detach(), last


def frozen(self, *sizes, **options):
    Minimal.__init__(self, *sizes, **options)
    self.enter.weight.requires_grad_(False)


def drawn_buffer(self, *sizes, **options):
    Minimal.__init__(self, *sizes, **options)
    self.scale.uniform_()


def double(self, *sizes, **options):
    Minimal.__init__(self, *sizes, **options)
    self.double()


def lazy(self, *sizes, **options):
    Minimal.__init__(self, *sizes, **options)
    self.enter = nn.LazyLinear(8)


def dropping(self, x, state):
    state = torch.tanh(self.enter(nn.functional.dropout(x, 0.5)) + self.keep(state))
    return state, state


def normalised(self, *sizes, **options):
    Minimal.__init__(self, *sizes, **options)
    self.keep = nn.Sequential(self.keep, nn.BatchNorm1d(8))


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (broken(Windowed, sequence=None, step=5), "trying it out failed: TypeError"),
        (GRU, "calling it with inputs, hidden and length failed: TypeError: .*unexpected keyword argument 'length'"),
        (object, "calling it with inputs, hidden and length failed"),
        (lambda inputs, hidden, length: object(), "this object lacks features"),
        (lambda inputs, hidden, length: nn.GRU(inputs, hidden), "this GRU lacks features"),
        (broken(Windowed, sequence=forgetful), "a sequence in two parts is not the whole|steps one by one are not"),
        (broken(Windowed, step=overwriting), "it changes what it is given in place|a sequence in two parts"),
        (broken(Windowed, sequence=mixing), "its steps one by one are not its sequence"),
        (broken(Windowed, sequence=mixing, step=mixing_step), "a row alone is not what it is among others"),
        (broken(Windowed, sequence=drawing), "draws random numbers"),
        (broken(Windowed, sequence=detached), "no gradient reaches its parameters"),
        (broken(Windowed, start=lambda self, n, device="cpu": None), r"start\(3\) is to give one float32 tensor"),
        (broken(Windowed, features=5), r"features \(5, 3, 8\) where \(5, 3, 5\) are expected"),
        (broken(Windowed, init=lambda self, generator: {"weight": torch.rand(6, 8)}), "its init is to draw from the"),
        (broken(Minimal, __init__=frozen), "enter.weight are frozen"),
        (broken(Minimal, __init__=drawn_buffer), "its buffers scale are drawn"),
        (broken(Minimal, __init__=double), "are not float32"),
        (broken(Minimal, __init__=lazy), "enter.weight, enter.bias have no shape yet"),
        (broken(Minimal, step=dropping), "draws random numbers"),
        (broken(Minimal, __init__=normalised), "a row alone is not|Expected more than 1 value per channel"),
    ],
)
def test_what_is_no_memory_is_refused_in_one_line(bring, kind, complaint):
    with pytest.raises(UserError, match=f"^--memory is brought:Own; .*({complaint})") as caught:
        bring(kind)
    assert "\n" not in str(caught.value)


def test_a_name_that_leads_nowhere_is_refused():
    with pytest.raises(UserError, match=r"--memory is nowhere\.at_all:Own; there is no module"):
        make_memory("nowhere.at_all:Own", OPTIONS)
