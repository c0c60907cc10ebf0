"""Standard streams whose loss ends no work: a closed pipe, a full disk behind `>`, a terminal that is gone.

What a command is for are its files; words that nobody can hear must cost none of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Lossy:
    """A text stream that drops what cannot be written, from the first failure on.

    Args:
        stream: that is written to; None where the process was started without it (`>&-`).

    Attributes:
        lost: the failure; None while there was none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as we are
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        """Write, as far as it can be done; characters that the encoding lacks are escaped."""
        if self.lost is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            except (OSError, ValueError) as error:  # the second where the stream is closed
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered, as far as it can be done."""
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._stream.isatty()
        except (OSError, ValueError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: Exception) -> None:
        self.lost = error
        if isinstance(error, OSError):
            with contextlib.suppress(OSError, ValueError):  # so that nothing is left to fail when the process ends
                descriptor, devnull = self._stream.fileno(), os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, descriptor)
                os.close(devnull)


@contextlib.contextmanager
def lossy() -> Iterator[Lossy]:
    """Have stdout, which is given, and stderr drop what cannot be written."""
    for descriptor in (0, 1, 2):  # where one is closed, the next file that is opened would get what is said
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    stdout: Any = Lossy(sys.stdout)
    stderr: Any = Lossy(sys.stderr)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield stdout
