"""Which named defaults of a learner fit a family or data set.

A learner may have `DEFAULTS`, configs by name. Without a choice of the user's, the preset is the one named as the
problem is: `mujoco`, `navigation`, `bandit` and `long` for task families (see `kind_of`), a data set's name for a data
set; or what the learner's own `preset_for(source)` says. Where there is none of that name it is `default`, which is
`Config()` unless the learner says otherwise. `PURPOSES`, texts by name, says what the others are for.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from gymnasium.spaces import Box

from metarl.tasks import TaskFamily

DEFAULT, PICTURES = "default", "folder"
BODY = 8  # numbers of an observation from which on a family with continuous actions counts as one of bodies
SHORT_TRIAL, LONG_TRIAL = 25, 200  # steps
PURPOSES = {
    DEFAULT: "any other problem",
    "mujoco": f"bodies: continuous actions, observations of {BODY} numbers or more",
    "navigation": f"points and other small problems: continuous actions, or trials beyond {LONG_TRIAL} steps",
    "bandit": f"a choice among few: trials of up to {SHORT_TRIAL} steps",
    "transformer": f"a choice among few: trials of up to {SHORT_TRIAL} steps, with a transformer as memory",
    "long": f"a choice among few: trials of {SHORT_TRIAL + 1} to {LONG_TRIAL} steps",
    "mdp": "tabular MDPs by the published batches, 240,000 steps an update: hours",
    "paper": "the published settings",
    "omniglot-20way": "data set omniglot, 20 ways; has to be named",
    "mini-imagenet-5shot": "data set mini-imagenet, 5 shots; has to be named",
}


def kind_of(source: Any) -> str:
    """What kind of problem a family is, by its spaces and the steps of a trial; of a data set, its name.

    A trial has the family's own number of episodes, or 2.
    """
    if not isinstance(source, TaskFamily):
        return str(source.name)
    small = math.prod(source.observation_space.shape or (1,)) < BODY
    if isinstance(source.action_space, Box):
        return "navigation" if small else "mujoco"
    steps = source.horizon * getattr(source, "episodes", 2)
    return "bandit" if steps <= SHORT_TRIAL else "long" if steps <= LONG_TRIAL else "navigation"


def presets(learner: Any) -> dict[str, Any]:
    """The named configs of a learner; its `Config()` is `default`, unless it needs arguments or has a name already."""
    named, config = dict(getattr(learner, "DEFAULTS", {})), plain_config(learner)
    return named if config is None or DEFAULT in named or config in named.values() else {DEFAULT: config, **named}


def plain_config(learner: Any) -> Any | None:
    """The learner's `Config()`; None where that needs arguments."""
    unset = dataclasses.MISSING
    for field in dataclasses.fields(learner.Config):
        if field.init and field.default is unset and field.default_factory is unset:
            return None
    return learner.Config()


def preset_for(learner: Any, source: Any) -> str | None:
    """The name of the preset that fits a family or data set; None where the learner has none that could be meant.

    A data set that has none of its own is as a folder of pictures, where it has classes.
    """
    if hasattr(learner, "preset_for"):
        return str(learner.preset_for(source))
    named = presets(learner)
    kinds = [kind_of(source), *([PICTURES] if hasattr(source, "ways") else []), DEFAULT]
    if fitting := [kind for kind in kinds if kind in named]:
        return fitting[0]
    return next((name for name, config in named.items() if config == plain_config(learner)), None)


def purpose(learner: Any, name: str) -> str:
    """What a preset is for; otherwise it is named after a data set."""
    own = getattr(learner, "PURPOSES", {})
    return str(own.get(name) or PURPOSES.get(name) or f"data set {name}")
