"""`metarl ...`: the command line, a file a command; `main` runs one."""

from metarl.cli.dispatch import main

__all__ = ["main"]
