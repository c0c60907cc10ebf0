"""One process writes into a run folder: a lock that dies with it.

The lock is `flock` on a file `.lock` in the folder, kept open; the file says who has it. What `flock` gives:

- The system lets go of it when the process ends, however it ends. A copied or left-over file locks nothing.
- Linux takes it over NFS (3 with lockd, 4) to the server, as a lock on the whole file, so that machines see one
  another; mounts with `nolock` or `local_lock` keep it to one machine. A file system without locks is said, and the
  work goes on.
- It belongs to the open file. POSIX's locks (`fcntl`) belong to the process, and go when it closes any descriptor of
  the file: a callback that copies the folder would let go of it.
- A forked child has the open file too, and would keep the lock alive: it closes it. A program that is started does not
  get it.

Within one process the lock is everybody's, but for the time of a training loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metarl.errors import UserError, shown

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = ".lock"
TRIES, PAUSE = 10, 0.02  # how often it is tried, and seconds between: others look at a lock, or remove its file
LONGEST = 1000  # bytes that a lock's file says


class LockWarning(UserWarning):
    """A run folder cannot be locked."""


_GUARD = threading.RLock()
_FILES: dict[Path, int] = {}  # descriptors of the locks of this process
_USERS: dict[Path, set[Lock]] = {}  # who needs them
_TRAINED: dict[Path, Lock] = {}  # whose training loop runs


class Lock:
    """This process is the one that writes into a folder, until it ends or `release` is called.

    Args:
        folder: of the run.

    Raises:
        UserError: another process is, or this one is training in it; or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = folder.resolve()
        self.acquire()

    def acquire(self) -> None:
        """Take it, if it has been released."""
        with _GUARD:
            if _TRAINED.get(self._place) is self:
                return
            _check_idle(self._folder, self._place)
            if self._place not in _FILES:
                _FILES[self._place] = _locked(self._folder)
            _USERS.setdefault(self._place, set()).add(self)

    def release(self) -> None:
        """Let other processes write, unless this one has more to do there."""
        with _GUARD:
            users = _USERS.get(self._place, set())
            if self not in users:
                return
            users.remove(self)
            if not users:
                _unlock(self._place, _FILES.pop(self._place))

    def begin(self) -> None:
        """A training loop begins.

        Raises:
            UserError: another one of this process runs in the folder.
        """
        with _GUARD:
            self.acquire()
            _TRAINED[self._place] = self

    def end(self) -> None:
        """The training loop ends, and with it the lock; what is written later takes it again."""
        with _GUARD:
            if _TRAINED.get(self._place) is self:
                del _TRAINED[self._place]
            self.release()


def check_free(folder: Path) -> None:
    """Raise UserError where a `Lock` would, so far as one can tell without writing anything."""
    place = folder.resolve()
    with _GUARD:
        _check_idle(folder, place)
        if place in _FILES or fcntl is None:
            return
        try:
            file = os.open(place / NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(folder, file) from None
        except OSError:
            return
        finally:
            os.close(file)


def _check_idle(folder: Path, place: Path) -> None:
    if place in _TRAINED:
        raise UserError(f"{folder} is being trained by this very process; wait until it is done")


def _unlock(place: Path, file: int) -> None:
    """Remove a lock's file, unless it is another one by now, and close it."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(file), (place / NAME).stat()):
            (place / NAME).unlink()
    os.close(file)


def _locked(folder: Path) -> int:
    """The descriptor of a lock's file that is locked."""
    if fcntl is None:
        return _unlocked(folder, "this system has no such locks")
    path = folder / NAME
    refusal = UserError(f"cannot lock {path}: others remove it again and again")
    for _ in range(TRIES):
        try:
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if path.is_symlink():  # never written through
                path.unlink(missing_ok=True)
                continue
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(file)
            if not stat.S_ISREG(mine.st_mode) or mine.st_nlink > 1:  # somebody's, under our name
                path.unlink(missing_ok=True)
            elif path.exists() and os.path.samestat(mine, path.stat()):  # else it has been removed meanwhile
                _sign(file)
                return file
        except BlockingIOError:
            refusal = _refusal(folder, file)
            time.sleep(PAUSE)
        except OSError as error:
            os.close(file)
            return _unlocked(folder, str(error.strerror))
        os.close(file)
    raise refusal


def _unlocked(folder: Path, why: str) -> int:
    warnings.warn(
        f"{folder} cannot be locked ({why}): see to it that no other process trains there", LockWarning, stacklevel=4
    )
    return os.open(os.devnull, os.O_RDONLY)


def _sign(file: int) -> None:
    """Write into a lock's file who has it."""
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
    with contextlib.suppress(OSError):  # a full disk, say: the lock holds all the same
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(who).encode() + b"\n", 0)


def _refusal(folder: Path, file: int) -> UserError:
    try:
        who = json.loads(os.pread(file, LONGEST, 0))
        host, since = (shown(str(who[name])).strip("'") for name in ("host", "since"))
        whom = f"process {int(who['pid'])} on {host} since {since}"
        gone = "" if host == socket.gethostname() else f" (if that host is gone for good, remove {folder / NAME})"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        whom, gone = "another process", ""
    return UserError(f"{folder} is being trained by {whom}; wait until it is done, or stop it{gone}")


def _forked() -> None:
    """In a forked child: the lock is its parent's alone."""
    global _GUARD
    _GUARD = threading.RLock()  # some thread of the parent's may have had it
    for file in _FILES.values():
        os.close(file)
    for each in (_FILES, _USERS, _TRAINED):
        each.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
