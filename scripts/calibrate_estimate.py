"""How well `FewShotClassifier.estimate` foretells accuracy: over test episodes of committed runs.

    python scripts/calibrate_estimate.py --episodes 1000 --json results/estimate/calibration.json

Each episode's estimate sees its support images alone, and is compared with the accuracy on its query images, which is
itself known to some points only. `covered`: how often the interval holds that accuracy. With one image a class nothing
can be held out; the figure then is the mean over validation tasks, the same for every episode.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl import registry
from metarl.fewshot.estimate import estimate, held_out
from metarl.files import write_atomically
from metarl.learning.contract import Budget

RUNS = ("results/glyphs/runs/protonet-0", "results/omniglot/runs/protonet-0", "results/cifar-fs/runs/protonet-0")
QUERIES = {"glyphs": 7}  # 12 images a class
TOGETHER = 256  # images


def episodes(run: str, shots: int, count: int) -> dict[str, Any]:
    """The row of a run at so many shots."""
    opened = registry.open_run(run)
    source: Any = replace(opened.source, shots=shots, queries=QUERIES.get(opened.source.name, 15))
    agent: Any = opened.load()
    tasks = source.fixed("test", count)
    rows = []
    before = None
    if shots == 1:
        values = agent.curve(source.fixed("validation", 100), Budget(), 0).values[:, -1]
        before = (float(values.mean()), *map(float, np.quantile(values, [0.025, 0.975])))
    support, query = _features(agent.network, source, tasks)
    labels = (torch.from_numpy(tasks.arrays[f"{part}_label"]) for part in ("support", "query"))
    for s, q, y, true in zip(support, query, *labels, strict=True):
        rows.append(_episode(agent.network, s, y, q, true, source.ways, before))
    said, low, high, real = np.array(rows).T
    error = np.abs(said - real)
    return {
        "run": run,
        "problem": f"{source.name}, {source.ways}-way {shots}-shot, {source.queries} queries a class",
        "episodes": count,
        "accuracy": real.mean(),
        "estimate": said.mean(),
        "mean_absolute_error": error.mean(),
        "covered": ((low <= real) & (real <= high)).mean(),
        "basis": "validation tasks" if before else "the support images alone, by folds",
    }


def _features(network: Any, source: Any, tasks: Any) -> list[torch.Tensor]:
    """Features `(T, S, F)` and `(T, R, F)` of all tasks, each image encoded once in each of its rotations."""
    a = tasks.arrays
    places = [
        4 * a[part] + np.take_along_axis(a["rotation"], a[f"{part}_label"], 1).astype(np.int64)
        for part in ("support", "query")
    ]
    each = np.unique(np.concatenate([place.ravel() for place in places]))
    made = []
    with torch.no_grad():
        for some in np.array_split(each, -(-len(each) // TOGETHER)):
            made.append(network.encoded(source.images.gather(some // 4, some % 4, "cpu")))
    features = torch.cat(made)
    return [features[torch.from_numpy(np.searchsorted(each, place))] for place in places]


def _episode(
    network: Any,
    support: torch.Tensor,
    labels: torch.Tensor,
    query: torch.Tensor,
    true: torch.Tensor,
    ways: int,
    before: tuple[float, ...] | None,
) -> tuple[float, float, float, float]:
    """Estimate, its interval, and the accuracy on the query images."""

    def judge(shown: Any, asked: Any) -> Any:
        return network.compare(support[shown][None], labels[shown][None], support[asked][None], ways)[0].exp().numpy()

    real = network.compare(support[None], labels[None], query[None], ways)[0].argmax(-1)
    accuracy = float((real == true).double().mean())
    if before is not None:
        return (*before[:3], accuracy)
    made = estimate(labels.numpy(), held_out(labels.numpy(), judge))
    assert made.accuracy is not None
    return made.accuracy, made.low, made.high, accuracy


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--runs", nargs="+", default=RUNS)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    for run in asked.runs:
        for shots in (1, 2, 5):
            rows.append(row := episodes(run, shots, asked.episodes))
            print(
                f"{row['problem']}: accuracy {row['accuracy']:.3f}, estimate {row['estimate']:.3f}, mean abs. error "
                f"{row['mean_absolute_error']:.3f}, covered {row['covered']:.1%} ({row['basis']})",
                flush=True,
            )
            if asked.json is not None:
                write_atomically(asked.json, json.dumps({"rows": rows}, indent=1).encode())


if __name__ == "__main__":
    main()
