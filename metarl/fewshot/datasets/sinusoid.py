"""Sinusoid regression (Finn et al. 2017, section 5.1): y = A sin(x - phase) from ten points.

Amplitude U[.1, 5], phase U[0, pi], inputs U[-5, 5]. A task carries its own support and query inputs, so
a frozen task is judged on the same points for ever.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from metarl.errors import UserError
from metarl.learning.contract import ScoreKind
from metarl.seeding import Key
from metarl.tasks import Tasks, Uniform

if TYPE_CHECKING:
    import torch

    from metarl.fewshot.batch import Batch


@dataclass(frozen=True)
class Sinusoid:
    """The distribution over sine waves; a task is `{"amplitude", "phase", "support_x", "query_x"}`."""

    name: ClassVar[str] = "sinusoid"
    kind: ClassVar[ScoreKind] = "mse"
    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test", "ood")
    unseen: ClassVar[bool] = True

    shots: int = 10
    """K, support points a task (Finn et al. 2017: 10)."""
    queries: int = 10
    """Query points a task (Finn et al. 2017: as many as support points)."""

    def __post_init__(self) -> None:
        for name in ("shots", "queries"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least 1")

    def draw(self, n: int, uniform: Uniform, split: str) -> Tasks:
        """Draw n tasks as a function of uniform numbers; ood has larger amplitudes, [5, 6]."""
        if split not in self.splits:
            raise ValueError(f"sinusoid has no split {split!r}; it has {', '.join(self.splits)}")
        u = uniform((n, 2 + self.shots + self.queries))
        low, high = (5.0, 6.0) if split == "ood" else (0.1, 5.0)
        points = 10 * u[:, 2:] - 5
        return Tasks(
            {
                "amplitude": low + (high - low) * u[:, 0],
                "phase": math.pi * u[:, 1],
                "support_x": points[:, : self.shots],
                "query_x": points[:, self.shots :],
            },
            split=split,
        )

    def sample(self, n: int, rng: np.random.Generator, split: str = "train") -> Tasks:
        """Draw n fresh tasks."""
        return self.draw(n, rng.random, split)

    def fixed(self, split: str, n: int) -> Tasks:
        """The first n of the split's frozen tasks."""
        key = Key(0)("fixed", self.name, json.dumps(self.options(), sort_keys=True), split)
        return Tasks.stack([self.draw(1, key(i).uniform, split)[0] for i in range(n)]).at(split)

    def options(self) -> dict[str, Any]:
        """Shots and queries."""
        return asdict(self)

    def batch(self, tasks: Tasks, device: torch.device | str = "cpu") -> Batch:
        """Inputs `(T, K, 1)` and targets `(T, K, 1)`, support and query, float32."""
        import torch  # no earlier than tensors are needed

        from metarl.fewshot.batch import Batch

        arrays = tasks.arrays
        amplitude, phase = arrays["amplitude"][:, None], arrays["phase"][:, None]

        def tensor(values: Any) -> torch.Tensor:
            return torch.from_numpy(np.asarray(values, np.float32)[..., None]).to(device)

        support, query = arrays["support_x"], arrays["query_x"]
        targets = [amplitude * np.sin(x - phase) for x in (support, query)]
        return Batch(tensor(support), tensor(targets[0]), tensor(query), tensor(targets[1]))
