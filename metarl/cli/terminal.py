"""What is said on the terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from metarl.errors import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

LONGEST = 4000  # letters of a line on stderr


def say(what: RenderableType) -> None:
    """Print on stdout; of text only what can be printed, wherever its words come from."""
    from rich.console import Console

    what = printable(what) if isinstance(what, str) else what
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 80  # a file or pipe has no width of its own
    Console(highlight=False, markup=False, soft_wrap=isinstance(what, str), width=width).print(what)


def complain(text: str) -> None:
    """Print one line on stderr."""
    from rich.console import Console

    line = " ".join(printable(text).split())
    line = line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"metarl: {line}")


def print_json(document: Any) -> None:
    """Print JSON on stdout."""
    say(json.dumps(document, indent=2))
