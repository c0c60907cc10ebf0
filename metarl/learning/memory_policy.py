"""Settings of an actor-critic with a memory, and the policy they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import gymnasium

from metarl.errors import UserError
from metarl.learning.footprint import dense
from metarl.learning.settings import check_range
from metarl.naming import is_name
from metarl.nets.actor_critic import RecurrentPolicy, recurrent_policy
from metarl.nets.hypernetwork import Hypernetwork
from metarl.nets.memory import Memory, MemoryOptions, check_memory_name, make_memory
from metarl.nets.mlp import MLP
from metarl.nets.policies import MIN_STD
from metarl.nets.transitions import Token

SQUARES = {"gru": 3, "lstm": 4, "mingru": 2, "transformer": 8}  # matrices of a layer that are as wide as high


@dataclass(frozen=True)
class PolicySettings:
    """Settings of an actor-critic with a memory."""

    renamed: ClassVar[Mapping[str, str]] = {"cell": "memory"}

    inputs: Literal["trial", "values"] = "trial"
    """What is observed beside previous action, reward and end: nothing more, or, in tabular MDPs, value iteration's
    estimates in what is known so far (RL3, Bhatia et al. 2023)."""
    memory: str = "gru"
    """gru (Duan et al. 2016), lstm, mingru (Feng et al. 2024), transformer, or your own as mypackage.module:Name (see
    `metarl.nets.memory`)."""
    hidden: int = 128
    """Its width (Duan et al. 2016: 256; VariBAD: 128)."""
    layers: int = 1
    """Of a transformer or a minGRU; nothing else has several."""
    heads: int = 4
    """Heads of an attention layer, which share its width."""
    token: Token | None = None
    """What a memory is given at a moment: `moment`, an observation with the previous action, reward and end; or
    `transition`, also the same of the moment before. By default a transformer is given transitions, others moments."""
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
    actor: Literal["head", "hypernetwork"] = "head"
    """What the memory does: it is the input of the actor's head, or of a hypernetwork that makes all weights of a small
    policy of the present observation (Beck et al. 2023)."""
    latent: int = 25
    """Numbers between the memory and a hypernetwork (Beck et al. 2023: 25)."""
    base: tuple[int, ...] = (32, 32)
    """Widths of tanh layers of the policy that a hypernetwork makes (Beck et al. 2023: 32, 32)."""

    def __post_init__(self) -> None:
        check_memory_name(self.memory)
        check_range(self, "hidden", "layers", "heads", "head", "latent", "base", least=1)
        check_range(self, "embedding", least=0)
        check_range(self, "init_std", least=MIN_STD)
        if self.encoder is not None and not is_name(self.encoder):
            raise UserError(f"--encoder is {self.encoder!r}; name your own as mypackage.module:Name")
        if self.encoder is not None and not self.embedding:
            raise UserError(f"--encoder is {self.encoder} and --embedding is 0; say how wide it is with --embedding")
        if self.memory == "transformer":
            if self.hidden % self.heads:
                raise UserError(f"--hidden is {self.hidden}; a transformer's is a multiple of --heads, {self.heads}")
        elif self.heads != PolicySettings.heads:
            raise UserError(f"--heads is a transformer's; --memory {self.memory} has none")
        elif self.layers != PolicySettings.layers and self.memory != "mingru":
            raise UserError(f"--layers is for transformer and mingru; --memory {self.memory} is one layer")
        if self.token is not None and is_name(self.memory):
            raise UserError(
                f"--token is for memories of metarl; {self.memory} is yours, and may keep the last input itself"
            )
        if self.actor == "head" and (self.latent, self.base) != (PolicySettings.latent, PolicySettings.base):
            raise UserError("--latent and --base are a hypernetwork's; say --actor hypernetwork, or leave them out")

    @property
    def variant(self) -> str:
        """What is added to the agent's name in tables and pictures."""
        return "" if self.actor == "head" else self.actor

    def least_parameters(self, actions: int) -> int:
        """Parameters that the policy has at least, without those that its inputs are multiplied by."""
        layers = self.layers - (self.memory == "mingru")  # in the first there is nothing else
        memory = 0 if is_name(self.memory) else SQUARES[self.memory] * self.hidden * self.hidden * layers
        critic = dense((self.hidden, *self.head, 1))
        if self.actor == "head":
            return memory + critic + dense((self.hidden, *self.head, actions))
        return memory + critic + dense((self.hidden, self.latent)) + (1 + self.latent) * dense((*self.base, actions))

    def policy(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        length: int,
        told: int = 0,
        seen: int | None = None,
    ) -> RecurrentPolicy:
        """The policy for a pair of spaces.

        Args:
            observation_space: of a trial.
            action_space: of the family.
            length: the most steps of a trial.
            told: numbers of a task that the critic is told.
            seen: the first numbers of an observation, those of the present, which is all that the policy of a
                hypernetwork sees; None for all.

        Raises:
            UserError: the spaces are of another kind than `recurrent_policy` wants, or the memory or the encoder is
                none.
        """

        def memory(inputs: int) -> Memory:
            options = MemoryOptions(inputs, length, self.hidden, self.layers, self.heads, self.token)
            return make_memory(self.memory, options)

        policy = recurrent_policy(
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
        if self.actor == "head":
            return policy
        base = MLP((seen or policy.inputs, *self.base, policy.actions), "tanh")
        return replace(policy, hypernetwork=Hypernetwork(policy.memory.features, base, self.latent))
