"""Lake's one-shot benchmark for a trained run: python scripts/lake.py RUN [--json FILE].

Prints the error over the 20 official within-alphabet runs beside the benchmark's own baseline and the
published figures. Train on the alphabets that the runs do not use:

    metarl train protonet --dataset omniglot --preset lake --out RUN
    python scripts/lake.py RUN --json lake.json
"""

import argparse
import sys
from pathlib import Path

from metarl.errors import UserError
from metarl.evaluation.statistics import bootstrap
from metarl.evaluation.storage import dump_json
from metarl.fewshot.datasets import lake
from metarl.fewshot.loading import load_run
from metarl.files import write_atomically
from metarl.runs.run import Run

# Lake et al. 2015 and 2019, both from memory, and the official script
PUBLISHED = {"people": 4.5, "ProtoNet": 13.7, "modified Hausdorff": 38.8}


def measure(folder: Path, data_root: Path | None) -> dict[str, object]:
    """The errors of a run and of the baseline, per cent.

    Raises:
        UserError: the run cannot take part, or the official runs are missing.
    """
    run = Run.open(folder)
    preset = run.source["options"].get("preset")
    if run.source["name"] == "omniglot" and preset != "lake":
        raise UserError(
            f"{folder} was trained on omniglot's {preset} classes, some of which are in Lake's runs: use --preset lake"
        )
    run, learner = load_run(folder)
    shape = learner.source.preparation.image_shape
    if shape != lake.PREPARATION.image_shape:
        raise UserError(f"{folder} takes images of shape {shape}; Lake's drawings are {lake.PREPARATION.image_shape}")
    runs = lake.load(data_root)
    errors = runs.errors(lambda batch: learner.log_probabilities(batch, lake.WAYS).argmax(-1))
    spread = bootstrap(errors[None, :, None])
    return {
        "version": 1,
        "run": str(folder),
        "agent": run.learner,
        "dataset": run.source,
        "seed": run.seed,
        "batch_norm": learner.network.batch_norm,
        "error_percent": float(errors.mean()),
        "ci_low": float(spread.low[0]),
        "ci_high": float(spread.high[0]),
        "per_run": errors.tolist(),
        "hausdorff_error_percent": float(runs.hausdorff_errors().mean()),
        "published_error_percent": PUBLISHED,
    }


def main() -> int:
    """Print and perhaps write the errors; 2 after bad input, with one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a few-shot run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the errors here too")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder that holds omniglot/all_runs.zip")
    options = parser.parse_args()
    try:
        measured = measure(options.run, options.data_root)
        if options.json is not None:
            write_atomically(options.json, dump_json(measured).encode())
    except UserError as error:
        print(f"lake.py: {error}", file=sys.stderr)
        return 2
    print(
        f"{measured['agent']}: {measured['error_percent']:.1f} % error "
        f"[{measured['ci_low']:.1f}, {measured['ci_high']:.1f}] over 20 "
        f"within-alphabet runs of 20-way 1-shot; batch norm: {measured['batch_norm']}"
    )
    print(f"modified Hausdorff distance, measured here: {measured['hausdorff_error_percent']:.1f} %")
    print("published: " + ", ".join(f"{name} {value} %" for name, value in PUBLISHED.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
