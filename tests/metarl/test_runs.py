"""Run folders: identity, logs, checkpoints, the loop, and being killed at any moment."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl import files, interrupts
from metarl.errors import NonFiniteError, UserError
from metarl.runs import checkpoints, lock, logs, loop, progress, record, recovery, run
from metarl.runs.loop import Interrupted
from metarl.runs.recovery import RecoveryWarning
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.version import commit

TENSORBOARD_WAS_IMPORTED = "torch.utils.tensorboard" in sys.modules


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    names: tuple[str, ...] = ("a", "b")


@dataclasses.dataclass(frozen=True)
class Config:
    iterations: int = 6
    checkpoint_every: int = 2
    hidden: tuple[int, int] = (3, 4)
    clip: float | None = None
    plan: str = "auto"
    lean: bool = False
    inner: Inner = Inner()


@dataclasses.dataclass(frozen=True)
class Family:
    preset: str = "maml2017"
    arms: int = 5
    name: str = dataclasses.field(default="metarl/Family-v0", init=False)

    def options(self) -> dict[str, Any]:
        return {"preset": self.preset, "arms": self.arms}


def identity(**changes: Any) -> dict[str, Any]:
    return {"learner": "walk", "config": Config(), "source": Family(), "seed": 3, **changes}


def create(folder: Path, **changes: Any) -> Run:
    return Run.create(folder, **identity(**changes))


def resume(folder: Path, **changes: Any) -> Run:
    return Run.resume(folder, **identity(**changes))


def train(run: Run, each: Callable[[int], None] = lambda iteration: None) -> torch.Tensor:
    """A learner whose every number depends on all before it: a random walk with a remembered choice."""
    state: dict[str, Any] = {"place": torch.zeros(3, dtype=torch.float64), "visits": [0]}
    if restored := run.restore():
        _, state = restored
    if run.recall("step") is None:
        run.remember("step", 0.1)
    with run.loop(run.config.iterations, checkpoint_every=run.config.checkpoint_every, state=lambda: state) as loop:
        for iteration in loop:
            noise = torch.randn(3, dtype=torch.float64, generator=Key(run.seed)("walk", iteration).torch())
            place = state["place"] * 0.9 + run.recall("step") * noise
            each(iteration)
            state = {"place": place, "visits": [*state["visits"], iteration]}
            loop.log({"return/k1": place.sum(), "visits": sum(state["visits"])}, {"seconds": time.perf_counter()})
    return state["place"]


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything in a folder, with sizes and times: equal trees were not touched."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


def refusal(action: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def checkpointed(folder: Path, state: Any = None) -> Run:
    run = create(folder)
    run.log(0, {"return/k0": 1.0}, {"seconds": 0.5})
    run.checkpoint(1, {"weights": torch.arange(5.0)} if state is None else state)
    return run


# Identity ------------------------------------------------------------------------------------------------


def test_create_writes_what_was_asked(tmp_path: Path) -> None:
    create(tmp_path / "deep" / "run", device="cpu")
    record = json.loads((tmp_path / "deep" / "run" / "config.json").read_text())
    assert record["learner"] == "walk"
    assert record["config"]["hidden"] == [3, 4]
    assert record["source"] == {"name": "metarl/Family-v0", "options": {"preset": "maml2017", "arms": 5}}
    assert (record["seed"], record["device"], record["version"]) == (3, "cpu", 1)
    assert record["environment"].pop("commit", None) == commit()  # of a checkout
    assert set(record["environment"]) == {
        *("python", "torch", "numpy", "gymnasium", "mujoco", "platform", "processor", "threads")
    }
    assert record["environment"]["torch"] == torch.__version__


@pytest.mark.parametrize("content", ["run", "file", "folder"])
def test_create_refuses_a_folder_that_holds_anything(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "run"
    if content == "run":
        checkpointed(folder)
    elif content == "file":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    else:
        (folder / "deeper").mkdir(parents=True)
    before = tree(tmp_path)
    assert str(folder) in refusal(lambda: create(folder, seed=4))
    assert tree(tmp_path) == before


def test_create_refuses_a_file_and_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "choose another" in refusal(lambda: create(tmp_path / "file"))
    assert "choose another" in refusal(lambda: create(tmp_path / "file" / "below"))
    assert (tmp_path / "file").read_text() == "mine"


def test_open_rebuilds_the_config_and_changes_nothing(tmp_path: Path) -> None:
    config = Config(clip=0.5, hidden=(7, 8), inner=Inner(names=("x",)))
    run = create(tmp_path / "run", config=config)
    train(run)
    before = tree(tmp_path)
    read = Run.open(tmp_path / "run", Config)
    assert read.config == config
    assert (read.learner, read.seed, read.device, read.source) == ("walk", 3, "cpu", run.source)
    assert Run.open(tmp_path / "run").config["inner"] == {"rate": 0.1, "names": ["x"]}
    restored = read.restore()
    assert restored is not None
    assert restored[0] == 6
    assert len(read.metrics()) == len(read.timings()) == 6
    assert read.recall("step") == 0.1
    for write in (
        lambda: read.log(6, {}, {}),
        lambda: read.checkpoint(6, {}),
        lambda: read.remember("step", 1),
        lambda: read.loop(9, checkpoint_every=1, state=dict),
    ):
        with pytest.raises(ValueError, match="opened to read"):
            write()
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learner": "jump"}, ["learner is 'walk' there and 'jump' here"]),
        ({"seed": 4}, ["seed is 3 there and 4 here"]),
        ({"source": Family(arms=6)}, ["source.options.arms is 5 there and 6 here"]),
        ({"config": Config(hidden=(3, 5))}, ["config.hidden is [3, 4] there and [3, 5] here"]),
        ({"config": Config(inner=Inner(rate=0.2))}, ["config.inner.rate is 0.1 there and 0.2 here"]),
        ({"config": Config(iterations=5)}, ["config.iterations is 6 there and 5 here"]),
        ({"config": Config(lean=True, clip=1.0), "seed": 9}, ["config.lean", "config.clip", "seed"]),
        ({"config": Inner()}, ["config.iterations is 6 there and 'absent' here", "config.rate is 'absent' there"]),
    ],
)
def test_resume_names_every_field_that_differs(tmp_path: Path, changes: dict[str, Any], named: list[str]) -> None:
    checkpointed(tmp_path / "run")
    before = tree(tmp_path)
    message = refusal(lambda: resume(tmp_path / "run", **changes))
    assert all(text in message for text in named)
    assert "config.plan" not in message or "absent" in message
    assert tree(tmp_path) == before


def test_resume_may_raise_iterations_and_says_so_in_the_config(tmp_path: Path) -> None:
    longer = Config(iterations=9)
    train(create(tmp_path / "whole", config=longer))
    train(create(tmp_path / "parts"))
    run = resume(tmp_path / "parts", config=longer)
    train(run)
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert Run.open(tmp_path / "parts", Config).config == longer


def test_a_finished_run_resumes_to_nothing(tmp_path: Path) -> None:
    place = train(create(tmp_path / "run"))
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert train(resume(tmp_path / "run")).equal(place)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    assert "holds no run" in refusal(lambda: Run.open(tmp_path / "absent"))
    assert "holds no run" in refusal(lambda: resume(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()
    assert "holds no run" in refusal(lambda: Run.open(tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds no run" in refusal(lambda: resume(tmp_path))


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"version": 2}', '{"version": 1, "learner": 7}', "\udcff"])
def test_a_damaged_config_is_refused(tmp_path: Path, damage: str) -> None:
    checkpointed(tmp_path / "run")
    (tmp_path / "run/config.json").write_bytes(damage.encode("utf-8", "surrogateescape"))
    before = tree(tmp_path)
    assert "config.json" in refusal(lambda: Run.open(tmp_path / "run"))
    assert "config.json" in refusal(lambda: resume(tmp_path / "run"))
    assert "already holds a run" in refusal(lambda: create(tmp_path / "run"))
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iterations", "six"),
        ("lean", 1),
        ("clip", []),
        ("hidden", [1, 2, 3]),
        ("plan", None),
        ("inner", {"rate": "fast"}),
        ("odd", 1),
    ],
)
def test_a_config_that_does_not_fit_its_class_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    create(tmp_path / "run")
    path = tmp_path / "run/config.json"
    record = json.loads(path.read_text())
    record["config"][name] = value
    path.write_text(json.dumps(record))
    message = refusal(lambda: Run.open(tmp_path / "run", Config))
    assert (name if name != "inner" else "rate") in message


def test_choices_are_remembered_across_processes(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    assert run.recall("plan") is None
    run.remember("plan", {"strategy": "vmap", "chunks": (4, 8)})
    run.remember("threads", 2)
    assert run.recall("plan") == {"strategy": "vmap", "chunks": [4, 8]} == resume(tmp_path / "run").recall("plan")
    assert resume(tmp_path / "run").recall("threads") == 2
    refusal(lambda: run.remember("bad", {1, 2}))
    refusal(lambda: run.remember("bad", math.inf))
    assert resume(tmp_path / "run").recall("bad") is None


# Logs ----------------------------------------------------------------------------------------------------


def test_log_writes_one_valid_line_each(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    run.log(0, {"loss": torch.tensor(0.1, dtype=torch.float64)}, {"step": 0.25})
    run.log(1, {"loss": 2}, {"step": 0.5})
    assert (tmp_path / "run/metrics.jsonl").read_text() == (
        '{"iteration": 0, "loss": 0.1}\n{"iteration": 1, "loss": 2.0}\n'
    )
    assert (tmp_path / "run/timings.jsonl").read_text().splitlines()[1] == '{"iteration": 1, "step": 0.5}'
    assert Run.open(tmp_path / "run").metrics()[1] == {"iteration": 1, "loss": 2.0}
    assert run.timings()[0] == {"iteration": 0, "step": 0.25}
    with pytest.raises(ValueError, match="iteration"):
        run.log(2, {"iteration": 1.0}, {})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_what_is_not_finite_is_not_logged(tmp_path: Path, number: Any) -> None:
    run = create(tmp_path / "run")
    run.log(0, {"loss": 1.0}, {})
    with pytest.raises(NonFiniteError, match=f"^kl is {float(number)}"):
        run.log(1, {"loss": 2.0, "kl": number}, {})
    assert run.metrics() == [{"iteration": 0, "loss": 1.0}]


def test_null_in_files_of_earlier_versions_is_nan(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").write_text('{"iteration": 0, "kl": null}\n')
    assert math.isnan(run.metrics()[0]["kl"])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_every_number_is_read_back_bit_for_bit(values: list[float]) -> None:
    line = logs.line(4, {str(i): value for i, value in enumerate(values)})
    row = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert line.count(b"\n") == 1
    for i, value in enumerate(values):
        assert row[str(i)].hex() == value.hex()


def test_an_unfinished_line_is_not_read_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    run = checkpointed(tmp_path / "run")
    with (tmp_path / "run/metrics.jsonl").open("ab") as file:
        file.write(b'{"iteration": 1, "retu')
    assert run.metrics() == [{"iteration": 0, "return/k0": 1.0}]
    with (tmp_path / "run/metrics.jsonl").open("ab") as file:
        file.write(b"\n")
    assert "metrics.jsonl" in refusal(run.metrics)


def test_resume_cuts_both_logs_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = checkpointed(tmp_path / "run")
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("metrics.jsonl", "timings.jsonl")}
    run.log(1, {"return/k0": 2.0}, {"seconds": 0.1})
    with (tmp_path / "run/timings.jsonl").open("ab") as file:
        file.write(b'{"iterat')
    resume(tmp_path / "run")
    assert {name: (tmp_path / "run" / name).read_bytes() for name in kept} == kept


def test_resume_refuses_a_log_shorter_than_its_checkpoint(tmp_path: Path) -> None:
    checkpointed(tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").unlink()
    before = tree(tmp_path)
    assert "metrics.jsonl is damaged" in refusal(lambda: resume(tmp_path / "run"))
    assert tree(tmp_path) == before


def test_tensorboard_holds_each_iteration_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def fail(iteration: int) -> None:
        if iteration == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(create(tmp_path / "run"), fail)  # iteration 2 is lost: it came after the checkpoint
    train(resume(tmp_path / "run"))
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    lines = Run.open(tmp_path / "run").metrics()
    assert len(lines) == 6
    logged = [(e.step, e.value) for e in events.Scalars("return/k1")]
    assert logged == [(row["iteration"], pytest.approx(row["return/k1"])) for row in lines]
    assert "time/seconds" in events.Tags()["scalars"]


# Checkpoints ---------------------------------------------------------------------------------------------

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)
tensors = st.builds(
    lambda dtype, shape, seed: (torch.randn(shape, generator=Key(seed).torch()) * 50).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 99),
)
finite_floats = st.floats(allow_nan=False, allow_infinity=False)  # of others, reading says that the training failed
leaves = tensors | st.none() | st.booleans() | st.integers() | finite_floats | st.text()
keys = st.text() | st.integers()
states = st.recursive(
    leaves,
    lambda below: (
        st.lists(below, max_size=3) | st.lists(below, max_size=3).map(tuple) | st.dictionaries(keys, below, max_size=3)
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Equal in type, structure and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool(torch.equal(one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one.hex() == other.hex()) if isinstance(one, float) else bool(one == other)


@settings(max_examples=60, deadline=None)
@given(state=states)
def test_any_plain_state_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    manifest = checkpoints.save(folder, 7, state, run={"learner": "walk"}, metrics=(1, "ab"), timings_bytes=2)
    assert checkpoints.latest(folder) == manifest
    loaded = checkpoints.load(folder, manifest.file, manifest.sha256)
    assert same(loaded.state, state)
    assert (loaded.iteration, loaded.run, loaded.metrics) == (7, {"learner": "walk"}, (1, "ab"))
    bare = checkpoints.pack(state)  # as versions before this one saved it
    name = f"00000007-{hashlib.sha256(bare).hexdigest()[:16]}.pt"
    (folder / name).write_bytes(bare)
    loaded = checkpoints.load(folder, name)
    assert same(loaded.state, state)
    assert (loaded.iteration, loaded.run, loaded.metrics) == (7, None, None)


def test_modules_and_optimisers_come_back_exactly(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    adam = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.randn(5, 3, generator=Key(0).torch())).square().sum().backward()
    adam.step()
    generator = Key(1).torch()
    torch.randn(3, generator=generator)
    run = checkpointed(
        tmp_path / "run",
        {
            "net": net.state_dict(),
            "adam": adam.state_dict(),
            "stream": generator.get_state(),
            "parts": list(net.parameters()),
        },
    )
    restored = run.restore()
    assert restored is not None
    _, state = restored
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    twin.load_state_dict(state["net"])
    twin_adam = torch.optim.Adam(twin.parameters(), lr=0.5)
    twin_adam.load_state_dict(state["adam"])
    expected = torch.randn(3, generator=generator)
    generator.set_state(state["stream"])
    assert torch.randn(3, generator=generator).equal(expected)
    for model, optimiser in ((net, adam), (twin, twin_adam)):
        optimiser.zero_grad()
        model(torch.ones(5, 3)).square().sum().backward()
        optimiser.step()
    assert all(a.equal(b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    assert not state["parts"][0].requires_grad


def test_a_view_does_not_drag_its_storage_into_the_file(tmp_path: Path) -> None:
    run = checkpointed(tmp_path / "run", {"row": torch.zeros(1000, 1000)[3]})
    assert sum(p.stat().st_size for p in (tmp_path / "run/checkpoints").iterdir()) < 20_000
    assert run.restore() is not None


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ({"a": [1, {"b": {1, 2}}]}, "state['a'][1]['b'] is a builtins.set"),
        ({"rng": torch.zeros(2).numpy()}, "state['rng'] is a numpy.ndarray"),
        ({"best": torch.zeros(1).double().numpy()[0]}, "state['best'] is a numpy.float64"),
        ({(1, 2): 3}, "key (1, 2)"),
        (Config(), "state is a "),
    ],
)
def test_a_state_that_could_not_be_loaded_is_not_saved(tmp_path: Path, state: Any, named: str) -> None:
    run = checkpointed(tmp_path / "run")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is checked below
        run.checkpoint(2, state)
    assert named in str(caught.value)
    restored = resume(tmp_path / "run").restore()
    assert restored is not None
    assert restored[0] == 1


def test_a_run_that_trains_on_while_it_is_read_gives_its_last_checkpoint(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    run.checkpoint(1, {"weights": torch.zeros(2)})
    reader = Run.open(tmp_path / "run", Config)
    run.checkpoint(2, {"weights": torch.ones(2)})
    restored = reader.restore()
    assert restored is not None
    assert restored[0] == 2
    assert torch.equal(restored[1]["weights"], torch.ones(2))


def test_the_last_checkpoint_is_kept_and_the_one_before(tmp_path: Path) -> None:
    run = checkpointed(tmp_path / "run")
    for iteration, weights in ((2, torch.ones(2)), (2, torch.zeros(2)), (3, torch.ones(3))):
        run.checkpoint(iteration, {"weights": weights})
        restored = Run.open(tmp_path / "run").restore()
        assert restored is not None
        assert restored[1]["weights"].equal(weights)
        assert len(list((tmp_path / "run/checkpoints").iterdir())) == 3  # with the manifest
    assert [name[:8] for name in checkpoints.names(tmp_path / "run/checkpoints")] == ["00000003", "00000002"]


def checkpoint_file(folder: Path) -> Path:
    (path,) = (folder / "checkpoints").glob("*.pt")
    return path


def test_a_damaged_or_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpointed(tmp_path / "run")
    path = checkpoint_file(tmp_path / "run")
    good = path.read_bytes()
    for position in range(0, len(good), 97):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert "SHA-256" in refusal(Run.open(tmp_path / "run").restore)
    path.write_bytes(good[:-1])
    before = tree(tmp_path)
    assert "SHA-256" in refusal(lambda: resume(tmp_path / "run"))
    assert tree(tmp_path) == before
    path.unlink()
    assert "is missing" in refusal(Run.open(tmp_path / "run").restore)
    assert "is missing" in refusal(lambda: resume(tmp_path / "run"))


def test_without_its_manifest_a_checkpoint_is_used_and_said(tmp_path: Path) -> None:
    checkpointed(tmp_path / "run")
    path = tmp_path / "run/checkpoints/latest.json"
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.warns(RecoveryWarning, match=r"latest.json is damaged: .*; used instead: .*, of 1 iterations"):
            restored = Run.open(tmp_path / "run").restore()
        assert restored is not None
        assert path.read_bytes() == good[:length]
    with pytest.warns(RecoveryWarning):
        resume(tmp_path / "run")
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../../stolen.pt"},
        {"file": "/etc/passwd"},
        {"file": 3},
        {"iteration": -1},
        {"iteration": True},
        {"iteration": "1"},
        {"metrics_bytes": 1.5},
        {"timings_bytes": -1},
        {"extra": 1},
    ],
)
def test_a_forged_manifest_is_not_followed(tmp_path: Path, change: dict[str, Any]) -> None:
    checkpointed(tmp_path / "run")
    path = tmp_path / "run/checkpoints/latest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.warns(RecoveryWarning, match=r"latest.json is damaged"):
        restored = Run.open(tmp_path / "run").restore()
    assert restored is not None
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    assert "reads version 1" in refusal(Run.open(tmp_path / "run").restore)


class Trap:
    """Unpickled by a careless loader, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch", "module", "cut", "text", "empty"])
