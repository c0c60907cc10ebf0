"""The version of what is installed, and the commit it runs from."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "metarl-suite"  # what pip installs; it imports as metarl
PATIENCE = 10.0  # s that git may take

try:
    __version__ = version(DISTRIBUTION)
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"


@cache
def commit() -> str | None:
    """The commit of the checkout that this code runs from, with a + where files differ from it; None outside of one."""
    return commit_of(Path(__file__).resolve().parent.parent)


def commit_of(checkout: Path) -> str | None:
    """The commit of a checkout's root, with a + where files differ from it; None elsewhere or without git."""
    if not (checkout / ".git").exists():
        return None
    try:
        head = _git(checkout, "rev-parse", "--short=12", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + "+" * bool(changed)


def _git(checkout: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(checkout), *words], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    return done.stdout.strip()
