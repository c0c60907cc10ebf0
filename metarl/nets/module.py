"""A user's `torch.nn.Module` as pure functions of explicit parameters: what it brings is honoured, or refused.

Tied parameters stay tied. Buffers are constants: the same whenever the module is made, and lent to it on the device
of what it is called with. It keeps the mode its constructor leaves it in. Frozen parameters, parameters that are not
float32, buffers that are drawn or that change, random numbers (dropout), and rows that know of one another (batch
normalisation) are refused.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.naming import resolve
from metarl.nets.params import Params
from metarl.seeding import Key, draws, keyed_globals

TOLERANCE = 1e-5  # of what should be the same but for rounding


class ExplicitModule:
    """A module whose methods are called with parameters from a dict.

    Args:
        make: makes the module, its fresh parameters drawn from the global generators.
        what: what to call it in an error, such as "--memory is mine:Memory".

    Attributes:
        module: one that was made, for its attributes.

    Raises:
        UserError: it is no module, or brings what the head of this file says is refused.
    """

    def __init__(self, make: Callable[[], Any], what: str) -> None:
        self._make, self.what = make, what
        self.module, again = (self._made(Key(0)("module", i)) for i in range(2))
        if not isinstance(self.module, nn.Module):
            raise UserError(f"{what}; it gives a {type(self.module).__name__} where a torch.nn.Module is expected")
        with failing(f"{what}; copying it failed"):
            self._own = _Own(self.module)
        self._buffers = {torch.device("cpu"): {f"module.{n}": b for n, b in self.module.named_buffers()}}
        named = dict(self.module.named_parameters())
        self._axes = {n: p.ndim for n, p in named.items() if not isinstance(p, nn.UninitializedParameter)}
        if shapeless := [n for n in named if n not in self._axes]:
            raise UserError(f"{what}; {', '.join(shapeless)} have no shape yet: give the layers their sizes")
        if frozen := [n for n, p in named.items() if not p.requires_grad]:
            raise UserError(f"{what}; {', '.join(frozen)} are frozen: make them buffers, which are not trained")
        if other := [n for n, p in named.items() if p.dtype != torch.float32]:
            raise UserError(f"{what}; {', '.join(other)} are not float32, which every parameter is to be")
        others = dict(again.named_buffers())
        if drawn := [n for n, b in self.module.named_buffers() if not torch.equal(b, others[n])]:
            raise UserError(
                f"{what}; its buffers {', '.join(drawn)} are drawn, and a checkpoint holds parameters only: make them "
                "the same whenever the module is made, or parameters"
            )

    def init(self, generator: torch.Generator) -> Params:
        """The parameters of a module made anew, with the global generators keyed by this one."""
        seed = int(torch.randint(2**62, (), generator=generator))
        return {name: value.detach() for name, value in self._made(Key(seed)("module")).named_parameters()}

    def call(self, params: Params, method: str, *args: Tensor) -> Any:
        """What a method gives with these parameters."""
        device = args[0].device
        if device not in self._buffers:
            buffers = self._buffers[torch.device("cpu")]
            self._buffers[device] = {name: value.to(device) for name, value in buffers.items()}
        values = {f"module.{name}": value for name, value in params.items()}
        return torch.func.functional_call(self._own.call, (values, self._buffers[device]), (method, *args))

    def stacked(self, params: Params) -> bool:
        """Whether the parameters are one set a task, `(T, ...)`."""
        return any(params[name].ndim > axes for name, axes in self._axes.items())

    def _made(self, key: Key) -> Any:
        with keyed_globals(key):
            return self._make()


class _Own(threading.local):
    """A thread's own copy of a module: `functional_call` changes one for a while."""

    def __init__(self, module: nn.Module) -> None:
        self.call = _Call(copy.deepcopy(module))


