"""The engine against Gymnasium's own environments, its resets, its threads, and its broken simulations."""

import importlib.metadata
import sys
import types

import numpy as np
import pytest

from metarl.envs import make_family
from metarl.seeding import Key

STEPS = 600
WITHOUT_CONTACTS = {"include_cfrc_ext_in_observation": False}
TWINS = {  # family: Gymnasium's class, the options that make it observe the same
    "metarl/HalfCheetahVelocity-v0": ("half_cheetah_v5.HalfCheetahEnv", {}),
}


@pytest.fixture
def gymnasium_twin(monkeypatch):
    """Gymnasium's environments; their package imports imageio, which only their windows use."""
    if "imageio" not in sys.modules and not any(d.name == "imageio" for d in importlib.metadata.distributions()):
        monkeypatch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))

    def make(where, options):
        module, attribute = where.split(".")
        return getattr(importlib.import_module(f"gymnasium.envs.mujoco.{module}"), attribute)(**options)

    return make


def ragged_actions(n, size, steps=STEPS):
    """Actions beyond and within the bounds, and which environments are reset before each step."""
    rng = Key(3)("actions", n, size).numpy()
    return np.clip(rng.normal(0, 0.8, (steps, n, size)), -1, 1), rng.random((steps, n)) < 0.01


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", TWINS)
def test_observations_equal_gymnasiums_bit_for_bit(name, threads, gymnasium_twin):
    family = make_family(name)
    env = family.make_vec(family.fixed("train", 3), 1, threads=threads)
    twins = [gymnasium_twin(*TWINS[name]) for _ in range(3)]
    actions, resets = ragged_actions(3, family.action_space.shape[0])
    obs, _ = env.reset(seed=1)
    begun, ended = np.ones(3, dtype=bool), 0
    for action, reset in zip(actions, resets, strict=True):
        for i in np.flatnonzero(begun):
            twins[i].reset()
            twins[i].set_state(env.qpos[i].copy(), env.qvel[i].copy())
            np.testing.assert_array_equal(obs[i], twins[i]._get_obs())
        obs, _, terminated, truncated, _ = env.step(action)
        for i, twin in enumerate(twins):
            expected, _, gone, *_ = twin.step(env._bound * action[i])
            np.testing.assert_array_equal(obs[i], expected)
            if name != "metarl/AntGoal-v0":
                assert terminated[i] == gone
        ended += terminated.sum()
        begun = terminated | truncated | reset
        obs, _ = env.reset(options={"reset_mask": begun})
    assert ended > 0 or "HalfCheetah" in name
