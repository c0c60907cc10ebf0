"""Settings of proximal policy optimisation on whole trials, and how they change over a training."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TypeVar

from metarl.learning.settings import check_range

Set = TypeVar("Set", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """Settings of PPO on whole trials. Where no source is named, the value comes from short runs on bandits."""

    gamma: float = 0.99
    """Discount (Duan et al. 2016)."""
    gae_lambda: float = 0.3
    """Lambda of the generalised advantage estimates (Duan et al. 2016)."""
    clip: float = 0.1
    """How far the probability ratio counts from 1 (pytorch_rl2 and VariBAD: 0.1)."""
    epochs: int = 4
    """Passes over the data of an update (pytorch_rl2: 8; VariBAD: 2)."""
    minibatches: int = 10
    """Gradient steps a pass."""
    step_size: float = 2e-3
    """Of Adam (pytorch_rl2: 2e-4; VariBAD: 7e-4)."""
    halve_every: int = 100
    """Iterations in which the step size and the entropy bonus halve, smoothly; 0 keeps them."""
    value_weight: float = 0.5
    """Of the critic's squared error, w."""
    entropy_weight: float = 0.0
    """Of the entropy bonus, b (pytorch_rl2 and VariBAD: 0.01)."""
    max_gradient_norm: float = 0.5
    """Gradients are scaled down to this norm (VariBAD: 0.5)."""
    normalise_advantages: bool = True
    """Give the advantages of an update zero mean and unit deviation (pytorch_rl2: no)."""
    normalise_rewards: bool = False
    """Divide rewards by the running deviation of the discounted return (VariBAD: yes)."""
    chunk: int = 0
    """Steps gradients flow back (truncated back-propagation through time); 0 for the whole trial."""
    threads: int = 1
    """Threads, of no more cores than are idle; results repeat for a fixed number."""

    def __post_init__(self) -> None:
        check_range(self, "epochs", "minibatches", "threads", least=1)
        check_range(self, "clip", "step_size", "max_gradient_norm", above=0)
        check_range(self, "gamma", "gae_lambda", least=0, most=1)
        check_range(self, "halve_every", "chunk", "value_weight", "entropy_weight", least=0)


def annealed(settings: Set, iteration: int) -> Set:
    """The settings with the step size and the entropy bonus of an iteration."""
    left = 0.5 ** (iteration / settings.halve_every) if settings.halve_every else 1.0
    left = max(left, sys.float_info.min)  # after a thousand halvings it would be 0, which is no step size
    return replace(settings, step_size=settings.step_size * left, entropy_weight=settings.entropy_weight * left)
