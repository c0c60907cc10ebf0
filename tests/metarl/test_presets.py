"""Which named defaults fit which problem, and what is said about them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st

from metarl import registry
from metarl.cli.durations import MINUTES, durations, spoken
from metarl.learning.presets import BODY, LONG_TRIAL, SHORT_TRIAL, kind_of, plain_config, preset_for, presets, purpose
from metarl.tasks import TaskFamily

BODIES = [name for name in registry.families() if any(body in name for body in ("Cheetah", "Ant", "Human", "Params"))]
ACTING = [name for name, entry in registry.agents().items() if entry.source == "family"]


@dataclass(frozen=True)
class Family(TaskFamily):
    """A user's, as far as its shapes go."""

    name = "mine/Shapes-v0"
    presets = ("mine",)
    preset: str = "mine"
    observation_space: Any = None
    action_space: Any = None
    horizon: int = 10  # type: ignore[assignment]

    def draw(self, n: int, uniform: Any, split: str) -> Any: ...
    def make_vec(self, tasks: Any, replicas: int = 1, *, threads: int = 1) -> Any: ...


def family(n: int, actions: Any, horizon: int) -> Family:
    return Family(observation_space=Box(-1, 1, (n,)), action_space=actions, horizon=horizon)


def test_rl2_takes_what_fits_each_family() -> None:
    fits = {name: preset_for(registry.learner("rl2"), registry.make_source(name, {})) for name in registry.families()}
    assert fits == {
        "metarl/Navigation2D-v0": "navigation",
        "metarl/GridNavigation-v0": "long",
        "metarl/BernoulliBandit-v0": "bandit",
        "metarl/GaussianBandit-v0": "bandit",
        "metarl/TabularMDP-v0": "long",
        **dict.fromkeys(BODIES, "mujoco"),
    }
    pulls = registry.make_source("metarl/BernoulliBandit-v0", {"pulls": 100})
    assert preset_for(registry.learner("rl2"), pulls) == "long"


@pytest.mark.parametrize("name", ["maml-trpo", "promp", "ppo-pretrained", "ppo-scratch", "ppo-oracle"])
def test_agents_with_one_preset_for_bodies_take_their_default_elsewhere(name: str) -> None:
    learner = registry.learner(name)
    for of in registry.families():
        assert preset_for(learner, registry.make_source(of, {})) == ("mujoco" if of in BODIES else "default")


@pytest.mark.parametrize("name", ACTING)
@given(n=st.integers(1, 40), actions=st.none() | st.integers(2, 9), horizon=st.integers(1, 1000))
def test_every_family_has_a_preset_of_every_agent(name: str, n: int, actions: int | None, horizon: int) -> None:
    learner = registry.learner(name)
    users = family(n, Box(-1, 1, (3,)) if actions is None else Discrete(actions), horizon)
    assert preset_for(learner, users) in presets(learner)
    bound = learner.Config.__dataclass_fields__.get("trials")
    if bound and actions is not None and horizon * 2 > LONG_TRIAL:
        assert presets(learner)[preset_for(learner, users) or ""].trials <= 40  # an update ends within the hour


@pytest.mark.parametrize(
    ("users", "kind"),
    [
        (family(BODY, Box(-1, 1, (2,)), 1), "mujoco"),
        (family(BODY - 1, Box(-1, 1, (2,)), 1000), "navigation"),
        (family(40, Discrete(2), SHORT_TRIAL // 2), "bandit"),
        (family(1, Discrete(2), SHORT_TRIAL // 2 + 1), "long"),
        (family(1, Discrete(2), LONG_TRIAL // 2), "long"),
        (family(1, Discrete(2), LONG_TRIAL // 2 + 1), "navigation"),
        (replace(family(1, Discrete(2), 3), observation_space=Discrete(4)), "bandit"),
        (replace(family(1, Box(-1, 1, (1,)), 3), observation_space=MultiDiscrete([3] * BODY)), "mujoco"),
    ],
)
def test_kinds_of_families(users: Family, kind: str) -> None:
    assert kind_of(users) == kind


@pytest.mark.parametrize("name", registry.agents())
def test_a_data_set_takes_its_own_preset_and_others_that_of_pictures(name: str) -> None:
    learner = registry.learner(name)
    named = presets(learner)
    if name in ACTING:
        return
    for dataset in registry.datasets():
        source = SimpleNamespace(name=dataset, **({} if dataset == "sinusoid" else {"ways": 5}))
        if dataset in named:
            assert preset_for(learner, source) == dataset
        elif dataset != "sinusoid":
            raise AssertionError(f"{name} has no preset for {dataset}")
    assert preset_for(learner, SimpleNamespace(name="birds", ways=5)) == "folder"


def test_the_learner_s_own_word_comes_first() -> None:
    @dataclass(frozen=True)
    class Config:
        size: int = 1

    @dataclass(frozen=True)
    class Needy:
        size: int

    users = family(1, Discrete(2), 3)
    learner = SimpleNamespace(Config=Config, DEFAULTS={"small": Config(), "large": Config(9)})
    assert (list(presets(learner)), preset_for(learner, users)) == (["small", "large"], "small")
    learner.preset_for = lambda source: "large"
    assert preset_for(learner, users) == "large"
    bare = SimpleNamespace(Config=Config)
    assert (presets(bare), preset_for(bare, users)) == ({"default": Config()}, "default")
    needy = SimpleNamespace(Config=Needy)
    assert (presets(needy), preset_for(needy, users), plain_config(needy)) == ({}, None, None)
    assert purpose(SimpleNamespace(PURPOSES={"large": "whales"}), "large") == "whales"


@pytest.mark.parametrize("name", registry.agents())
def test_every_preset_says_what_it_is_for(name: str) -> None:
    learner = registry.learner(name)
    for preset in presets(learner):
        said = purpose(learner, preset)
        assert not said.startswith("data set ") or re.split("[ ,;]", said)[2] in registry.datasets(), said


def test_durations_are_of_presets_that_exist() -> None:
    assert MINUTES.keys() <= registry.agents().keys()
    for name, minutes in MINUTES.items():
        assert minutes.keys() <= presets(registry.learner(name)).keys()
        assert all(value > 0 for value in minutes.values())
    assert durations("rl2") == "navigation 4 min, bandit 35 min, long 45 min, mujoco 26 min"
    assert [spoken(value) for value in (0.1, 1, 89, 90, 320)] == ["under a minute", "1 min", "89 min", "2 h", "5 h"]
