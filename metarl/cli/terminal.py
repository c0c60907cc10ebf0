"""What is said on the terminal."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def say(what: str | Table) -> None:
    """Print on stdout."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120  # a file or pipe has no width of its own
    Console(highlight=False, markup=False, soft_wrap=isinstance(what, str), width=width).print(what)


def complain(text: str) -> None:
    """Print one line on stderr."""
    from rich.console import Console

    line = " ".join(text.split())
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"metarl: {line}")


def print_json(document: Any) -> None:
    """Print JSON on stdout."""
    say(json.dumps(document, indent=2))
