"""Documents that someone has damaged or forged: values in them, and their bytes."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

from fuzzing.case import Draw

NAMES = [
    "",
    " ",
    r"$\frac{$",
    r"$\left(",
    "{}%s\\n",
    "\x1b[2J\x1b]0;owned\x07red",
    "\x9b31m",
    "a\rb\nc\td\0e",
    "a\u202egnp.exe",
    "zero\u200bwidth\ufeff",
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "x" * 100_000,
    "é" * 3000,
    "../../etc/passwd",
    "/dev/zero",
    "[bold]rich[/bold] [/]",
    "| a | b |",
    "metarl",
    "evil:Thing",
    "os:abort",
    "\ud800",
]
NUMBERS: list[Any] = [0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 5e-324, 1.7e308, -1.7e308]
VALUES: list[Any] = [None, True, False, [], {}, [[]], {"": {}}, [None], {"a": 1}, "text", float("nan"), float("inf")]


def nested(depth: int, kind: str = "[") -> str:
    """A document that lies so deep."""
    return "[" * depth + "]" * depth if kind == "[" else '{"a":' * depth + "1" + "}" * depth


def values(draw: Draw) -> Any:
    """A value that does not belong where it is put."""
    value = draw(
        st.one_of(
            st.sampled_from(VALUES),
            st.sampled_from(NUMBERS),
            st.sampled_from(NAMES),
            st.text(max_size=8),
            st.integers(),
            st.floats(),
            st.just([0.0] * 1000),
            st.just(json.loads(nested(60))),
            st.just(json.loads(nested(200, "{"))),
        )
    )
    return copy.deepcopy(value)  # the next change may lie in it


def forged(draw: Draw, document: Any) -> Any:
    """The document with a few values replaced, added, removed or repeated, anywhere in it."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        holder = document
        for _ in range(draw(st.integers(0, 4))):
            inner = list(holder.values()) if isinstance(holder, dict) else holder
            inner = [each for each in inner if isinstance(each, dict | list) and each]
            if not inner:
                break
            holder = draw(st.sampled_from(inner))
        if isinstance(holder, dict) and holder:
            key = draw(st.sampled_from(sorted(holder)))
            change = draw(st.sampled_from(["replace", "replace", "replace", "add", "remove", "rename"]))
            if change == "remove":
                del holder[key]
            elif change == "rename":
                holder[draw(st.sampled_from(NAMES))] = holder.pop(key)
            else:
                holder[key if change == "replace" else draw(st.sampled_from(NAMES))] = values(draw)
        elif isinstance(holder, list) and holder:
            place = draw(st.integers(0, len(holder) - 1))
            change = draw(st.sampled_from(["replace", "replace", "remove", "repeat"]))
            if change == "replace":
                holder[place] = values(draw)
            elif change == "remove":
                del holder[place]
            else:
                holder.insert(place, holder[place])
    return document


def dumped(document: Any) -> bytes:
    """As JSON, also what JSON has no words for."""
    return json.dumps(document, indent=2).encode("utf-8", "surrogatepass")


def damaged(draw: Draw, data: bytes) -> bytes:
    """The bytes cut, changed, repeated, in another encoding, or others altogether."""
    kind = draw(st.sampled_from(["cut", "flip", "twice", "insert", "encoding", "other"]))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    if kind == "cut":
        return data[:at]
    if kind == "flip":
        return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    if kind == "twice":
        return data + data
    if kind == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=9)) + data[at:]
    if kind == "encoding":
        return data.decode("latin-1").encode(draw(st.sampled_from(["utf-16", "utf-8-sig", "utf-32", "cp037"])))
    return OTHERS[draw(st.integers(0, len(OTHERS) - 1))]


def document(draw: Draw, original: bytes) -> bytes:
    """A document of JSON as somebody may have left it."""
    if draw(st.booleans()):
        return dumped(forged(draw, json.loads(original)))
    return damaged(draw, original)


OTHERS = [  # what may lie in a document's place
    b"",
    b"\0" * 1000,
    b"null",
    b"NaN",
    b"[]",
    b"{}",
    b'""',
    b"1" * 5000,
    b'{"version": 1, "version": 1}',
    nested(100_000).encode(),
    nested(100_000, "{").encode(),
    b"[" + b"[]," * 3_000_000 + b"[]]",
    b'{"a": "\\ud800"}',
    b"[1e999]",
    b"\x80\x04\x95",
    b"PK\x03\x04",
]
