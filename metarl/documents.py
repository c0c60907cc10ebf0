"""Files of plain data that others may have written, read within limits: JSON above all.

Nothing but a regular file is opened, so that no pipe or device holds the reader up; size, depth and numbers are
limited, so that a small file cannot fill the memory; and what readers of JSON differ about (a name given twice, NaN,
half a character) is refused.
"""

from __future__ import annotations

import json
import math
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

LARGEST = 64 << 20  # bytes of a document
CONTAINERS = 2_000_000  # lists and objects in one: an empty one takes twenty times its bytes in memory
DEEPEST = 64  # lists and objects within one another
INTEGERS = range(-(2**63), 2**64)  # which NumPy holds


def read_regular(path: Path, most: int = LARGEST) -> bytes:
    """The bytes of a regular file.

    Args:
        path: of the file; a link is followed.
        most: bytes that are read.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is a folder, a pipe or a device, or larger.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size:,} bytes, and at most {most:,} are read")
    with path.open("rb") as file:
        return file.read(status.st_size + 1)  # not `most`: Python makes room for as much as is asked for


def parse_json(data: bytes) -> Any:
    """What a JSON document in UTF-8 holds: finite numbers, integers of at most 64 bits, every name once.

    Raises:
        ValueError: it is no such document, or goes beyond the limits above.
    """
    if data.count(b"[") + data.count(b"{") > CONTAINERS:
        raise ValueError(f"it holds more than {CONTAINERS:,} lists and objects")
    try:
        document = json.loads(decoded(data), object_pairs_hook=once, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    check_plain(document)
    return document


def decoded(data: bytes) -> str:
    """Text in UTF-8, with its mark of byte order or without.

    Raises:
        ValueError: it is none.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start:,}") from None


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping whose names are there once; Python's readers keep the last one without a word.

    Raises:
        ValueError: one is there twice.
    """
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it gives {twice} twice")
    return mapping


def check_plain(document: Any, *, finite: bool = True) -> None:
    """Check what a reader of plain data gave against the limits above.

    Args:
        document: lists and mappings of numbers and text.
        finite: whether every number must be.

    Raises:
        ValueError: it is too deep, or holds a number or a text that cannot be used.
    """
    level = [document]
    for depth in range(DEEPEST + 1):
        if depth == DEEPEST and any(isinstance(value, dict | list) for value in level):
            raise ValueError(_TOO_DEEP)
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                for name in value:
                    _check_leaf(name, finite)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            else:
                _check_leaf(value, finite)
        level = below


def _check_leaf(value: Any, finite: bool) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half of a surrogate pair, which is no character") from None
    elif isinstance(value, int):
        if value not in INTEGERS:
            raise ValueError("it holds an integer of more than 64 bits")
    elif finite and isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it holds a number that is too large or none")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not JSON")


_TOO_DEEP = f"its lists and objects lie more than {DEEPEST} deep"


def fits(value: Any, like: Any) -> bool:
    """Whether plain data have a form: a type, `[form]` for lists of it, `{"name": form}` for what a mapping must hold.

    >>> fits({"classes": ["a", "b"], "more": 1}, {"classes": [str]})
    True
    """
    if isinstance(like, dict):
        return isinstance(value, dict) and all(name in value and fits(value[name], form) for name, form in like.items())
    if isinstance(like, list):
        return isinstance(value, list) and all(fits(each, like[0]) for each in value)
    return type(value) is like or (like is float and type(value) is int)
