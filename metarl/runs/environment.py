"""What makes a run's numbers beside its config: versions, processor, threads; and what is left of it when it goes on.

The same bits come from the same software, processor and number of threads. The threads are taken again as they were;
what cannot be had again is said.
"""

from __future__ import annotations

import platform
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from metarl.errors import UserError, shown
from metarl.parallel import intra_op_threads
from metarl.version import commit

MOST_THREADS = 1024  # that a record may ask for
DECISIVE = ("metarl", "device", "torch", "numpy", "gymnasium", "mujoco", "processor", "platform")


class EnvironmentWarning(UserWarning):
    """A run goes on elsewhere than where it began."""


def environment() -> dict[str, Any]:
    """What this process computes with, for config.json."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "mujoco": version("mujoco"),
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        **({} if (of_code := commit()) is None else {"commit": of_code}),
    }


def _processor() -> str:
    """Which processor, and which of its instructions torch takes."""
    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.partition(":")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not on this system
        pass
    known = " ".join(name.split()) or platform.machine()
    return f"{known} ({torch.backends.cpu.get_cpu_capability()})"


@contextmanager
def as_begun(record: Mapping[str, Any]) -> Iterator[None]:
    """As many threads of torch as where a run began, then as before."""
    threads = _threads(record)
    if threads is None or threads == torch.get_num_threads():
        yield
    else:
        with intra_op_threads(threads):
            yield


def tell(folder: Path, begun: Mapping[str, Any], now: Mapping[str, Any], iterations: int | None) -> None:
    """Say what a run that goes on does not find as it left it.

    Args:
        folder: of the run.
        begun: its config.json.
        now: what its config.json would be, were it begun here.
        iterations: that it has done; None if it begins anew.
    """
    threads, here = _threads(begun), _threads(now)
    if threads not in (None, here):
        count = f"{threads} thread{'s' * (threads != 1)}"
        _warn(f"torch takes {count}, as where {folder} began, for the same bits; this process would take {here}")
    then, today = _facts(begun), _facts(now)
    changed = [name for name in DECISIVE if then.get(name, today[name]) != today[name]]
    if changed and iterations is not None:
        there, these = (", ".join(f"{name} {facts[name]}" for name in changed) for facts in (then, today))
        _warn(
            f"{folder} was begun with {there} and goes on with {these}: from iteration {iterations} on, its numbers "
            "may differ in the last digits from those of a run that was never stopped"
        )


def _warn(text: str) -> None:
    warnings.warn(text, EnvironmentWarning, stacklevel=4)


def check(record: Mapping[str, Any], path: Path) -> None:
    """Check what a record, read from a file, says of where its run began; early versions said nothing.

    Raises:
        UserError: that is damaged.
    """
    recorded, threads = record.get("environment", {}), None
    if isinstance(recorded, Mapping):
        threads = recorded.get("threads", 1)
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        raise UserError(
            f"{path} is damaged: the threads in its environment are {shown(threads)}, not 1 to {MOST_THREADS}"
        )


def _threads(record: Mapping[str, Any]) -> int | None:
    threads: int | None = record.get("environment", {}).get("threads")
    return threads


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    """What decides about bits; of the platform the system and its C library, not the kernel."""
    facts = {**record.get("environment", {}), "metarl": record.get("metarl"), "device": record.get("device")}
    texts = {name: str(value) for name, value in facts.items() if name in DECISIVE}
    return texts | {"platform": re.sub(r"-.*-", " with ", texts["platform"])} if "platform" in texts else texts