def test_a_foreign_checkpoint_with_a_forged_manifest_runs_no_code(tmp_path: Path, kind: str) -> None:
    checkpointed(tmp_path / "run")
    marker = tmp_path / "trapped"
    old = io.BytesIO()
    torch.save({"weights": Trap(marker)}, old, _use_new_zipfile_serialization=False)
    data = {
        "pickle": pickle.dumps(Trap(marker)),
        "torch": saved({"weights": Trap(marker)}),
        "old torch": old.getvalue(),
        "module": saved(torch.nn.Linear(2, 2)),
        "cut": saved({"weights": torch.ones(9)})[:-40],
        "text": b"weights = 3\n",
        "empty": b"",
    }[kind]
    digest = hashlib.sha256(data).hexdigest()
    name = f"00000001-{digest[:16]}.pt"
    (tmp_path / "run/checkpoints" / name).write_bytes(data)
    path = tmp_path / "run/checkpoints/latest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "file": name, "sha256": digest}))
    assert "refused" in refusal(Run.open(tmp_path / "run").restore)
    assert not marker.exists()
    if kind == "pickle":
        pickle.loads(data)  # the trap is real
        assert marker.exists()


# The loop ------------------------------------------------------------------------------------------------


def test_the_loop_checkpoints_on_time_and_at_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    run = create(tmp_path / "run", config=Config(iterations=5))

    def note(iteration: int) -> None:
        manifest = checkpoints.latest(tmp_path / "run/checkpoints")
        seen.append((iteration, manifest.iteration if manifest else None))

    train(run, note)
    assert seen == [(0, None), (1, None), (2, 2), (3, 2), (4, 4)]
    restored = run.restore()
    assert restored is not None
    assert restored[0] == 5
    assert restored[1]["visits"] == [0, 0, 1, 2, 3, 4]
    assert [row["iteration"] for row in run.metrics()] == [0, 1, 2, 3, 4]


