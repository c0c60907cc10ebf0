"""Documents of others: what JSON's readers differ about is refused, and so is what would fill the memory."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fuzzing.doors import damage
from hypothesis import given
from hypothesis import strategies as st

from metarl.documents import check_plain, fits, parse_json, read_regular

texts, integers = st.text(st.characters(codec="utf-8")), st.integers(-(2**63), 2**64 - 1)
plain = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_whatever_is_plain_comes_back(document: Any) -> None:
    assert parse_json(json.dumps(document).encode()) == document
    assert parse_json(json.dumps(document, ensure_ascii=False).encode("utf-8-sig")) == document


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"[1] 2", "it is not JSON"),
        (b"NaN", "it holds NaN, which is not JSON"),
        (b"[-Infinity]", "it holds -Infinity"),
        (b"[1e999]", "too large or none"),
        (str(10**400).encode(), "an integer of more than 64 bits"),
        (b"1" * 5000, "limit"),
        (b'{"a": 1, "b": 2, "a": 1}', "it gives a twice"),
        (b'{"x": [{"a": 1, "a": 1}]}', "it gives a twice"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\udc00": 1}', "half of a surrogate pair"),
        (damage.nested(65).encode(), "more than 64 deep"),
        (damage.nested(100_000).encode(), "more than 64 deep"),
        (damage.nested(100_000, "{").encode(), "more than 64 deep"),
        (b"[" + b"[]," * 2_000_000 + b"[]]", "more than 2,000,000 lists and objects"),
        ("é".encode("latin-1"), "it is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "it is not UTF-8"),
        ("[1]".encode("utf-32"), "it is not"),
    ],
)
def test_what_is_no_document_is_refused_in_one_line(data: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refusal:
        parse_json(data)
    assert "\n" not in str(refusal.value)


def test_as_deep_as_is_allowed() -> None:
    assert parse_json(damage.nested(64).encode()) == json.loads(damage.nested(64))


def test_only_regular_files_of_a_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"12345")
    assert read_regular(tmp_path / "whole", 5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 7 << 30)
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="no regular file"):
            read_regular(path)
    with pytest.raises(ValueError, match="7,516,192,768 bytes, and at most"):
        read_regular(tmp_path / "sparse")
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


def test_numbers_that_are_not_finite_may_be_allowed() -> None:
    check_plain([float("inf")], finite=False)
    with pytest.raises(ValueError, match="too large or none"):
        check_plain([float("inf")])


@pytest.mark.parametrize(
    ("value", "like", "does"),
    [
        ("a", str, True),
        (1, str, False),
        (True, int, False),
        (1, float, True),
        (["a", "b"], [str], True),
        (["a", 1], [str], False),
        ({"a": {"b": [1]}, "c": 0}, {"a": {"b": [int]}}, True),
        ({"a": {}}, {"a": {"b": [int]}}, False),
        ([], {}, False),
        (None, str, False),
    ],
)
def test_forms(value: Any, like: Any, does: bool) -> None:
    assert fits(value, like) is does
