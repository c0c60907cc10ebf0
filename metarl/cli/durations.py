"""How long training by an agent's presets takes on 2 cores.

Minutes of the committed runs (results/*/runs/*/timings.jsonl, and the tables in results/*/README.md), scaled to the
preset's iterations; MAML-TRPO's on MuJoCo also from 20 tasks to 40. MuJoCo is the half-cheetah, `long` is between the
bandit of 100 pulls and the MDP of 10 episodes, cifar-fs is 5-shot. The machine is shared, so they are rough; it was
overloaded while ProMP trained, whose figure is too high; VariBAD's is processor time, R2-D2's and Meta-Baseline's
are ProtoNet's times the ratio of their first 60 iterations.
"""

from __future__ import annotations

from collections.abc import Mapping

MINUTES: dict[str, dict[str, float]] = {
    "maml-trpo": {"default": 3, "mujoco": 320},
    "promp": {"mujoco": 55},
    "rl2": {"navigation": 4, "bandit": 35, "long": 45, "mujoco": 26},
    "varibad": {"grid": 4},
    "ppo-pretrained": {"default": 1, "mujoco": 7},
    "ppo-scratch": {"default": 0.1, "mujoco": 0.1},
    "ppo-oracle": {"default": 1, "mujoco": 7},
    "maml": {"sinusoid": 4, "glyphs": 7, "omniglot": 390},
    "fomaml": {"glyphs": 4, "omniglot": 210},
    "anil": {"glyphs": 5, "omniglot": 200},
    "meta-sgd": {"glyphs": 18, "omniglot": 300},
    "reptile": {"glyphs": 3, "omniglot": 220},
    "protonet": {"glyphs": 4, "omniglot": 140, "cifar-fs": 120},
    "matchingnet": {"glyphs": 4, "omniglot": 180},
    "r2d2": {"glyphs": 5},
    "meta-baseline": {"glyphs": 5},
    "centroid": {"glyphs": 1, "omniglot": 19},
    "logistic": {"glyphs": 1, "omniglot": 19},
    "baseline": {"glyphs": 1, "omniglot": 19},
    "baseline++": {"glyphs": 1, "omniglot": 27},
}


def spoken(minutes: float) -> str:
    """A duration in words."""
    if minutes < 1:
        return "under a minute"
    return f"{minutes:g} min" if minutes < 90 else f"{minutes / 60:.0f} h"


def durations(agent: str) -> str:
    """How long each preset takes, as far as it was measured."""
    known: Mapping[str, float] = MINUTES.get(agent, {})
    return ", ".join(f"{name} {spoken(minutes)}" for name, minutes in known.items())