def test_no_iterations_still_leave_a_learner_to_load(tmp_path: Path) -> None:
    train(create(tmp_path / "run", config=Config(iterations=0)))
    restored = Run.open(tmp_path / "run").restore()
    assert restored is not None
    assert restored[0] == 0
    assert restored[1]["visits"] == [0]


def test_a_loop_that_would_ignore_its_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpointed(tmp_path / "run")
    with pytest.raises(ValueError, match="restore"):
        resume(tmp_path / "run").loop(6, checkpoint_every=2, state=dict)


def test_an_error_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    def fail(iteration: int) -> None:
        if iteration == 3:
            raise ZeroDivisionError

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        train(create(tmp_path / "run"), fail)
    assert signal.getsignal(signal.SIGINT) is handler
    manifest = checkpoints.latest(tmp_path / "run/checkpoints")
    assert manifest is not None
    assert manifest.iteration == 2
    assert train(resume(tmp_path / "run")).equal(train(create(tmp_path / "whole")))


def interrupt(at: int, times: int) -> Callable[[int], None]:
    def each(iteration: int) -> None:
        for _ in range(times if iteration == at else 0):
            signal.raise_signal(signal.SIGINT)

    return each


def test_ctrl_c_finishes_the_iteration_and_saves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        train(create(tmp_path / "run"), interrupt(2, times=1))
    assert (caught.value.iteration, caught.value.folder) == (3, tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is handler
    assert "Ctrl-C again" in capsys.readouterr().err
    manifest = checkpoints.latest(tmp_path / "run/checkpoints")
    assert manifest is not None
    assert manifest.iteration == 3
    assert len(Run.open(tmp_path / "run").metrics()) == 3
    train(resume(tmp_path / "run"))
    train(create(tmp_path / "whole"))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(interrupts.ECHO, signal.SIGINT, 0.0)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(create(tmp_path / "run"), interrupt(3, times=2))
    assert not isinstance(caught.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is handler
    manifest = checkpoints.latest(tmp_path / "run/checkpoints")
    assert manifest is not None
    assert manifest.iteration == 2
    assert train(resume(tmp_path / "run")).equal(train(create(tmp_path / "whole")))


SIGTERM, SIGHUP = signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has no SIGHUP


@pytest.mark.parametrize("signum", [SIGTERM, SIGHUP])
def test_what_raises_as_ctrl_c_does_is_finished_in_order_too(tmp_path: Path, signum: int) -> None:
    """`timeout` signals a process and then its group: a second one that soon is the same."""
    handler = signal.getsignal(signum)

    def each(iteration: int) -> None:
        for _ in range(2 if iteration == 2 else 0):
            signal.raise_signal(signum)

    with pytest.raises(interrupts.Stopped) as caught, interrupts.raising():
        train(create(tmp_path / "run"), each)
    assert isinstance(caught.value, Interrupted)
    assert (caught.value.iteration, interrupts.exit_code(caught.value)) == (3, 128 + signum)
    assert signal.getsignal(signum) is handler
    assert train(resume(tmp_path / "run")).equal(train(create(tmp_path / "whole")))


def test_another_signal_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "ECHO", dict.fromkeys(interrupts.SIGNALS, 0.0))

    def each(iteration: int) -> None:
        if iteration == 3:
            signal.raise_signal(SIGTERM)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(interrupts.Stopped) as caught, interrupts.raising():
        train(create(tmp_path / "run"), each)
    assert not isinstance(caught.value, Interrupted)
    assert interrupts.exit_code(caught.value) == 130
    manifest = checkpoints.latest(tmp_path / "run/checkpoints")
    assert manifest is not None
    assert manifest.iteration == 2


def test_a_signal_while_a_checkpoint_is_written_is_heeded_before_the_next_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoints.save

    def interrupted(*args: Any, **more: Any) -> checkpoints.Manifest:
        signal.raise_signal(signal.SIGINT)
        return write(*args, **more)

    monkeypatch.setattr(checkpoints, "save", interrupted)
    with pytest.raises(Interrupted) as caught:
        train(create(tmp_path / "run"))
    assert caught.value.iteration == 2


def test_a_program_that_has_not_asked_for_it_keeps_its_sigterm(tmp_path: Path) -> None:
    before = signal.getsignal(SIGTERM)
    handlers: list[Any] = []
    train(create(tmp_path / "run"), lambda _: handlers.append(signal.getsignal(SIGTERM)))
    assert handlers == [before] * 6


@pytest.mark.parametrize(
    ("minutes", "seconds", "saved"),
    [(1.0, 25.0, [3, 4, 6]), (math.inf, 9.0, [4, 6]), (0.0, 1.0, [1, 2, 3, 4, 5, 6])],
)
def test_checkpoints_come_by_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, seconds: float, saved: list[int]
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop, "LONG", 26.0)
    run = create(tmp_path / "run", config=Config(checkpoint_every=4))
    run.checkpoint_minutes = minutes
    seen: list[int] = []

    def each(iteration: int) -> None:
        clock[0] += seconds
        seen.append(run.saved or 0)

    train(run, each)
    assert sorted({*seen, run.saved or 0} - {0}) == saved
    assert (run.completed, run.saved) == (6, 6)


