"""Settings of an actor-critic with a memory, and the policy they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium

from metarl.errors import UserError
from metarl.learning.settings import check_range
from metarl.naming import is_name
from metarl.nets.actor_critic import RecurrentPolicy, recurrent_policy
from metarl.nets.memory import Memory, MemoryOptions, check_memory_name, make_memory
from metarl.nets.policies import MIN_STD


@dataclass(frozen=True)
class PolicySettings:
    """Settings of an actor-critic with a memory."""

    renamed: ClassVar[Mapping[str, str]] = {"cell": "memory"}

    memory: str = "gru"
    """gru (Duan et al. 2016), lstm, transformer, or your own as mypackage.module:Name (see `metarl.nets.memory`)."""
    hidden: int = 128
    """Its width (Duan et al. 2016: 256; VariBAD: 128)."""
    layers: int = 1
    """Attention layers of a transformer; nothing else has any."""
    heads: int = 4
    """Heads of an attention layer, which share its width."""
    embedding: int = 0
    """Width of a tanh layer between input and memory; 0 for none."""
    encoder: str | None = None
    """A network of your own in place of that layer, as mypackage.module:Name; called with `inputs` and `outputs`, it
    gives a torch.nn.Module."""
    head: tuple[int, ...] = ()
    """Widths of tanh layers between memory and action or value (VariBAD: 128)."""
    layer_norm: bool = False
    """Normalise what enters (where there is an embedding) and leaves the memory (pytorch_rl2: within it)."""
    init_std: float = 1.0
    """Initial standard deviation of continuous actions, in units of their bound."""
    critic: Literal["memory", "task"] = "memory"
    """What the critic sees: the memory, or beside it the task, in training only (Pinto et al. 2018)."""

    def __post_init__(self) -> None:
        check_memory_name(self.memory)
        check_range(self, "hidden", "layers", "heads", "head", least=1)
        check_range(self, "embedding", least=0)
        check_range(self, "init_std", least=MIN_STD)
        if self.encoder is not None and not is_name(self.encoder):
            raise UserError(f"--encoder is {self.encoder!r}; name your own as mypackage.module:Name")
        if self.encoder is not None and not self.embedding:
            raise UserError(f"--encoder is {self.encoder} and --embedding is 0; say how wide it is with --embedding")
        if self.memory == "transformer":
            if self.hidden % self.heads:
                raise UserError(f"--hidden is {self.hidden}; a transformer's is a multiple of --heads, {self.heads}")
        elif (self.layers, self.heads) != (PolicySettings.layers, PolicySettings.heads):
            raise UserError(f"--layers and --heads are a transformer's; --memory {self.memory} has neither")

    def policy(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], length: int, told: int = 0
    ) -> RecurrentPolicy:
        """The policy for a pair of spaces and trials of at most `length` steps, its critic told so many numbers.

        Raises:
            UserError: the spaces are of another kind than `recurrent_policy` wants, or the memory or the encoder is
                none.
        """

        def memory(inputs: int) -> Memory:
            options = MemoryOptions(inputs, length, self.hidden, self.layers, self.heads)
            return make_memory(self.memory, options)

        return recurrent_policy(
            observation_space,
            action_space,
            memory,
            embedding=self.embedding,
            encoder=self.encoder,
            head=self.head,
            layer_norm=self.layer_norm,
            init_std=self.init_std,
            told=told,
        )
