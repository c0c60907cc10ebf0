"""Peak memory of the second-order meta-gradient at 1 and 10 inner steps: plain and memory-lean.

Each figure is the peak of a fresh process minus its idle size (everything imported and built, nothing
differentiated): Conv4 with 32 filters on 84x84 pictures, 5-way 5-shot, one task at a time.

The lean mode is measured twice: with glibc told to give freed blocks back at once
(`MALLOC_MMAP_THRESHOLD_=65536`), which shows what the computation holds, and with its defaults,
which add the holes that its heap happens to keep.

    python scripts/benchmark_memory.py --json results/benchmarks/memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from pathlib import Path

REPEATS = 3


def measure(mode: str, steps: int) -> None:
    """Print the peak in MiB; runs in a process of its own."""
    import torch
    import torch.nn.functional as F

    from metarl.fewshot.networks.backbones import Conv4, initialise
    from metarl.meta.inner import Rule
    from metarl.meta.outer import Plan, maml, meta_gradient
    from metarl.seeding import Key

    torch.set_num_threads(1)
    key = Key(0)
    encoder = Conv4(3, (84, 84), width=32)
    head = torch.nn.Linear(encoder.features, 5)
    network = torch.nn.Sequential(encoder, head)
    initialise(network, key("init").torch())
    params = {name: value.detach() for name, value in network.named_parameters()}
    images = torch.rand(1, 25, 3, 84, 84, generator=key("images").torch())
    labels = torch.arange(5).repeat(5)[None]

    def loss(values: dict[str, torch.Tensor], data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(torch.func.functional_call(network, values, (data[0],)), data[1])

    def query(values: dict[str, torch.Tensor], data: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, dict]:
        return loss(values, data), {}

    objective = maml(loss, query, Rule(0.01, steps), lean=mode == "lean")
    with torch.no_grad():
        loss(params, (images[0], labels[0]))  # libraries and thread pools are up before the idle size is read
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    meta_gradient(objective, {"model": params}, ((images, labels), (images, labels)), Plan("loop"))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024)


def peak(mode: str, steps: int, allocator: dict[str, str]) -> tuple[float, float]:
    """Median and spread of a few fresh processes, MiB."""
    command = [sys.executable, __file__, "--measure", mode, str(steps)]
    environment = {**os.environ, **allocator}
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(REPEATS)
    ]
    measured = [float(run.stdout) for run in runs]
    return statistics.median(measured), max(measured) - min(measured)


def main() -> None:
    """Compare 10 inner steps with 1 in both modes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("MODE", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], int(arguments.measure[1]))
        return
    rows = []
    returning = {"MALLOC_MMAP_THRESHOLD_": "65536"}
    settings = [
        ("lean", "freed blocks returned", returning, 1.3),
        ("lean", "default allocator", {}, 1.3),
        ("double backward", "freed blocks returned", returning, None),
    ]
    for mode, how, allocator, target in settings:
        (one, _), (ten, spread) = peak(mode, 1, allocator), peak(mode, 10, allocator)
        ratio = ten / one
        met = None if target is None else ratio <= target
        rows.append(
            {
                "name": f"peak memory, {mode}, {how}: 10 inner steps / 1 (MiB)",
                "value": ten,
                "baseline": one,
                "ratio": ratio,
                "target": target and f"<= {target}",
                "met": met,
                "repeats": REPEATS,
                "spread": spread,
            }
        )
        print(f"{mode}, {how}: {one:.0f} MiB at 1 step, {ten:.0f} MiB at 10, ratio {ratio:.2f}, met {met}")
    if arguments.json:
        import torch

        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        machine = f"{platform.machine()}, {platform.system()}"
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        document = {"machine": machine, "versions": versions, "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