def test_a_long_iteration_is_saved_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    run = create(tmp_path / "run", config=Config(checkpoint_every=4))
    seen: list[int | None] = []

    def each(iteration: int) -> None:
        clock[0] += loop.LONG if iteration == 1 else 1.0
        seen.append(run.saved)

    train(run, each)
    assert seen == [None, None, 2, 2, 4, 4]


def test_a_run_stopped_after_a_checkpoint_by_time_goes_on_to_the_same(tmp_path: Path) -> None:
    def fail(iteration: int) -> None:
        if iteration == 4:
            raise ZeroDivisionError

    run = create(tmp_path / "run", config=Config(checkpoint_every=5))
    run.checkpoint_minutes = 0.0
    with pytest.raises(ZeroDivisionError):
        train(run, fail)
    again = resume(tmp_path / "run", config=Config(checkpoint_every=5))
    again.checkpoint_minutes = float("inf")
    assert again.saved == 4
    whole = create(tmp_path / "whole", config=Config(checkpoint_every=5))
    assert train(again).equal(train(whole))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


@pytest.mark.parametrize("minutes", [-1.0, math.nan, "5"])
def test_minutes_that_are_none_are_refused(tmp_path: Path, minutes: Any) -> None:
    run = create(tmp_path / "run")
    run.checkpoint_minutes = minutes
    assert "checkpoint_minutes is" in refusal(lambda: train(run))


