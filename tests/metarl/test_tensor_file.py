"""Files of tensors that somebody else has written: what is none of ours is refused before it costs anything."""

import glob
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing.doors.pt_files import MADE, STRANGE, archive, saved, state_of, tensor

from metarl.runs import checkpoints, tensor_file
from metarl.runs.tensor_file import unpack

LOADS = {"half a character"}


@pytest.mark.parametrize("name", [name for name in MADE if name not in LOADS])
def test_a_forged_file_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^it|^its|^a member") as refusal:
        unpack(MADE[name]())
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("deflated bomb", "a member of it is compressed"),
        ("a tensor of one number, repeated", "a tensor without numbers of its own"),
        ("an array of bytes", "it names 'builtins bytearray'"),
        ("many members", "it lists 110,000 members"),
        ("a list that holds itself", "more than 64 deep"),
    ],
)
def test_what_is_wrong_is_said(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        unpack(MADE[name]())


def test_the_forger_can_also_be_honest() -> None:
    file = archive(state_of(tensor((2, 2), (2, 1))), {"data/0": torch.arange(4.0).numpy().tobytes()})
    assert unpack(file)["params"]["weight"].tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_a_file_that_is_not_all_there_is_refused() -> None:
    whole = saved({"params": torch.arange(9.0), "name": "x", "steps": [1, 2.5, None, True, (3,)]})
    for damaged in [*(whole[:length] for length in range(0, len(whole), 7)), whole + b"\0"]:
        with pytest.raises(ValueError, match="zip file"):
            unpack(damaged)


@pytest.mark.parametrize("place", range(len(STRANGE)))
def test_what_a_state_may_hold_is_what_can_be_packed(place: int) -> None:
    try:
        file = saved({"params": STRANGE[place]()})
    except Exception:
        pytest.skip("torch does not save it")
    try:
        state = unpack(file)
    except ValueError:
        return
    checkpoints.pack(state)


@pytest.mark.parametrize(
    "state",
    [
        {"params": 1 << 1001},
        {"params": [[0] * 1000] * 1001},
        {"params": [torch.zeros(1000)] * 30},
        json.loads('{"params":' + "[" * 70 + "]" * 70 + "}"),
    ],
)
def test_what_could_not_be_read_is_not_written(state: Any) -> None:
    with pytest.raises(ValueError, match="cannot be kept in a checkpoint"):
        checkpoints.pack(state)


def test_every_type_of_number_comes_back() -> None:
    state = {str(kind): torch.ones(3, dtype=kind) for kind in (torch.uint8, torch.uint32, torch.bfloat16, torch.int64)}
    again = unpack(checkpoints.pack(state))
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_committed_checkpoints_are_read() -> None:
    files = glob.glob(str(Path(__file__).parents[2] / "results" / "**" / "*.pt"), recursive=True)
    assert len(files) > 20
    for file in files:
        unpack(Path(file).read_bytes())


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "LARGEST", 100)
    with pytest.raises(ValueError, match="at most 100 are read"):
        unpack(saved({"params": torch.ones(3)}))
