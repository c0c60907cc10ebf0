"""Actor-critics with a memory, as pure functions of explicit parameters.

    observation -> [embedding] -> memory -> [layer norm] -> actor head, critic head
                                       task numbers -> tanh -> tanh -> critic head, where it is told the task

In place of the actor's head there may be a hypernetwork (`metarl.nets.hypernetwork`) and its policy of the observation.
A critic that is told the task (an asymmetric actor-critic, Pinto et al. 2018) is for training alone: whoever acts on an
unknown task needs the actor only. The parameters of the memory are named `cell.*`, whatever memory it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor
from torch.nn import functional as F

from metarl.errors import UserError
from metarl.nets.distributions import Categorical, Gaussian
from metarl.nets.hypernetwork import Hypernetwork
from metarl.nets.memory import InPlace, Memory
from metarl.nets.mlp import MLP, Activation
from metarl.nets.module import ModuleNetwork, make_network
from metarl.nets.params import Params, below
from metarl.nets.policies import MIN_STD, project_std
from metarl.tasks import Array

TOLD = (128, 64)  # widths of the layers between a task's numbers and the critic
ACTOR_GAIN = 0.01  # of the actor's last layer at the start: first actions hardly depend on anything


@dataclass(frozen=True)
class Decision:
    """What a policy with a memory decides at one or more moments."""

    distribution: Any  # of actions, batch shape (...)
    value: Tensor  # (...), the critic's estimate of the return that is left; 0 where it wants a task and is told none
    state: Tensor  # (N, ...), the memory's afterwards


@dataclass(frozen=True)
class RecurrentPolicy:
    """Actor and critic on top of one memory.

    Attributes:
        inputs: numbers in an observation.
        actions: choices, or dimensions of a continuous action.
        discrete: which of the two.
        memory: of `embedding or inputs` inputs.
        embedding: width of a tanh layer before it; 0 for none.
        encoder: a user's network in place of that layer, of as many outputs.
        head: widths of hidden tanh layers after it, for actor and critic each, or the critic alone.
        layer_norm: normalise what enters (where there is an embedding) and what leaves the memory.
        init_std: initial standard deviation of continuous actions, in units of their bound.
        told: numbers of the task that the critic is told; 0 for one that is told nothing.
        hypernetwork: the actor in place of a head; its policy sees the first numbers of an observation.
    """

    inputs: int
    actions: int
    discrete: bool
    memory: Memory
    embedding: int = 0
    encoder: ModuleNetwork | None = None
    head: tuple[int, ...] = ()
    layer_norm: bool = False
    init_std: float = 1.0
    told: int = 0
    hypernetwork: Hypernetwork | None = None

    @cached_property
    def _move(self) -> Callable[[Params, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """How the memory acts."""
        return self.memory.act if isinstance(self.memory, InPlace) else self.memory.step

    @cached_property
    def _networks(self) -> dict[str, MLP | ModuleNetwork]:
        activation: Activation = "tanh"
        networks: dict[str, MLP | ModuleNetwork] = {}
        if self.hypernetwork is None:
            networks["actor"] = MLP((self.memory.features, *self.head, self.actions), activation)
        networks["critic"] = MLP((self.memory.features + (TOLD[-1] if self.told else 0), *self.head, 1), activation)
        if self.told:
            networks["task"] = MLP((self.told, *TOLD), activation)
        if self.embedding:
            networks["embedding"] = (
                MLP((self.inputs, self.embedding), activation) if self.encoder is None else self.encoder
            )
        return networks

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: the memory's, and Glorot-uniform weights and zero biases elsewhere."""
        params = {f"cell.{key}": value for key, value in self.memory.init(generator).items()}
        for name, network in self._networks.items():
            params |= {f"{name}.{key}": value for key, value in network.init(generator).items()}
        if self.hypernetwork is None:
            params[f"actor.{len(self.head)}.weight"] *= ACTOR_GAIN
        else:
            actor = self.hypernetwork.init(generator, ACTOR_GAIN)
            params |= {f"actor.{key}": value for key, value in actor.items()}
        if self.layer_norm:
            for name, size in {"enter": self.embedding, "leave": self.memory.features}.items():
                if size:
                    params |= {f"{name}.weight": torch.ones(size), f"{name}.bias": torch.zeros(size)}
        if not self.discrete:
            params["log_std"] = torch.full((self.actions,), math.log(self.init_std))
        return params

    def project(self, params: Params) -> Params:
        """The nearest parameters whose standard deviations are at least `MIN_STD`; see `Policy.project`."""
        return project_std(params, MIN_STD)

    def start(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The memory's state at the start of n trials, `(n, ...)`."""
        return self.memory.start(n, device)

    def step(self, params: Params, obs: Tensor, state: Tensor, task: Tensor | None = None) -> Decision:
        """One moment of N trials: `obs (N, inputs)`, `state (N, ...)`, and for the critic `task (N, told)`."""
        out, state = self.memory.step(below(params, "cell"), self._enter(params, obs), state)
        return self._leave(params, obs, out, state, self.tell(params, task))

    def act(self, params: Params, obs: Tensor, state: Tensor, told: Tensor | None = None) -> Decision:
        """As `step`, without gradients; the state may be written into, and is the caller's no more.

        Args:
            params: the policy's.
            obs: `(N, inputs)`.
            state: `(N, ...)`.
            told: what `tell` makes of each trial's task; None tells nothing.
        """
        out, state = self._move(below(params, "cell"), self._enter(params, obs), state)
        return self._leave(params, obs, out, state, told)

    def tell(self, params: Params, task: Tensor | None) -> Tensor | None:
        """What the critic makes of tasks `(..., told)`, which stays the same over a trial."""
        if task is None or not self.told:
            return None
        return torch.tanh(self._networks["task"](below(params, "task"), task))

    def sequence(self, params: Params, obs: Tensor, state: Tensor, task: Tensor | None = None) -> Decision:
        """L moments of N trials in a row: `obs (L, N, inputs)`, `state (N, ...)` before the first, `task (N, told)`."""
        out, state = self.memory.sequence(below(params, "cell"), self._enter(params, obs), state)
        return self._leave(params, obs, out, state, self.tell(params, task))

    def noise(self, rng: Any, shape: tuple[int, ...]) -> Array:
        """The random numbers, float32, that `sample` of its distribution consumes: `(*shape, 1)` or `(*shape, A)`."""
        drawn: Array
        if self.discrete:
            drawn = rng.random((*shape, 1), dtype="float32")
        else:
            drawn = rng.standard_normal((*shape, self.actions), dtype="float32")
        return drawn

    def _enter(self, params: Params, obs: Tensor) -> Tensor:
        if not self.embedding:
            return obs
        x = self._networks["embedding"](below(params, "embedding"), obs)
        if self.encoder is None:
            x = torch.tanh(x)
        return _normalised(params, "enter", x) if self.layer_norm else x

    def _leave(self, params: Params, obs: Tensor, out: Tensor, state: Tensor, told: Tensor | None) -> Decision:
        if self.layer_norm:
            out = _normalised(params, "leave", out)
        actor = below(params, "actor")
        if self.hypernetwork is None:
            action = self._networks["actor"](actor, out)
        else:
            action = self.hypernetwork(actor, out, obs[..., : self.hypernetwork.seen])
        value = self._value(params, out, told)
        if self.discrete:
            return Decision(Categorical(torch.log_softmax(action, -1)), value, state)
        return Decision(Gaussian(action, params["log_std"]), value, state)

    def _value(self, params: Params, out: Tensor, told: Tensor | None) -> Tensor:
        if self.told:
            if told is None:
                return out.new_zeros(out.shape[:-1])
            out = torch.cat([out, told.expand(*out.shape[:-1], -1)], -1)
        value: Tensor = self._networks["critic"](below(params, "critic"), out).squeeze(-1)
        return value


def _normalised(params: Params, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])


