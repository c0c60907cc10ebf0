"""Tasks as plain data, task families, and the environments that run a batch of tasks at once.

A family is a distribution over decision problems that share their spaces. A task is data, not code:
named arrays such as `{"goal": (2,)}`, so it can be saved, hashed, shown to an oracle or sent to
another process. `Tasks` is a frozen batch of them with the task axis first.
"""

from metarl.tasks.contract import SPLITS, TERM, Family
from metarl.tasks.data import Array, Task, Tasks, Uniform
from metarl.tasks.family import FROZEN, TaskFamily
from metarl.tasks.single import TaskEnv
from metarl.tasks.vector import TaskVectorEnv

__all__ = [
    "FROZEN",
    "SPLITS",
    "TERM",
    "Array",
    "Family",
    "Task",
    "TaskEnv",
    "TaskFamily",
    "TaskVectorEnv",
    "Tasks",
    "Uniform",
]
