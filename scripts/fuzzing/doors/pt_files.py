"""Checkpoints that no training wrote, with a manifest that vouches for them."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzzing.case import Case, Draw, Place
from fuzzing.doors import damage
from fuzzing.doors.numbers import OFFLINE, PATIENCE
from fuzzing.doors.records import WRITES, a_reader, a_run

MEMBERS = {"version": b"3\n", "byteorder": b"little"}


def checkpoints(draw: Draw, place: Place) -> Case:
    """A run whose checkpoint was damaged or forged, with the SHA-256 that it then has."""
    run = a_run(draw, place)
    file = next((run / "checkpoints").glob("*.pt"))
    kind = draw(st.sampled_from(["damaged", "state", "state", "made", "made", "code"]))
    if kind == "damaged":
        data = damage.damaged(draw, file.read_bytes())
    elif kind == "state":
        data = saved(forged_state(draw, loaded(file)))
    elif kind == "made":
        data = draw(st.sampled_from(sorted(MADE)).map(lambda name: MADE[name]))()
    else:
        data = archive(place.payload(draw(st.sampled_from([0, 2, 4]))))
    put(file, data)
    return Case(a_reader(draw), OFFLINE, may_change=WRITES, leaves=WRITES, patience=PATIENCE)


def put(file: Path, data: bytes) -> None:
    """Put a checkpoint in the place of another, and have its name and the manifest vouch for it."""
    file.unlink()
    digest = hashlib.sha256(data).hexdigest()
    file = file.with_name(f"{file.name.partition('-')[0]}-{digest[:16]}.pt")
    file.write_bytes(data)
    manifest = file.with_name("latest.json")
    record = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**record, "file": file.name, "sha256": digest}))


def loaded(file: Path) -> Any:
    """The state of a checkpoint."""
    import torch

    return torch.load(file, weights_only=True)


def saved(state: Any) -> bytes:
    """The bytes of any state."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def forged_state(draw: Draw, state: Any) -> Any:
    """The state with an entry replaced, removed, added or of another shape."""
    import torch

    holder = state
    for _ in range(draw(st.integers(0, 3))):
        inner = [each for each in (holder.values() if isinstance(holder, dict) else holder) if isinstance(each, dict)]
        if not inner:
            break
        holder = draw(st.sampled_from(inner))
    if not holder:
        return draw(st.sampled_from(STRANGE))()
    key = draw(st.sampled_from(sorted(holder, key=str)))
    change = draw(st.sampled_from(["remove", "replace", "replace", "add", "shape", "type", "whole"]))
    if change == "remove":
        del holder[key]
    elif change == "whole":
        return draw(st.sampled_from(STRANGE))()
    elif change in ("shape", "type") and isinstance(holder[key], torch.Tensor):
        value = holder[key]
        holder[key] = value[None] if change == "shape" else value.to(draw(st.sampled_from([torch.float64, torch.int8])))
    else:
        holder[key if change != "add" else draw(st.sampled_from(damage.NAMES[:-1]))] = draw(st.sampled_from(STRANGE))()
    return state


def archive(data: bytes, storages: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """A .pt file of a pickle and storages, written by hand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in ({"data.pkl": data} | MEMBERS | (storages or {})).items():
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def text(value: str) -> bytes:
    """A string, pickled."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    """An integer, pickled."""
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values: tuple[int, ...]) -> bytes:
    """A tuple of integers, pickled."""
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, elements: int = 4, key: str = "0") -> bytes:
    """A tensor of float32 over storage `key`, pickled."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + integer(elements) + b"tQ"
    rest = integer(offset) + numbers(size) + numbers(stride) + b"\x89" + b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def state_of(value: bytes) -> bytes:
    """A state whose "params" are something pickled."""
    return b"\x80\x02}" + text("params") + b"}" + text("weight") + value + b"ss."


def _tensors(*values: bytes) -> bytes:
    return archive(state_of(b"(" + b"".join(values) + b"t"), {"data/0": bytes(16)})


def _lists(depth: int = 100_000) -> bytes:
    return archive(state_of(b"]" * depth + b"a" * (depth - 1)))


def _tuples(depth: int = 100_000) -> bytes:
    return archive(state_of(b")" + b"\x85" * depth))


def _laughs() -> bytes:
    levels = b"".join(
        b"](h" + bytes([level]) + b"h" + bytes([level]) + b"eq" + bytes([level + 1]) for level in range(30)
    )
    return archive(state_of(b"](]q\0" + levels + b"e"))


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in ("pickle", "storages", "tensors"):
            file.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def _legacy() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"params": torch.ones(3)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _script() -> bytes:
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), buffer)
    return buffer.getvalue()


def _many() -> bytes:
    names = 110_000  # that a directory of 46 bytes a member and no names would list
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 46 * names, 0, 0)
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, names, names, 46 * names, 0)
    listed = (b"PK\1\2" + bytes(42)) * names
    return listed + end64 + struct.pack("<4sIQI", b"PK\6\7", 0, len(listed), 1) + end