class _Call(nn.Module):
    """Any method of a module, as `functional_call` wants it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, *args: Tensor) -> Any:
        return getattr(self.module, method)(*args)


class ModuleNetwork:
    """A module from `(B, inputs)` to `(B, outputs)`, called as an `MLP` is.

    Args:
        make: makes the module.
        inputs: numbers a row.
        outputs: numbers a row that it gives.
        what: what to call it in an error, such as "--encoder is mine:Encoder".

    Raises:
        UserError: it is no such module. It is tried out at once.
    """

    def __init__(self, make: Callable[[], Any], inputs: int, outputs: int, what: str) -> None:
        self._module = ExplicitModule(make, what)
        self.sizes = (inputs, outputs)
        with failing(f"{what}; trying it out failed"):
            complaint = self._first_breach()
        if complaint:
            raise UserError(f"{what}; {complaint}")

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, one set."""
        return self._module.init(generator)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Outputs `(..., outputs)`; stacked parameters `(T, ...)` want `x: (T, ..., inputs)`."""
        lead = x.shape[:-1]
        if self._module.stacked(params):
            out = torch.func.vmap(self._rows)(params, x.reshape(x.shape[0], -1, x.shape[-1]))
        else:
            out = self._rows(params, x.reshape(-1, x.shape[-1]))
        return out.reshape(*lead, self.sizes[-1])

    def _rows(self, params: Params, x: Tensor) -> Tensor:
        out: Tensor = self._module.call(params, "__call__", x)
        return out

    def _first_breach(self) -> str | None:
        """The first thing in which the module is no network, in words; None if it is one."""
        rows, (inputs, outputs) = 3, self.sizes
        params = {n: v.requires_grad_() for n, v in self.init(Key(0)("init").torch()).items()}
        x = torch.randn(rows, inputs, generator=Key(0)("module").torch())
        unchanged = x.clone()
        out: Any = self._rows(params, x)
        if not isinstance(out, Tensor) or out.shape != (rows, outputs):
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            return f"it gives {shape} for {rows} rows of {inputs}, where ({rows}, {outputs}) is expected"
        if not params or not out.requires_grad:
            return "no gradient reaches its parameters"
        with torch.no_grad():
            if draws(lambda: self._rows(params, x)) or not same(self._rows(params, x), out):
                return "it gives something else when asked again: it draws random numbers, or changes its buffers"
            if not same(self._rows(params, x[1:2]), out[1:2]):
                return "a row alone is not what it is among others: rows are not to know of one another"
            if not torch.equal(x, unchanged):
                return "it changes what it is given in place"
            both = {n: torch.stack([v, v]) for n, v in params.items()}
            if not same(self(both, torch.stack([x, x])), torch.stack([out, out])):
                return "it gives something else for one set of parameters a task (torch.func.vmap)"
        return None


def make_network(network: Any, inputs: int, outputs: int, flag: str) -> ModuleNetwork:
    """A user's network.

    Args:
        network: a class or function called with the keywords `inputs` and `outputs`, which gives a `torch.nn.Module`
            from `(B, inputs)` to `(B, outputs)`; the name of one, `module:Name`; or such a module itself, whose
            parameters are then the fresh ones.
        inputs: numbers a row.
        outputs: numbers a row that it gives.
        flag: what named it, for errors.

    Raises:
        UserError: there is no such thing, or it is no such network.
    """
    kind = resolve(network, flag) if isinstance(network, str) else network
    what = f"{flag} is {network if isinstance(network, str) else name_of(network)}"
    if isinstance(kind, nn.Module):
        return ModuleNetwork(lambda: copy.deepcopy(kind), inputs, outputs, what)
    if not callable(kind):
        raise UserError(f"{what}; it is to be a torch.nn.Module, or a class or function that gives one")
    return ModuleNetwork(maker(kind, {"inputs": inputs, "outputs": outputs}, what), inputs, outputs, what)


def name_of(network: Any) -> str:
    """The name of a class or function, or of the class of a thing, with its module."""
    kind = network if hasattr(network, "__qualname__") else type(network)
    return f"{kind.__module__}:{kind.__qualname__}"


def maker(kind: Any, sizes: dict[str, int], what: str) -> Callable[[], Any]:
    """Calls a user's class with keywords, and says in one line where that fails."""
    *first, last = sizes

    def make() -> Any:
        with failing(f"{what}; calling it with {', '.join(first)} and {last} failed"):
            return kind(**sizes)

    return make


def check_methods(thing: Any, names: Sequence[str], what: str) -> None:
    """Raise UserError unless a user's thing has attributes."""
    if missing := [name for name in names if not hasattr(thing, name)]:
        raise UserError(f"{what}; it must have {', '.join(names)}, and this {type(thing).__name__} lacks {missing[0]}")


def same(one: Tensor, other: Tensor) -> bool:
    """Whether tensors are equal but for rounding."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)


@contextmanager
def failing(what: str) -> Iterator[None]:
    """What a user's code raises, as one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {type(error).__name__}: {' '.join(str(error).split())}") from error