def test_an_ignored_sigint_stays_ignored(tmp_path: Path) -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(create(tmp_path / "run"), interrupt(2, times=2))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


def test_signals_are_left_alone_outside_the_main_thread(tmp_path: Path) -> None:
    handlers: list[Any] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            train(create(tmp_path / "run"), lambda _: handlers.append(signal.getsignal(signal.SIGINT)))
        except BaseException as error:
            failures.append(error)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert handlers == [before] * 6


def test_without_a_terminal_progress_is_a_line_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    train(create(tmp_path / "quiet"))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    place = train(create(tmp_path / "run"))
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 6
    assert err.splitlines()[-1] == f"iteration 6/6  k1 {float(place.sum()):.4g}  0.0 min left"


def test_on_a_terminal_progress_shows_returns_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    place = train(create(tmp_path / "run"))
    out, err = capsys.readouterr()
    assert out == ""
    assert "6/6" in err
    assert f"k1 {float(place.sum()):.4g}" in err
    assert "left" in err
    assert "visits" not in err


# Killed at any moment ------------------------------------------------------------------------------------


def test_a_half_made_folder_is_begun_anew(tmp_path: Path) -> None:
    whole = train(create(tmp_path / "whole"))
    (tmp_path / "empty").mkdir()
    assert train(resume(tmp_path / "empty")).equal(whole)
    (tmp_path / "half").mkdir()
    (tmp_path / "half/config.json.17.tmp").write_text('{"vers')
    assert train(resume(tmp_path / "half")).equal(whole)
    assert not (tmp_path / "half/config.json.17.tmp").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the victims are forked")
