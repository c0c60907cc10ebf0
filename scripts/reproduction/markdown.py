"""Tables and closing lines of the READMEs of results/."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence

import torch

from reproduction.description import ROOT

Rows = list[tuple[str, ...]]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, and an empty one."""
    return ["|" + "|".join(head) + "|", "|" + "---|" * len(head), *("|" + "|".join(row) + "|" for row in rows), ""]


def provenance(concurrent: str = "") -> str:
    """On what, with what and when."""
    head_of_tree = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head_of_tree, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return (
        f"Training time is wall-clock on {os.cpu_count()} shared cores ({platform.processor() or platform.machine()}), "
        f"{concurrent}validation and evaluation not counted. "
        f"torch {torch.__version__}, Python {platform.python_version()}, commit {commit}, "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}."
    )
