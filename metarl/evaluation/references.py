"""Random behaviour and the oracle, made common to curves of one problem.

Two evaluations measure random behaviour with different noise, but one line must be drawn and one number
normalised with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.merging import with_known_tasks

REFERENCES = {"random": ("random",), "oracle": ("oracle", "ppo-oracle")}  # agents that may stand in, in this order


def with_common_references(curves: Sequence[AdaptationCurve]) -> list[AdaptationCurve]:
    """The curves with the same random and oracle score: the mean of those known. What one knows of the tasks, all do.

    Where none knows a reference, an agent that is one stands in for it (`REFERENCES`), unless it diverged.
    """
    curves = with_known_tasks(curves)
    common: dict[str, float | None] = {}
    for name, agents in REFERENCES.items():
        known = [value for curve in curves if (value := getattr(curve, name)) is not None]
        stand_ins = [
            float(curve.mean.mean())
            for agent in agents
            for curve in curves
            if curve.agent == agent and not curve.diverged.any()
        ]
        common[name] = float(np.mean(known)) if known else next(iter(stand_ins), None)
    return [dataclasses.replace(curve, random=common["random"], oracle=common["oracle"]) for curve in curves]
