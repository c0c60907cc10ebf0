"""What the solvers of bandits and of MDPs share: tasks played in parts, with streams named by the task's place."""

from __future__ import annotations

from collections.abc import Iterator

from metarl.seeding import Key, Rows
from metarl.tasks import Tasks


def in_parts(tasks: Tasks, size: int) -> Iterator[Tasks]:
    """The tasks, at most `size` at a time; what is played does not depend on it."""
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]


def choice_streams(tasks: Tasks, trials: int, key: Key) -> Rows:
    """The randomness of choices in `trials` trials of each task, one stream a task, a row a trial."""
    return Rows([key("choice", *tasks.place(t)).numpy() for t in range(len(tasks))], trials)
