"""What off-policy learning remembers: the last transitions of every training task, in rings of one size.

A checkpoint holds what is filled, so that a resumed training draws the very same batches; a small run stays small.
The rings are one tensor of `tasks x capacity` rows, no more and no less, which is all the memory they ever take.

Context comes from the same rings: of each task, the rows that were added when it was last visited
(`Replay.renew_context`). It is recent, so that it looks as what the present policy collects on a new task, while the
batches learned from reach back as far as the rings do (Rakelly et al. 2019, section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.errors import UserError
from metarl.runs.tensor_file import LARGEST

ROOM = 1 << 28  # bytes of a checkpoint that are left to networks and optimisers


@dataclass(frozen=True)
class Batch:
    """Transitions of M tasks, n of each."""

    obs: Tensor  # (M, n, O)
    actions: Tensor  # (M, n, A)
    rewards: Tensor  # (M, n)
    next_obs: Tensor  # (M, n, O)
    terminated: Tensor  # (M, n), 1 where the next state is terminal

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


def width(observation: int, action: int) -> int:
    """Numbers of a transition as `metarl.sampling.latent_episodes.transitions` says them."""
    return 2 * observation + action + 2


def replay_bytes(tasks: int, capacity: int, observation: int, action: int) -> int:
    """Memory of the rings, and of a checkpoint once they are full."""
    return 4 * tasks * capacity * width(observation, action)


class Replay:
    """Rings of transitions, one a task, on the CPU.

    Args:
        tasks: T.
        capacity: transitions a task that are kept; the oldest are replaced.
        observation: numbers of an observation, O.
        action: numbers of an action, A.

    Raises:
        UserError: full rings would not fit into a checkpoint.
    """

    def __init__(self, tasks: int, capacity: int, observation: int, action: int) -> None:
        if (need := replay_bytes(tasks, capacity, observation, action)) > LARGEST - ROOM:
            most = (LARGEST - ROOM) // replay_bytes(tasks, 1, observation, action)
            raise UserError(
                f"--capacity is {capacity}: {tasks} tasks of as many transitions are {need / 2**30:.1f} GiB, more than "
                f"a checkpoint can hold ({LARGEST >> 30} GiB); give at most {most}, or fewer --tasks"
            )
        self.capacity = capacity
        self._widths = [observation, action, 1, observation, 1]
        self._rows = torch.zeros(tasks, capacity, sum(self._widths))
        self._added = np.zeros(tasks, dtype=np.int64)  # rows ever
        self._context = np.zeros((tasks, 2), dtype=np.int64)  # the first of its rows and the one after the last

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, task: int, rows: Tensor) -> None:
        """Keep transitions `(n, W)` of a task, n up to the capacity.

        Raises:
            ValueError: they are more.
        """
        if len(rows) > self.capacity:
            raise ValueError(f"{len(rows)} transitions at once do not fit into a ring of {self.capacity}")
        places = (self._added[task] + np.arange(len(rows))) % self.capacity
        self._rows[task, torch.from_numpy(places)] = rows
        self._added[task] += len(rows)

    def renew_context(self, task: int, count: int) -> None:
        """Have the last `count` rows of a task be its context from now on."""
        self._context[task] = (self._added[task] - count, self._added[task])

    def sample(self, tasks: NDArray[np.int64], count: int, rng: np.random.Generator) -> Batch:
        """Transitions drawn with repeats from all that is kept of M tasks, `count` of each."""
        kept = np.minimum(self._added[tasks], self.capacity)
        rows = self._at(tasks, rng.integers(0, kept[:, None], (len(tasks), count)))
        obs, actions, rewards, next_obs, terminated = torch.split(rows, self._widths, -1)
        return Batch(obs, actions, rewards[..., 0], next_obs, terminated[..., 0])

    def context(self, tasks: NDArray[np.int64], count: int, rng: np.random.Generator) -> Tensor:
        """Context of M tasks, drawn with repeats: `(M, count, O + A + 1)`."""
        first, end = self._context[tasks].T
        drawn = rng.integers(first[:, None], end[:, None], (len(tasks), count))
        return self._at(tasks, drawn % self.capacity)[..., : sum(self._widths[:3])]

    def _at(self, tasks: NDArray[np.int64], places: NDArray[np.int64]) -> Tensor:
        return self._rows[torch.from_numpy(tasks)[:, None], torch.from_numpy(places)]

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: the filled rows of all tasks, in the order of their places."""
        kept = np.minimum(self._added, self.capacity).tolist()
        return {
            "rows": torch.cat([own[:n] for own, n in zip(self._rows, kept, strict=True)]),
            "added": torch.from_numpy(self._added.copy()),
            "context": torch.from_numpy(self._context.copy()),
        }

    def like(self) -> dict[str, Any]:
        """What a checkpoint's entries must look like (`Run.restore`): how many rows there are `load` sees to."""
        return {**self.state(), "rows": Tensor}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            UserError: it is of other rings.
        """
        added, context = state["added"], state["context"]
        kept = np.minimum(added.numpy(), self.capacity).tolist()
        same = added.shape == self._added.shape and context.shape == self._context.shape and added.min() >= 0
        filled = state["rows"]
        if not same or (filled.shape, filled.dtype) != ((sum(kept), self._rows.shape[2]), self._rows.dtype):
            raise UserError("the replay of the checkpoint does not fit this run's config: train it anew")
        for own, rows in zip(self._rows, torch.split(filled, kept), strict=True):
            own[: len(rows)] = rows
        self._added, self._context = added.numpy().copy(), context.numpy().copy()
