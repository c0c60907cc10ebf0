"""The words after `metarl` to the command they name.

A command is a file here: an options dataclass and a function. The options of a learner are the fields of its
`Config`, those of a family the fields of its dataclass; tyro turns them into flags, help and checks.
Torch, matplotlib and the environments load only when a command needs them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from metarl import interrupts
from metarl.allocator import keep_freed_memory, refusals_in_one_line
from metarl.cli.processes import complain_of_stop, complain_once, quiet, ranks_of
from metarl.cli.terminal import complain, say
from metarl.errors import MACHINE, NonFiniteError, UserError, of_machine, one_line, unknown
from metarl.ranks import DriftError, LostRankError, Ranks
from metarl.streams import lossy
from metarl.version import __version__

COMMANDS = {  # the function, given the words after the command's, returns the exit code
    "quickstart": (
        "metarl.cli.quickstart:quickstart",
        "train MAML-TRPO on 2D navigation, test on unseen goals, draw the curve",
    ),
    "list": ("metarl.cli.listing:list_things", "show families, agents or data sets"),
    "train": ("metarl.cli.train:train", "train an agent into a run folder"),
    "evaluate": (
        "metarl.cli.evaluate:evaluate",
        "measure the adaptation curve of a run, or of an agent that needs no training",
    ),
    "inspect": ("metarl.cli.inspect:inspect", "say what a folder of pictures holds, and which tasks can be made of it"),
    "predict": ("metarl.cli.predict:predict", "learn new classes from a few pictures each, and classify others"),
    "video": ("metarl.cli.video:video", "film an agent before and after adaptation, side by side"),
    "compare": (
        "metarl.cli.compare:compare",
        "compare evaluated runs of one problem: a figure, tables, intervals and p-values",
    ),
    "report": ("metarl.cli.report:report", "write one self-contained HTML page about runs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: words after `metarl`; those of the process by default.

    Returns:
        The exit code: 0; 1 where all is done but stdout took no words, such as a pipe that is closed; 2 after bad
        input or a failure of the machine (a full disk), 3 where a number became NaN or infinite (one line on stderr
        says what); 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with interrupts.raising(), _quiet_threads(), lossy() as stdout:
        try:
            code = _run(words)
            stdout.flush()
            if stdout.lost is None:
                return code
            if not isinstance(stdout.lost, BrokenPipeError):  # who closes a pipe, as `head` does, has read enough
                why = getattr(stdout.lost, "strerror", None) or one_line(stdout.lost)
                complain(f"not all that was said reached stdout: {why}")
            return code or 1
        except KeyboardInterrupt as stopped:
            with interrupts.ignoring():
                complain_of_stop(str(stopped) or "interrupted")
            return interrupts.exit_code(stopped)


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        say(_usage())
        return 0
    if words[0] == "--version":
        say(__version__)
        return 0
    try:
        if words[0] not in COMMANDS:
            raise unknown("command", words[0], COMMANDS)
        keep_freed_memory()
        ranks = ranks_of(words[0])
        with quiet(ranks), _warnings_in_one_line(ranks), refusals_in_one_line():
            return _command(words[0])(words[1:])
    except SystemExit as done:  # tyro has printed its help
        return int(done.code or 0)
    except (UserError, NonFiniteError) as error:
        complain_once(error)
        return 2 if isinstance(error, UserError) else 3
    except (LostRankError, DriftError) as error:
        complain(str(error))
        return 1
    except OSError as error:
        if error.errno not in MACHINE:
            raise
        complain(of_machine(error))
        return 2


def _command(name: str) -> Callable[[Sequence[str]], int]:
    module, _, function = COMMANDS[name][0].partition(":")
    command: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
    return command


@contextlib.contextmanager
def _warnings_in_one_line(ranks: Ranks) -> Iterator[None]:
    """Show each warning of ours as it comes, in one line, of rank 0 alone; those of others as ever."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category.__module__.startswith("metarl."):
                if ranks.leads:
                    complain(f"warning: {message}")
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = show
        warnings.filterwarnings("always", category=UserWarning, module=r"metarl\.")
        yield


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Keep a thread that writes (TensorBoard's) from printing what the main thread, which meets it too, says."""
    shown = threading.excepthook

    def show(told: threading.ExceptHookArgs) -> None:
        if not (isinstance(told.exc_value, OSError) and told.exc_value.errno in MACHINE):
            shown(told)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = shown


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items())
    return (
        f"usage: metarl COMMAND ...\n\n{rows}\n\nmetarl COMMAND --help shows its options; metarl --version the version."
    )
