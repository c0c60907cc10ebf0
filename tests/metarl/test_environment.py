"""What a run was begun with: its threads are taken again, and what else has changed is said."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl import UserError, train
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.runs import environment
from metarl.runs.environment import EnvironmentWarning

GLYPHS = Glyphs(ways=3, queries=2)
SMALL: dict[str, Any] = {"width": 4, "tasks": 2, "checkpoint_every": 2, "log_every": 1}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seen_threads(folder: Path, iterations: int, *, resume: bool = False) -> list[int]:
    """Train ProtoNet; torch's threads in every iteration."""
    threads: list[int] = []
    watch = [lambda metrics: threads.append(torch.get_num_threads())]
    train("protonet", GLYPHS, out=folder, resume=resume, callbacks=watch, iterations=iterations, **SMALL)
    return threads


def test_a_run_goes_on_with_the_threads_it_began_with(tmp_path: Path) -> None:
    """On two threads ProtoNet's sums have another order than on one."""
    assert seen_threads(tmp_path / "whole", 2) == [1, 1]
    assert seen_threads(tmp_path / "run", 1) == [1]
    torch.set_num_threads(2)
    with pytest.warns(EnvironmentWarning, match="torch takes 1 thread, as where"):
        assert seen_threads(tmp_path / "run", 2, resume=True) == [1]
    assert torch.get_num_threads() == 2
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "run")]
    assert logs[0] == logs[1]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration."""
    folder = tmp_path_factory.mktemp("short") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen_threads(folder, 1)
    return folder


def begun(short: Path, folder: Path, changes: dict[str, Any], absent: tuple[str, ...] = ()) -> Path:
    """A copy of the run, whose config.json says another environment."""
    record = json.loads((Path(shutil.copytree(short, folder)) / "config.json").read_text())
    there = {**record["environment"], "threads": 1, **changes}
    record["environment"] = {name: value for name, value in there.items() if name not in absent}
    (folder / "config.json").write_text(json.dumps(record))
    return folder


def test_what_has_changed_is_said_once_with_what_it_costs(short: Path, tmp_path: Path) -> None:
    changes = {"torch": "1.0", "platform": "Linux-1.2.3-x86_64-with-glibc2.0", "python": "2.7"}
    folder = begun(short, tmp_path / "run", changes)
    with pytest.warns(EnvironmentWarning) as said:
        seen_threads(folder, 2, resume=True)
    [warning] = said
    text = str(warning.message)
    assert "was begun with torch 1.0, platform Linux with glibc2.0 and goes on with torch " in text
    assert "from iteration 1 on, its numbers may differ in the last digits" in text


def test_what_costs_nothing_or_was_never_recorded_is_not_said(short: Path, tmp_path: Path) -> None:
    here = json.loads((short / "config.json").read_text())["environment"]["platform"]
    system, *_, library = here.split("-")
    changes = {"platform": f"{system}-9.9.9-{library}", "python": "2.7"}
    folder = begun(short, tmp_path / "run", changes, absent=("processor", "mujoco"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen_threads(folder, 2, resume=True)


@pytest.mark.parametrize("threads", [0, -1, "2", 2.5, True, None, 10**9, [1]])
def test_threads_that_are_none_are_refused(tmp_path: Path, threads: Any) -> None:
    with pytest.raises(UserError, match="is damaged: the threads in its environment are"):
        environment.check({"environment": {"threads": threads}}, tmp_path / "config.json")
    with pytest.raises(UserError, match="is damaged"):
        environment.check({"environment": [threads]}, tmp_path / "config.json")
