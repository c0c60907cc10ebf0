"""Tables of their own that some tables of curves have, from the scores `(S, T, K+1)` of their first agent."""

from __future__ import annotations

import json

import numpy as np

from metarl.agents.baselines import Oracle, StandStill
from metarl.envs import make_family
from metarl.learning.contract import Budget
from reproduction.description import RESULTS
from reproduction.markdown import Rows


def navigation(scores: np.ndarray) -> tuple[tuple[str, ...], Rows]:
    """MAML-TRPO beside the authors' figures, standing still and the optimum, measured on the same goals."""
    family = make_family("metarl/Navigation2D-v0")
    tasks = family.fixed("test", scores.shape[1])

    def cells(values: np.ndarray) -> list[str]:
        return [f"{value:.2f}" for value in values]

    head = ("MAML-TRPO, mean return on unseen goals", "0 steps", "1 step", "2 steps", "3 steps")
    rows = [(f"seed {i}, 1,000 goals", *cells(seed.mean(0))) for i, seed in enumerate(scores)]
    rows.append(("**all seeds, 1,000 goals**", *cells(scores.mean((0, 1)))))
    rows.append(("all seeds, the first 40 goals", *cells(scores[:, :40].mean((0, 1)))))
    for name, agent in (("standing still", StandStill(family)), ("optimum", Oracle(family))):
        for n in (1000, 40):
            value = agent.curve(tasks[:n], Budget(0, 1), 0).values.mean()
            rows.append((f"{name}, {n:,} goals", f"{value:.2f}", "", "", ""))
    rows.append(("bar", "", "-11.7", "-4.0", "-3.7"))
    rows.append(("Finn et al. 2017, 40 goals (authors' result files)", "-40.41", "-11.68", "-3.33", "-3.23"))
    return head, rows


def sinusoid(scores: np.ndarray) -> tuple[tuple[str, ...], Rows]:
    """Error after 0, 1, 5 and 10 steps."""
    shown = (0, 1, 5, 10)
    head = ("mean squared error on 1,000 unseen waves", *(f"{k} steps" for k in shown))
    rows = [(f"seed {i}", *(f"{seed[:, k].mean():.3f}" for k in shown)) for i, seed in enumerate(scores)]
    rows.append(("**all seeds**", *(f"{scores[..., k].mean():.3f}" for k in shown)))
    rows.append(("bar", "", "0.4", "", ""))
    return head, rows


def lake(_: np.ndarray) -> tuple[tuple[str, ...], Rows]:
    """Lake's benchmark, as `scripts/lake.py` measured it last."""
    document = json.loads((RESULTS / "omniglot" / "lake.json").read_text())
    published = document["published_error_percent"]
    error, interval = document["error_percent"], f"[{document['ci_low']:.1f}, {document['ci_high']:.1f}]"
    head = ("Lake's 20 within-alphabet runs, error in %", "measured", "95 % interval over runs", "published")
    rows: Rows = [
        (
            f"{document['agent']}, batch norm: {document['batch_norm']}",
            f"{error:.2f}",
            interval,
            str(published["ProtoNet"]),
        ),
        ("modified Hausdorff", f"{document['hausdorff_error_percent']:.2f}", "", str(published["modified Hausdorff"])),
        ("people", "", "", str(published["people"])),
    ]
    return head, rows


EXTRAS = {"navigation": navigation, "sinusoid": sinusoid, "lake": lake}
