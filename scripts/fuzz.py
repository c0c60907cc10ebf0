"""Send generated inputs through every door of the command line: none may crash, run code, overwrite, hang or swell.

    python scripts/fuzz.py --inputs 10000 --seed 0 --json results/fuzz/fuzz.json
    python scripts/fuzz.py --repeat "options of train:0:17" --keep runs/again

Inputs come from hypothesis, seeded by --seed, so that the same command sends the same inputs. Each runs in a process
that may take 20 seconds and 2 GiB. What fails is listed with what repeats it. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

from fuzzing import kept
from fuzzing.doors import DOORS
from fuzzing.judge import FAULTS
from fuzzing.worker import BATCH, Tried, batch, to_json

COLUMNS = ("inputs", "refused", "accepted", *FAULTS)


def main() -> None:
    """Fuzz; exit 1 on any fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="in all, shared evenly by the doors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--doors", nargs="+", choices=DOORS, default=list(DOORS), metavar="DOOR", help=", ".join(DOORS))
    parser.add_argument("--json", type=Path, help="write counts, seeds and failing inputs here")
    parser.add_argument("--repeat", metavar="DOOR:SEED:INDEX", help="run one input again and say what became of it")
    parser.add_argument("--keep", type=Path, help="where the files of a repeated input stay")
    parser.add_argument("--verbose", action="store_true", help="print every input")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="metarl-fuzz-", ignore_cleanup_errors=True) as name:
        room = Path(name)
        kept.make(room / "kept")
        _load()
        if arguments.repeat:
            raise SystemExit(_repeat(arguments.repeat, room, arguments.keep))
        raise SystemExit(_fuzz(arguments, room))


def _fuzz(arguments: argparse.Namespace, room: Path) -> int:
    """All inputs, a table and a document."""
    began, before = time.perf_counter(), kept.digest(room / "kept")
    each = -(-arguments.inputs // len(arguments.doors))
    faults: list[Tried] = []
    rows: dict[str, Counter[str]] = {}
    print(f"{'door':32}", *(f"{column:>11}" for column in COLUMNS), flush=True)
    for door in arguments.doors:
        row = rows[door] = Counter()
        longest, largest, seed = 0.0, 0, arguments.seed
        while row["inputs"] < each:
            for tried in batch(door, seed, min(BATCH, each - row["inputs"]), room):
                row.update(["inputs", tried.verdict.kind])
                longest, largest = max(longest, tried.verdict.seconds), max(largest, tried.verdict.peak)
                faults += [tried] if tried.verdict.kind in FAULTS else []
                if arguments.verbose or tried.verdict.kind in FAULTS:
                    print(to_json(tried), flush=True)
            seed += 1
        now = kept.digest(room / "kept")
        if changed := [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]:
            row["overwritten"] += 1
            print(f"{door}: kept files changed: {changed[:8]}", flush=True)
        print(
            f"{door:32}",
            *(f"{row[column]:11}" for column in COLUMNS),
            f"{longest:.1f} s, {largest >> 20} MiB",
            flush=True,
        )
    total = sum(rows.values(), Counter())
    print(
        f"{'all':32}",
        *(f"{total[column]:11}" for column in COLUMNS),
        f"{time.perf_counter() - began:.0f} s",
        flush=True,
    )
    failed = any(total[fault] for fault in FAULTS)
    if arguments.json is not None:
        document = {
            "seed": arguments.seed,
            "machine": {"platform": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()},
            "seconds": round(time.perf_counter() - began),
            "doors": {door: {column: row[column] for column in COLUMNS} for door, row in rows.items()},
            "failing": [json.loads(to_json(tried)) for tried in faults],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(failed)


def _repeat(what: str, room: Path, keep: Path | None) -> int:
    door, seed, index = what.rsplit(":", 2)
    failed = 0
    for tried in batch(door, int(seed), BATCH, room, only=int(index)):
        print(json.dumps(tried.words))
        print(f"{tried.verdict.kind}, {tried.verdict.seconds:.2f} s, {tried.verdict.peak >> 20} MiB")
        print(tried.verdict.why)
        failed |= tried.verdict.kind in FAULTS
    if keep is not None:
        shutil.move(room / f"{door}-{seed}-{index}", keep)
    return int(failed)


def _load() -> None:
    """Load now what every process would load again, and would not have whole where an input is stopped in it."""
    import importlib
    import pkgutil

    import metarl
    from metarl.registry import agents, datasets, families

    for module in pkgutil.walk_packages(metarl.__path__, "metarl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for where in (*(entry.where for entry in agents().values()), *families().values(), *datasets().values()):
        importlib.import_module(where.partition(":")[0])


if __name__ == "__main__":
    main()
