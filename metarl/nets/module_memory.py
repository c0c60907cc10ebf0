"""A `torch.nn.Module` as a memory: its parameters made explicit, its buffers lent, all else refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.nets.params import Params
from metarl.seeding import Key, keyed_globals


class ModuleMemory:
    """A module with `features` and the methods `start(n)`, `step(x, state)` and `sequence(x, state)`; a `Memory`.

    Tied parameters stay tied. Buffers are constants: the same whenever the module is made, and moved to where the
    parameters are.

    Args:
        make: makes the module, with fresh parameters drawn from torch's global generator.
        what: what to call it in an error, such as "--memory is mine:Memory".

    Raises:
        UserError: it has frozen parameters, parameters that are not float32 or that have no shape yet, or buffers
            that are drawn.
    """

    def __init__(self, make: Callable[[], nn.Module], what: str) -> None:
        self._make, self._what = make, what
        module, again = (self._made(Key(0)("module", i)) for i in range(2))
        self._call = _Call(module)
        self._buffers = {torch.device("cpu"): {f"module.{n}": b for n, b in module.named_buffers()}}
        named = dict(module.named_parameters())
        shapeless = [n for n, p in named.items() if isinstance(p, nn.UninitializedParameter)]
        if shapeless:
            raise UserError(f"{what}; {', '.join(shapeless)} have no shape yet: give the layers their sizes")
        if frozen := [n for n, p in named.items() if not p.requires_grad]:
            raise UserError(f"{what}; {', '.join(frozen)} are frozen: make them buffers, which are not trained")
        if other := [n for n, p in named.items() if p.dtype != torch.float32]:
            raise UserError(f"{what}; {', '.join(other)} are not float32, which every parameter is to be")
        others = dict(again.named_buffers())
        if drawn := [n for n, b in module.named_buffers() if not torch.equal(b, others[n])]:
            raise UserError(
                f"{what}; its buffers {', '.join(drawn)} are drawn, and a checkpoint holds parameters only: make them "
                "the same whenever the module is made, or parameters"
            )

    @property
    def features(self) -> int:
        """Numbers it gives at a moment."""
        return int(self._call.module.features)  # type: ignore[arg-type]  # a module's attribute may be anything

    def init(self, generator: torch.Generator) -> Params:
        """The parameters of a module made anew, with the global generators keyed by this one."""
        seed = int(torch.randint(2**62, (), generator=generator))
        return {name: value.detach() for name, value in self._made(Key(seed)("module")).named_parameters()}

    def start(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The module's, on a device."""
        state: Tensor = self._call.module.start(n)  # type: ignore[operator]  # as above
        return state.to(device)

    def step(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, with these parameters."""
        out, state = self._with(params, "step", x, state)
        return out, state

    def sequence(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, with these parameters."""
        out, state = self._with(params, "sequence", x, state)
        return out, state

    def _made(self, key: Key) -> nn.Module:
        with keyed_globals(key):
            return self._make()

    def _with(self, params: Params, method: str, *args: Tensor) -> Any:
        device = args[0].device
        if device not in self._buffers:
            buffers = self._buffers[torch.device("cpu")]
            self._buffers[device] = {name: value.to(device) for name, value in buffers.items()}
        values = {f"module.{name}": value for name, value in params.items()}
        return torch.func.functional_call(self._call, (values, self._buffers[device]), (method, *args))


class _Call(nn.Module):
    """Any method of a module, as `functional_call` wants it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, *args: Tensor) -> Any:
        return getattr(self.module, method)(*args)