@pytest.mark.parametrize("mode", ["every-change", "every-change-of-resume", "random-moments"])
def test_killed_at_any_moment_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, mode: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, mode, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failures"] == []
    assert report["killed"] >= (10 if mode == "every-change-of-resume" else 20)
    assert report["tensorboard_was_imported"] is False


def forked(body: Callable[[], None]) -> int:
    """Run the body in a forked process; its wait status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def trace_lines(on_line: Callable[[], None]) -> None:
    """Call back before every line that this thread runs in the modules under test."""
    traced = {str(module.__file__) for module in (checkpoints, files, lock, logs, loop, record, recovery, run)}

    def local(frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            on_line()
        return local

    sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename in traced else None)


def start(folder: Path) -> None:
    config = Config(iterations=4)
    train(resume(folder, config=config) if folder.exists() else create(folder, config=config))


def disk(folder: Path) -> dict[str, bytes]:
    """What a process killed now would leave behind (TensorBoard's own thread apart)."""
    inside = [p for p in folder.rglob("*") if "tensorboard" not in p.parts]
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in (folder, *inside) if p.exists()}


def kill_points(folder: Path, notes: Path) -> list[int]:
    """Of all lines that training in the folder runs, in order, those before which the disk has changed."""

    def record() -> None:
        states: list[dict[str, bytes]] = []
        trace_lines(lambda: states.append(disk(folder)))
        start(folder)
        sys.settrace(None)
        notes.write_text(json.dumps([i for i, state in enumerate(states) if i == 0 or state != states[i - 1]]))

    assert forked(record) == 0
    points: list[int] = json.loads(notes.read_text())
    return points


