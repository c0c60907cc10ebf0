"""Settings of a belief about the task: the policy that acts on it, and how the belief is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium

from metarl.learning.settings import check_range
from metarl.nets.actor_critic import RecurrentPolicy, recurrent_policy
from metarl.nets.belief import Belief
from metarl.nets.policies import MIN_STD
from metarl.sampling.episodes import flat_size


@dataclass(frozen=True)
class BeliefSettings:
    """Settings of a belief, of what learns it, and of a policy on it.

    Where no source is named, the value is that of VariBAD's grid; "MuJoCo" is VariBAD's half-cheetah of a velocity.
    """

    hidden: int = 64
    """Width of the encoder's recurrent layer, a GRU (MuJoCo: 128)."""
    latent: int = 5
    """Numbers that a task is described by; the belief is a mean and a variance of each."""
    state_embedding: int = 32
    """Width of the relu layer between the state and the encoder's recurrent layer; 0 for none."""
    action_embedding: int = 0
    """The same for the previous action (MuJoCo: 16)."""
    reward_embedding: int = 8
    """The same for the previous reward (MuJoCo: 16)."""
    policy_embedding: int = 0
    """Width of each of two tanh layers, between the state and the policy, and the belief and the policy; 0 for none
    (MuJoCo, later versions: 64)."""
    head: tuple[int, ...] = (32, 32)
    """Widths of tanh layers of actor and critic each (MuJoCo: 128 128)."""
    init_std: float = 1.0
    """Initial standard deviation of continuous actions, in units of their bound."""
    critic: Literal["memory", "task"] = "memory"
    """What the critic sees: state and belief, or beside them the task, in training only (Pinto et al. 2018)."""
    through: bool = False
    """Let the policy's gradient through to the encoder, which otherwise learns from the bound alone."""
    belief_step_size: float = 1e-3
    """Of Adam, for encoder and decoders."""
    belief_updates: int = 15
    """Gradient steps on the bound an update of the policy (there 3 an update of 960 steps; MuJoCo: 1)."""
    belief_trials: int = 25
    """Trials of each of these steps (MuJoCo: 10)."""
    moments: int = 10
    """Moments of a trial at which the bound is taken, drawn at random; 0 for all (there all; MuJoCo: 50)."""
    decoded: int = 0
    """Transitions of a trial that are predicted at each of them, drawn at random; 0 for all (MuJoCo, later versions:
    50)."""
    cut: int = 0
    """Steps that the bound's gradient flows back in the encoder; 0 for all (MuJoCo, later versions: 50)."""
    kl_weight: float = 0.1
    """Of the divergence from the belief before (there 1, beside cross-entropies; MuJoCo, later versions: 0.1)."""
    reward_decoder: tuple[int, ...] = (32, 32)
    """Widths of relu layers of the network that predicts rewards (MuJoCo: 64 32)."""
    reward_weight: float = 1.0
    """Of the squared error of rewards; 0 where only states tell tasks apart (VariBAD's random parameters)."""
    state_decoder: tuple[int, ...] = ()
    """Widths of relu layers of the network that predicts next states; none: they are not predicted (VariBAD's random
    parameters: 256 128)."""
    state_weight: float = 1.0
    """Of the squared error of states, a mean over their numbers."""
    buffer: int = 400
    """Trials of earlier updates that are kept to learn the belief from; checkpoints hold them (there 100,000; MuJoCo:
    10,000)."""
    buffer_added: int = 20
    """Trials of an update that go there, drawn at random, in place of the oldest (there all)."""

    def __post_init__(self) -> None:
        check_range(self, "hidden", "latent", "head", "belief_trials", "reward_decoder", "state_decoder", least=1)
        check_range(self, "state_embedding", "action_embedding", "reward_embedding", "policy_embedding", least=0)
        check_range(self, "belief_updates", "moments", "decoded", "cut", "buffer_added", least=0)
        check_range(self, "buffer", least=self.buffer_added)
        check_range(self, "kl_weight", "reward_weight", "state_weight", least=0)
        check_range(self, "belief_step_size", above=0)
        check_range(self, "init_std", least=MIN_STD)

    def belief(self, observed: int, acted: int) -> Belief:
        """The memory for states of so many numbers and actions described by so many."""
        return Belief(
            observed,
            acted,
            self.latent,
            self.hidden,
            self.state_embedding,
            self.action_embedding,
            self.reward_embedding,
            self.policy_embedding,
            self.through,
        )

    def policy(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], told: int = 0
    ) -> RecurrentPolicy:
        """The policy for the spaces of trials, its critic told so many numbers.

        Raises:
            UserError: the spaces are of another kind than `recurrent_policy` wants.
        """
        acted = flat_size(action_space)
        return recurrent_policy(
            observation_space,
            action_space,
            lambda inputs: self.belief(inputs - acted - 2, acted),
            head=self.head,
            init_std=self.init_std,
            told=told,
        )
