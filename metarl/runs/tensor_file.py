"""A .pt file that somebody else may have written: looked at before torch reads it, and once more afterwards.

PyTorch's restricted unpickler (`weights_only=True`) is the only way in, and runs no code. What it does not see to is
seen to here: what a file unpacks to is no larger than the file, it makes nothing but plain data and tensors that lie
within the file, and nothing is nested or repeated so that walking through it would never end.
"""

from __future__ import annotations

import io
import pickletools
import struct
import warnings
import zipfile
from typing import Any

import torch

from metarl.documents import DEEPEST

LARGEST = 2 << 30  # bytes of a file
LONGEST_PICKLE = 4 << 20  # bytes of what is not numbers of tensors: some 20,000 tensors
LONGEST_DIRECTORY = 16 << 20  # bytes of the list of a file's members
MEMBERS = 100_000
ENTRIES = 1_000_000  # of all containers of a state together
BITS = 1000  # of an integer, which a float then still holds
REPEATED = 8  # times that the same numbers may stand in a state, as a mean over the file

_CALLED = {  # what a pickle of tensors calls
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",  # of the unsigned types and others that came late
    "torch.storage UntypedStorage",
}
_OPCODES = frozenset(
    {
        *("PROTO", "STOP", "MARK", "GLOBAL", "BINPERSID", "REDUCE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
        *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    }
)
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"  # how the records at the end of a zip file begin


def unpack(data: bytes) -> Any:
    """What a file of plain data and tensors holds: dicts, lists and tuples, every tensor on the CPU.

    Raises:
        ValueError: it is no such file, or goes beyond the limits above.
    """
    check_file(data)
    try:
        _check_pickle(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign formats
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler has no common error type, and its advice is to trust the file
        own = str(error) if type(error) is _RefusedError else "it is no file of plain data and tensors"
        raise ValueError(own) from None
    check_state(state, len(data))
    return state


class _RefusedError(ValueError):
    """What the pickle holds is none of ours."""


def check_file(data: bytes) -> None:
    """Check a file's size and members: uncompressed as torch writes them, together no larger than the file.

    Raises:
        ValueError: it is no such file.
    """
    if len(data) > LARGEST:
        raise ValueError(f"it has {len(data):,} bytes, and at most {LARGEST:,} are read")
    _check_directory(data)
    try:
        members = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError, EOFError) as error:
        raise ValueError(f"it is no intact zip file: {error}") from None
    if any(
        member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size for member in members
    ):
        raise ValueError("a member of it is compressed, which torch's are not")
    if sum(member.file_size for member in members) > len(data):
        raise ValueError("its members are larger than the file")
    names = [member.filename.lower() for member in members]
    if len(set(names)) < len(names):
        raise ValueError("a member's name occurs twice in it")
    pickles = [member for member in members if member.filename.lower().endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it holds no data.pkl, or several")
    if pickles[0].file_size > LONGEST_PICKLE:
        raise ValueError(f"its pickle has {pickles[0].file_size:,} bytes, and at most {LONGEST_PICKLE:,} are read")


def _check_directory(data: bytes) -> None:
    """Check that the list of members ends the file, with nothing after it, and is of a size that can be read."""
    end, end64 = data[-22:], data[-98:-42]
    if len(end) < 22 or end[:4] != _END or end[20:] != b"\0\0":
        raise ValueError("it is no zip file, as torch writes them")
    count, size, offset, trailer = *struct.unpack("<HII", end[10:20]), 22
    if len(end64) == 56 and end64[:4] == _END64:
        count, size, offset = struct.unpack("<QQQ", end64[32:56])
        trailer = 98
    if count > MEMBERS or size > LONGEST_DIRECTORY:
        raise ValueError(
            f"it lists {count:,} members in {size:,} bytes; {MEMBERS:,} and {LONGEST_DIRECTORY:,} are read"
        )
    if offset + size + trailer != len(data):
        raise ValueError("its list of members is not where it says")


def _check_pickle(data: bytes) -> None:
    """Check that the pickle makes nothing but plain data and tensors."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        name = next(name for name in file.namelist() if name.lower().endswith("/data.pkl"))
        pickled = file.read(name)
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name not in _OPCODES:
            raise _RefusedError(f"its pickle does {opcode.name}, which no plain data need")
        if opcode.name == "GLOBAL" and str(argument) not in _CALLED and not _is_type(str(argument)):
            raise _RefusedError(f"it names {str(argument)[:100]!r}, and holds more than plain data and tensors")


def _is_type(name: str) -> bool:
    """Whether a pickle names a type of numbers: torch's storage of it, or the type itself."""
    module, _, kind = name.partition(" ")
    return module == "torch" and (kind.endswith("Storage") or isinstance(getattr(torch, kind, None), torch.dtype))


def check_state(state: Any, file_bytes: int) -> None:
    """Check the types of all that a file of so many bytes holds, and that walking through it comes to an end.

    Raises:
        ValueError: it holds something that is neither plain data nor a plain tensor, or goes beyond the limits above.
    """
    level, entries, numbers = [state], 0, 0
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for value in level:
            if isinstance(value, torch.Tensor):
                numbers += _check_tensor(value)
            elif type(value) is dict:
                if odd := [key for key in value if type(key) not in (str, int)]:
                    raise ValueError(f"a key of it is of type {type(odd[0]).__name__}")
                below += [*value, *value.values()]
            elif type(value) in (list, tuple):
                below += value
            elif type(value) is int and value.bit_length() > BITS:
                raise ValueError(f"it holds an integer of more than {BITS:,} bits")
            elif value is not None and type(value) not in (bool, int, float, str):
                raise ValueError(f"it holds a {type(value).__name__}")
            if len(below) + entries > ENTRIES:
                raise ValueError(f"it holds more than {ENTRIES:,} entries, or some of them many times")
        if numbers > REPEATED * file_bytes:
            raise ValueError("it holds the same numbers many times")
        if not below:
            return
        level, entries = below, entries + len(below)
    raise ValueError(f"its containers lie more than {DEEPEST} deep")


def _check_tensor(value: torch.Tensor) -> int:
    """The bytes of a plain tensor: dense, on the CPU, with a number of its own for each of its elements."""
    if type(value) is not torch.Tensor or value.layout is not torch.strided or value.is_quantized or value.is_nested:
        raise ValueError("it holds a tensor that is no plain one")
    size = value.numel() * value.element_size()
    if value.device.type != "cpu" or value.requires_grad or size > value.untyped_storage().nbytes():
        raise ValueError("it holds a tensor without numbers of its own")
    return size
