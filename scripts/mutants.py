"""Break the code on purpose, one line at a time, and see that a test fails.

Every mutant in mutants.toml says which file it breaks, how, and which test notices. The break is made in a copy of the
tree, never here. A mutant that no test catches survives: then the line it breaks is not tested.

    python scripts/mutants.py                # all; exit 1 if one survives
    python scripts/mutants.py kl damping     # those whose name holds one of the words
    python scripts/mutants.py --json results/mutants.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "scripts" / "mutants.toml"
TREE = ("metarl", "envs", "agents", "tests", "scripts", "results", "pyproject.toml", "README.md")
SECONDS = 300  # a mutant may send a loop round for ever; that is noticed too
FAILED = 1  # pytest's exit code where tests ran and one failed


@dataclass(frozen=True)
class Mutant:
    """One deliberate break.

    Attributes:
        name: what is broken, in words; unique.
        file: which file, from the root of the tree.
        old: text that stands in it exactly once.
        new: what takes its place.
        test: the pytest node that must fail.
    """

    name: str
    file: str
    old: str
    new: str
    test: str

    def broken(self) -> str:
        """The file's text with the break.

        Raises:
            SystemExit: the text to replace is not there exactly once.
        """
        text = (ROOT / self.file).read_text()
        if text.count(self.old) != 1:
            raise SystemExit(
                f"mutant {self.name!r}: its text stands {text.count(self.old)} times in {self.file}, not once"
            )
        return text.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """All of mutants.toml."""
    return [Mutant(**entry) for entry in tomllib.loads(LIST.read_text())["mutant"]]


def copy_tree(folder: Path) -> None:
    """The tree that is tested, its links as links."""
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source,
                folder / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.pt", "*.png", "*.gif"),
            )
        else:
            shutil.copy2(source, folder / name)


def run_tests(folder: Path, tests: list[str]) -> tuple[int | None, str]:
    """Exit code and output of pytest in a tree; the code is None where it took too long."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None, "took too long"
    return done.returncode, done.stdout + done.stderr


def verdict(mutant: Mutant) -> str:
    """Whether a test noticed: caught, survived, or why nothing can be said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder)
        (folder / mutant.file).write_text(mutant.broken())
        code, output = run_tests(folder, [mutant.test])
    if code in (FAILED, None):
        return "caught"
    return "survived" if code == 0 else f"says nothing: pytest ended with {code}: {output.strip().splitlines()[-1:]}"


def main() -> None:
    """Run the mutants, print a line each, exit 1 unless all are caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutants whose name holds one of these")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--json", type=Path, help="write the verdicts there")
    arguments = parser.parse_args()
    chosen = [m for m in mutants() if not arguments.words or any(word in m.name for word in arguments.words)]
    if not chosen:
        sys.exit("no mutant has such a name")
    for mutant in chosen:
        mutant.broken()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        copy_tree(Path(name))
        code, output = run_tests(Path(name), sorted({mutant.test for mutant in chosen}))
        if code != 0:
            sys.exit(f"the tests must pass before anything is broken:\n{output}")
    rows = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, said in zip(chosen, pool.map(verdict, chosen), strict=True):
            print(f"{said:9} {mutant.name}  ({mutant.file}; {mutant.test})", flush=True)
            rows.append({**asdict(mutant), "verdict": said})
    caught = sum(row["verdict"] == "caught" for row in rows)
    print(f"{caught} of {len(rows)} caught in {time.perf_counter() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps({"caught": caught, "mutants": rows}, indent=2) + "\n")
    sys.exit(caught < len(rows))


if __name__ == "__main__":
    main()
