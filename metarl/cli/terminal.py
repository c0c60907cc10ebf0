"""What is said on the terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


def say(what: RenderableType) -> None:
    """Print on stdout."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 80  # a file or pipe has no width of its own
    Console(highlight=False, markup=False, soft_wrap=isinstance(what, str), width=width).print(what)


def complain(text: str) -> None:
    """Print one line on stderr."""
    from rich.console import Console

    line = " ".join(text.split())
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"metarl: {line}")


def print_json(document: Any) -> None:
    """Print JSON on stdout."""
    say(json.dumps(document, indent=2))
