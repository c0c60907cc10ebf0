"""How long files and functions are: median, 90th percentile and the longest, of this tree and of revisions.

    python scripts/measure_house.py [REVISION ...]

The package's own files only (metarl/, envs/, agents/); a function's lines include its docstring, not its decorators.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("metarl", "envs", "agents")


def of_tree() -> dict[str, str]:
    """Every file of the working tree with its text; what lies behind the symlinks counts once."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}


def of_revision(revision: str) -> dict[str, str]:
    """Every file of a revision with its text, read from git."""
    names = _git("ls-tree", "-r", "--name-only", revision, *FOLDERS).splitlines()
    return {name: _git("show", f"{revision}:{name}") for name in names if name.endswith(".py")}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def functions(texts: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Lines and name of every function and method."""
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{name}:{node.name}"


def summary(lengths: list[tuple[int, str]]) -> str:
    """Count, median, 90th percentile and the longest with its name."""
    counts = sorted(count for count, _ in lengths)
    longest, name = max(lengths)
    p90 = statistics.quantiles(counts, n=10, method="inclusive")[-1]
    return f"{len(counts):5} {statistics.median(counts):7.0f} {p90:5.0f} {longest:8}  {name}"


def main() -> None:
    """Print a table."""
    trees = {revision: of_revision(revision) for revision in sys.argv[1:]} | {"this tree": of_tree()}
    width = max(map(len, trees))
    print(f"{'':{width}}            count  median   p90  longest")
    for revision, texts in trees.items():
        files = [(len(text.splitlines()), name) for name, text in texts.items()]
        print(f"{revision:{width}} files     {summary(files)}")
        print(f"{'':{width}} functions {summary(list(functions(texts)))}")


if __name__ == "__main__":
    main()