def _strange(make: Callable[[Any], Any]) -> Callable[[], Any]:
    def made() -> Any:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(torch)

    return made


STRANGE: list[Callable[[], Any]] = [
    *(
        _strange(lambda torch, value=value: copy.deepcopy(value))
        for value in (None, True, "text", 0, -1, 2**62, 1.5, [], {}, (), [[1]])
    ),
    *(
        _strange(lambda torch, value=value: copy.deepcopy(value))
        for value in (10**400, "\ud800", 1e400, {"a": 10**30}, [0] * 100_000)
    ),
    _strange(lambda torch: torch.zeros(0)),
    _strange(lambda torch: torch.zeros(3, dtype=torch.complex64)),
    _strange(lambda torch: torch.zeros(3).bool()),
    _strange(lambda torch: torch.full((2,), float("nan"))),
    _strange(lambda torch: torch.eye(3).to_sparse()),
    _strange(lambda torch: torch.eye(3).to_sparse_csr()),
    _strange(lambda torch: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
    _strange(lambda torch: torch.empty(10**6, 10**6, device="meta")),
    _strange(lambda torch: torch.zeros(1).expand(10**9)),
    _strange(lambda torch: torch.nn.Parameter(torch.ones(2))),
    _strange(lambda torch: torch.ones(2, requires_grad=True)),
    _strange(lambda torch: torch.float32),
    _strange(lambda torch: torch.device("cuda")),
    _strange(lambda torch: torch.Size([1, 2])),
    _strange(lambda torch: {(1, 2): torch.ones(1)}),
    _strange(lambda torch: {1.5: 0}),
    _strange(lambda torch: {1, 2}),
    _strange(lambda torch: Counter("abc")),
    _strange(lambda torch: OrderedDict(a=1)),
    _strange(lambda torch: b"bytes"),
    _strange(lambda torch: complex(1, 2)),
    _strange(lambda torch: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
]

MADE: dict[str, Callable[[], bytes]] = {
    "deflated bomb": lambda: archive(state_of(b"N"), {"data/0": bytes(16 << 20)}, zipfile.ZIP_DEFLATED),
    "deflated pickle": lambda: archive(state_of(b"]" + b"(" + b"N" * (16 << 20) + b"e"), {}, zipfile.ZIP_DEFLATED),
    "long pickle": lambda: archive(state_of(b"](" + b"}" * (30 << 20) + b"e")),
    "lists within one another": _lists,
    "tuples within one another": _tuples,
    "a list that holds itself": lambda: archive(state_of(b"]q\0h\0a")),
    "lists twice in lists": _laughs,
    "a tensor outside its storage": lambda: _tensors(tensor((10**9,), (1,))),
    "a tensor of one number, repeated": lambda: _tensors(tensor((2 * 10**9,), (0,))),
    "a tensor before its storage": lambda: _tensors(tensor((2,), (1,), offset=-4)),
    "a tensor behind its storage": lambda: _tensors(tensor((2,), (1,), offset=2**40)),
    "a tensor of negative strides": lambda: _tensors(tensor((2,), (-1,), offset=1)),
    "a tensor of negative size": lambda: _tensors(tensor((-2,), (1,))),
    "a tensor of overflowing size": lambda: _tensors(tensor((2**40, 2**40), (1, 1))),
    "a storage larger than its member": lambda: _tensors(tensor((2**28,), (1,), elements=2**28)),
    "a storage that is not there": lambda: _tensors(tensor((4,), (1,), key="9")),
    "a storage elsewhere": lambda: _tensors(tensor((4,), (1,), key="../data.pkl")),
    "one tensor a million times": lambda: archive(
        state_of(b"](" + tensor((4,), (1,)) + b"q\0" + b"h\0" * 1_000_000 + b"e"), {"data/0": bytes(16)}
    ),
    "an array of bytes": lambda: archive(state_of(b"cbuiltins\nbytearray\n" + numbers((10**10,)) + b"R")),
    "a storage that is made": lambda: archive(
        state_of(b"ctorch.storage\nUntypedStorage\n" + numbers((10**10,)) + b"R")
    ),
    "a tensor that is made": lambda: archive(state_of(b"ctorch\nTensor\n" + numbers((10**5, 10**5)) + b"R")),
    "many members": _many,
    "an integer of many digits": lambda: archive(state_of(integer(10**500))),
    "half a character": lambda: archive(state_of(text("\ud800"))),
    "no pickle": lambda: archive(b""),
    "not a zip file": lambda: b"not a checkpoint",
    "a bare pickle": lambda: pickle.dumps({"params": {}}, protocol=2),
    "a tar file": _tar,
    "the format before zip": _legacy,
    "TorchScript": _script,
}