def recurrent_policy(
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    memory: Callable[[int], Memory],
    *,
    embedding: int = 0,
    encoder: str | None = None,
    **options: Any,
) -> RecurrentPolicy:
    """The policy with a memory for a pair of spaces.

    Args:
        observation_space: a flat Box.
        action_space: a flat Box or Discrete.
        memory: makes the memory of so many inputs.
        embedding: width of a tanh layer before it; 0 for none.
        encoder: `module:Name` of a user's network in place of that layer (`make_network`).
        options: other fields of `RecurrentPolicy`.

    Raises:
        UserError: the spaces are of another kind, or the encoder is no network.
    """
    if not isinstance(observation_space, Box) or len(observation_space.shape) != 1:
        raise UserError(f"a recurrent policy needs a flat Box observation, got {observation_space}")
    inputs = observation_space.shape[0]
    if isinstance(action_space, Discrete):
        actions, discrete = int(action_space.n), True
    elif isinstance(action_space, Box) and len(action_space.shape) == 1:
        actions, discrete = action_space.shape[0], False
    else:
        raise UserError(f"a recurrent policy needs a flat Box or a Discrete action space, got {action_space}")
    network = make_network(encoder, inputs, embedding, "--encoder") if encoder else None
    return RecurrentPolicy(inputs, actions, discrete, memory(embedding or inputs), embedding, network, **options)
