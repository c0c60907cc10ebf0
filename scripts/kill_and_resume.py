"""Kill a training run with SIGKILL at random moments, resume it, compare it with an uninterrupted one.

Each round trains the same run twice, through the command line: once undisturbed, once killed and
resumed until it is done. metrics.jsonl and every parameter must be equal bit for bit.

    python scripts/kill_and_resume.py --rounds 20
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from metarl.runs.run import Run

METARL = str(Path(sys.executable).with_name("metarl"))
OPTIONS = ["--iterations", "12", "--tasks", "4", "--episodes", "5", "--hidden", "16", "--checkpoint-every", "2"]
COMMAND = [
    METARL,
    "train",
    "maml-trpo",
    "--family",
    "metarl/Navigation2D-v0",
    "--seed",
    "1",
    "--threads",
    "1",
    *OPTIONS,
]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Begin or resume the run in `folder`."""
    resume = ["--resume"] if folder.exists() else []
    return subprocess.Popen([*COMMAND, "--out", str(folder), *resume], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def killed_run(folder: Path, moments: random.Random, longest: float) -> int:
    """Kill and resume until the run is done; how often it was killed."""
    kills = 0
    while True:
        process = start(folder)
        try:
            # Most of a short process is its start: three kills at most, then let it finish.
            process.wait(timeout=moments.uniform(0, longest) if kills < 3 else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        if process.returncode != 0:
            raise SystemExit(f"resuming failed: {process.communicate()[1].decode()}")
        return kills


def main() -> None:
    """Rounds of killing; exit 1 on the first difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        reference = Path(name) / "reference"
        began = time.perf_counter()
        start(reference).communicate()
        longest = time.perf_counter() - began
        expected, state = (reference / "metrics.jsonl").read_bytes(), Run.open(reference).restore()
        total = 0
        for i in range(arguments.rounds):
            folder = Path(name) / f"killed-{i}"
            kills = killed_run(folder, random.Random(i), longest)
            total += kills
            restored = Run.open(folder).restore()
            assert state is not None
            assert restored is not None
            same = all(torch.equal(restored[1]["params"][n], value) for n, value in state[1]["params"].items())
            equal = same and (folder / "metrics.jsonl").read_bytes() == expected
            print(f"round {i + 1}: killed {kills} times, {'equal' if equal else 'DIFFERENT'}", flush=True)
            if not equal:
                raise SystemExit(1)
        print(f"{arguments.rounds} of {arguments.rounds} equal, {total} kills")


if __name__ == "__main__":
    main()
