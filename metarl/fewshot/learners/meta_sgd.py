"""Meta-SGD (Li et al. 2017): MAML that learns, with the initialisation, a step size for each of its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.fewshot.learners import maml
from metarl.fewshot.learners.maml import SHARED, load, train

__all__ = ["DEFAULTS", "SHARED", "Config", "load", "train"]


@dataclass(frozen=True)
class Config(maml.Config):
    """Settings of Meta-SGD: those of MAML with one inner step (Li et al. 2017); `inner_step_size` is not used."""

    step_sizes: Literal["learned"] = "learned"
    """Always learned, from U[0.005, 0.1] at first (Li et al. 2017, from memory)."""


DEFAULTS = {
    name: Config(**{**vars(config), "step_sizes": "learned", "inner_steps": 1})
    for name, config in maml.DEFAULTS.items()
    if name != "omniglot-20way"
}