def killed_at(folder: Path, moment: int) -> bool:
    """Train in the folder and die before the given line; whether it did."""
    count = iter(range(10**9))

    def die() -> None:
        if next(count) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def body() -> None:
        trace_lines(die)
        start(folder)

    return os.WIFSIGNALED(forked(body))


def killed_after(folder: Path, seconds: float) -> bool:
    """Train in the folder and be killed from outside after a while; whether it was still alive."""
    child = os.fork()
    if child == 0:
        start(folder)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def resumed(victim: Path, whole: Path) -> list[str]:
    """Resume the victim and let it finish; what then differs from an uninterrupted run."""
    status = forked(lambda: start(victim))
    leftovers = [str(p) for p in (*victim.rglob("*.tmp"), *list(victim.rglob("*.pt"))[2:])]
    equal = (victim / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    return [] if status == 0 and not leftovers and equal else [f"status {status}, equal {equal}, left {leftovers}"]


def sweep_changes(victim: Path, whole: Path, template: Path, notes: Path) -> tuple[int, list[str]]:
    """Kill after each change of the disk in turn, every time from the folder `template` (absent: from nothing)."""
    killed, failures = 0, []
    shutil.copytree(template, victim) if template.exists() else None
    for moment in kill_points(victim, notes):
        shutil.rmtree(victim, ignore_errors=True)
        shutil.copytree(template, victim) if template.exists() else None
        killed += killed_at(victim, moment)
        failures += [f"line {moment}: {what}" for what in resumed(victim, whole)]
    return killed, failures


def sweep_moments(victim: Path, whole: Path, seconds: float) -> tuple[int, list[str]]:
    """Kill 20 times at random moments of a training that takes about so many seconds."""
    killed, failures, dice = 0, [], random.Random(0)
    while killed < 20:
        shutil.rmtree(victim, ignore_errors=True)
        struck = killed_after(victim, dice.uniform(0, seconds))
        killed += struck
        seconds *= 1 if struck else 0.9
        failures += resumed(victim, whole)
    return killed, failures


def half_checkpointed(folder: Path, notes: Path) -> None:
    """A run killed while it wrote its second checkpoint, with log lines after its first."""
    for moment in kill_points(folder, notes):
        shutil.rmtree(folder, ignore_errors=True)
        assert killed_at(folder, moment)
        if (folder / "checkpoints/latest.json").exists() and list(folder.rglob("*.pt.*.tmp")):
            return
    raise AssertionError("training never wrote a second checkpoint")


def sweep(mode: str, folder: Path) -> dict[str, Any]:
    """Kill training in one of three ways; after each, resume it and compare with an uninterrupted run."""
    import torch.utils.tensorboard  # noqa: F401 - once, before the forks

    whole, victim, template, notes = (folder / name for name in ("whole", "victim", "template", "notes"))
    began = time.perf_counter()
    assert forked(lambda: start(whole)) == 0
    seconds = time.perf_counter() - began
    if mode == "every-change-of-resume":
        half_checkpointed(template, notes)
    if mode == "random-moments":
        killed, failures = sweep_moments(victim, whole, seconds)
    else:
        killed, failures = sweep_changes(victim, whole, template, notes)
    return {"killed": killed, "failures": failures, "tensorboard_was_imported": TENSORBOARD_WAS_IMPORTED}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(sweep(sys.argv[1], Path(sys.argv[2]))))


def test_a_training_ends_when_its_minutes_are_over_and_goes_on_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    def each(iteration: int) -> None:
        clock[0] += 25.0

    run = create(tmp_path / "run", config=Config(checkpoint_every=5))
    run.minutes = 1.0
    train(run, each)
    assert (run.completed, run.saved) == (3, 3)  # 75 s
    assert "stopped by --minutes 1 after 3 of 6 iterations" in capsys.readouterr().err
    again = resume(tmp_path / "run", config=Config(checkpoint_every=5))
    whole = create(tmp_path / "whole", config=Config(checkpoint_every=5))
    assert train(again).equal(train(whole))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


@pytest.mark.parametrize("minutes", [0.0, math.nan, "5"])
def test_a_limit_of_minutes_is_above_zero(tmp_path: Path, minutes: Any) -> None:
    run = create(tmp_path / "run")
    run.minutes = minutes
    assert "minutes is" in refusal(lambda: train(run))
