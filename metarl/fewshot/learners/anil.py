"""ANIL (Raghu et al. 2020, "almost no inner loop"): MAML whose inner loop moves the head alone."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.fewshot.learners import maml
from metarl.fewshot.learners.maml import SHARED, load, train

__all__ = ["DEFAULTS", "SHARED", "Config", "load", "train"]

HEAD = "head.*"


@dataclass(frozen=True)
class Config(maml.Config):
    """Settings of ANIL: those of MAML (Raghu et al. 2020 keep them), with a still encoder."""

    moves: str = HEAD
    """Name patterns of the parameters that adapt (Raghu et al. 2020: the last layer)."""


_LAST = "2.*"  # the last layer of the sinusoid's perceptron
DEFAULTS = {
    name: Config(**{**vars(config), "moves": _LAST if name == "sinusoid" else HEAD})
    for name, config in maml.DEFAULTS.items()
}
