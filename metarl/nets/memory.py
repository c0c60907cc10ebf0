"""Memories: what an actor-critic remembers a trial by, and how a user's own is named and checked.

memory = make_memory("lstm", MemoryOptions(inputs=8, length=100))
memory = make_memory("mypackage.memories:Mine", MemoryOptions(inputs=8, length=100, hidden=64))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.naming import is_name, resolve
from metarl.nets.mingru import MinGRU
from metarl.nets.module import ExplicitModule, check_methods, failing, maker, same
from metarl.nets.params import Params
from metarl.nets.recurrent import GRU, LSTM, Recurrent
from metarl.nets.transformer import Transformer
from metarl.nets.transitions import Token, Transitions
from metarl.seeding import Key, draws, keyed_globals


class Memory(Protocol):
    """What an actor-critic needs of a memory: pure functions of explicit parameters.

    N rows, each a trial; M inputs and F features a moment. A row's state is all that is remembered of its trial so
    far. Rows do not know of one another, and nothing that is given is changed in place.
    """

    @property
    def features(self) -> int:
        """F, the numbers it gives at a moment."""

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, float32, drawn from the generator alone."""

    def start(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The state of n rows before their first moment: one tensor `(n, ...)`, float32, the same in every row."""

    def step(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One moment.

        Args:
            params: as `init` gives them.
            x: `(N, M)`.
            state: `(N, ...)`, before it.

        Returns:
            Features `(N, F)`, and the state after it, of the same shape as before.
        """

    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """L moments in a row: the same as L steps, differentiable.

        Args:
            params: as `init` gives them.
            x: `(L, N, M)`.
            state: `(N, ...)`, before the first.

        Returns:
            Features `(L, N, F)`, and the state after the last.
        """


@runtime_checkable
class InPlace(Protocol):
    """A memory that can also write into the state it is given, for those who look at no earlier one again."""

    def act(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One moment as `Memory.step`, without gradients; what is returned may be the state that was given, changed."""


@dataclass(frozen=True)
class MemoryOptions:
    """What a memory is made of.

    Attributes:
        inputs: M, numbers it is given at a moment.
        length: the most moments of a trial.
        hidden: its width.
        layers: of a transformer or a minGRU.
        heads: of each layer of a transformer.
        token: what is seen at a moment; None for whole transitions in a transformer and moments elsewhere.
    """

    inputs: int
    length: int
    hidden: int = 128
    layers: int = 1
    heads: int = 4
    token: Token | None = None


def _recurrent(make: Callable[[int, MemoryOptions], Recurrent]) -> Callable[[MemoryOptions], Memory]:
    """What makes a recurrent memory of moments or of whole transitions, from what makes one of so many inputs."""

    def memory(options: MemoryOptions) -> Memory:
        if options.token == "transition":
            return Transitions(make(2 * options.inputs, options))
        return make(options.inputs, options)

    return memory


MEMORIES: Mapping[str, Callable[[MemoryOptions], Memory]] = {
    "gru": _recurrent(lambda inputs, options: GRU(inputs, options.hidden)),
    "lstm": _recurrent(lambda inputs, options: LSTM(inputs, options.hidden)),
    "mingru": _recurrent(lambda inputs, options: MinGRU(inputs, options.hidden, options.layers)),
    "transformer": lambda options: Transformer(
        options.inputs,
        options.length,
        options.hidden,
        options.layers,
        options.heads,
        token=options.token or "transition",
    ),
}


def check_memory_name(name: str, flag: str = "--memory") -> None:
    """Raise UserError unless a name is one of `MEMORIES` or has the form `module:Name`."""
    if name not in MEMORIES and not is_name(name):
        raise UserError(
            f"{flag} is {name!r}; choose from {', '.join(MEMORIES)}, or name your own as mypackage.module:Name"
        )


def make_memory(name: str, options: MemoryOptions, flag: str = "--memory") -> Memory:
    """A memory by name.

    Args:
        name: one of `MEMORIES`, or `module:Name` of a user's own. That is called with the keywords `inputs`, `hidden`
            and `length`, and what it gives is a `Memory`, or a `torch.nn.Module` as `ModuleMemory` says. It is tried
            out at once (`check_memory`).
        options: what to make it of.
        flag: what named it, for errors.

    Raises:
        UserError: there is no such memory, it cannot be made, or it does not do what a memory does.
    """
    check_memory_name(name, flag)
    if name in MEMORIES:
        return MEMORIES[name](options)
    what = f"{flag} is {name}"
    sizes = {"inputs": options.inputs, "hidden": options.hidden, "length": options.length}
    make = maker(resolve(name, flag), sizes, what)
    with keyed_globals(Key(0)("memory", name)):
        memory = make()
    if isinstance(memory, nn.Module):
        check_methods(memory, ("features", "start", "step", "sequence"), what)
        memory = ModuleMemory(make, what)
    check_memory(memory, options, what)
    checked: Memory = memory
    return checked


class ModuleMemory(ExplicitModule):
    """A module with `features` and the methods `start(n)`, `step(x, state)` and `sequence(x, state)`; a `Memory`."""

    @property
    def features(self) -> int:
        """Numbers it gives at a moment."""
        return int(self.module.features)

    def start(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The module's, on a device."""
        state: Tensor = self.module.start(n)
        return state.to(device)

    def step(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, with these parameters."""
        out, state = self.call(params, "step", x, state)
        return out, state

    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, with these parameters."""
        out, state = self.call(params, "sequence", x, state)
        return out, state


def check_memory(memory: Any, options: MemoryOptions, what: str) -> None:
    """Try a memory out on a few moments of a few rows, and one whole trial.

    Args:
        memory: a user's.
        options: what it was made of.
        what: what to call it in an error, such as "--memory is mine:Memory".

    Raises:
        UserError: it lacks a method or one of them fails; its parameters do not come from the generator alone;
            shapes are not as `Memory` says; steps are not the sequence, whole or in parts; rows know of one another;
            what it was given is changed; it draws random numbers; or no gradient reaches its parameters.
    """
    check_methods(memory, ("features", "init", "start", "step", "sequence"), what)
    with failing(f"{what}; trying it out failed"):
        complaint = _first_breach(memory, options)
    if complaint:
        raise UserError(f"{what}; {complaint}")


def _first_breach(memory: Memory, options: MemoryOptions) -> str | None:
    """The first thing in which a memory is none, in words; None if it is one."""
    moments, rows = min(5, options.length), 3
    generator = Key(0)("memory").torch()
    params, again = (memory.init(Key(0)("init").torch()) for _ in range(2))
    if any(value.dtype != torch.float32 for value in params.values()):
        return "its parameters are not all float32"
    if any(not torch.equal(value, again[name]) for name, value in params.items()):
        return "its init is to draw from the generator it is given and from nothing else"
    params = {name: (value + 0.1).requires_grad_() for name, value in params.items()}
    x = torch.randn(moments, rows, options.inputs, generator=generator)
    start: Any = memory.start(rows)
    if not isinstance(start, Tensor) or start.shape[:1] != (rows,) or start.dtype != torch.float32:
        return f"start({rows}) is to give one float32 tensor ({rows}, ...)"
    kept = x.clone(), start.clone()
    out, state = memory.sequence(params, x, start)
    if out.shape != (moments, rows, memory.features):
        return f"sequence gives features {tuple(out.shape)} where ({moments}, {rows}, {memory.features}) are expected"
    if state.shape != start.shape:
        return f"its state has the shape {tuple(start.shape)} at the start and {tuple(state.shape)} after a sequence"
    if params and not any(_gradients(out, params)):
        return "no gradient reaches its parameters"
    with torch.no_grad():
        if draws(lambda: memory.sequence(params, x, start)) or not _same(memory.sequence(params, x, start), out, state):
            return "it gives something else when asked again: it draws random numbers, or keeps what it should return"
        stepped, after = [], start
        for moment in x:
            one, after = memory.step(params, moment, after)
            stepped.append(one)
        if not _same((torch.stack(stepped), after), out, state):
            return "its steps one by one are not its sequence"
        if moments > 1:
            first, between = memory.sequence(params, x[:2], start)
            second, after = memory.sequence(params, x[2:], between) if moments > 2 else (first[:0], between)
            if not _same((torch.cat([first, second]), after), out, state):
                return "a sequence in two parts is not the whole: its state lacks something, or is changed in place"
        if not _same(memory.sequence(params, x[:, 1:2], start[1:2]), out[:, 1:2], state[1:2]):
            return "a row alone is not what it is among others: rows are not to know of one another"
        if not torch.equal(x, kept[0]) or not torch.equal(start, kept[1]):
            return "it changes what it is given in place"
        whole, _ = memory.sequence(params, x[:1, :1].expand(options.length, -1, -1), start[:1])
        if len(whole) != options.length:
            return f"it gives {len(whole)} moments of a trial of {options.length}"
    return None


def _gradients(out: Tensor, params: Params) -> list[bool]:
    """Whether each parameter has a gradient."""
    if not out.requires_grad:
        return [False]
    leaves = list(params.values())
    gradients = torch.autograd.grad((out**3).sum(), leaves, allow_unused=True, materialize_grads=True)
    return [bool(gradient.any()) for gradient in gradients]


def _same(pair: tuple[Tensor, Tensor], out: Tensor, state: Tensor) -> bool:
    return same(pair[0], out) and same(pair[1], state)
