"""How much sooner a second `metarl predict --encoder` is there, its features being on disk.

    python scripts/benchmark_features.py --pictures 1000 --json results/benchmarks/features.json

Both are whole processes of the command as typed, on pictures of noise, with the encoder of scripts/shipped_encoder.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import shipped_encoder
from PIL import Image

from metarl.files import write_atomically
from metarl.seeding import Key

TARGET = 10.0
SIDE = 96  # pixels


def pictures(folder: Path, count: int) -> None:
    """Ten pictures of two classes each to learn from, and so many to classify."""
    rng = Key(0)("benchmark", "features").numpy()
    names = [f"support/{label}/{i}.png" for label in "ab" for i in range(10)]
    for name in [*names, *(f"query/a/{i}.png" for i in range(count))]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / name)


def predict(folder: Path) -> float:
    """Seconds of one process."""
    scripts = str(Path(__file__).resolve().parent)
    words = ["--encoder", f"file:{shipped_encoder.weights()}", "--arch", "shipped_encoder:lite0"]
    words += ["--support", str(folder / "support"), "--query", str(folder / "query")]
    environment = os.environ | {"METARL_CACHE": str(folder / "cache"), "PYTHONPATH": scripts}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "metarl", "predict", *words], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - started


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pictures(Path(name), asked.pictures)
        first, second = predict(Path(name)), predict(Path(name))
    ratio = first / second
    print(f"{asked.pictures} pictures: {first:.1f} s, then {second:.1f} s: {ratio:.1f} times faster")
    if asked.json is not None:
        row = {
            "name": f"predict on {asked.pictures} pictures again",
            "value": second,
            "baseline": first,
            "ratio": ratio,
            "target": TARGET,
            "met": ratio >= TARGET,
            "load": os.getloadavg()[0],
        }
        write_atomically(asked.json, json.dumps({"rows": [row]}, indent=1).encode())


if __name__ == "__main__":
    main()
