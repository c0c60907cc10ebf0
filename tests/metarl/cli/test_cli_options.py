from dataclasses import dataclass
from typing import Any

import pytest

from metarl.cli import options
from metarl.errors import UserError


@dataclass(frozen=True)
class First:
    """First.

    Attributes:
        out: required.
        seed: a number.
        loud: a switch.
    """

    out: str
    seed: int = 0
    loud: bool = False


@dataclass(frozen=True)
class Second:
    """Second.

    Attributes:
        seed: clashes with First's.
        rate: a number.
    """

    seed: int = 5
    rate: float = 0.5
    keep: bool = True


def parse(*words: str) -> list[Any]:
    return options.parse(
        "test", words, options.Group("command", First), options.Group("family", Second, Second(rate=0.25))
    )


def test_a_flag_of_two_groups_belongs_to_the_first() -> None:
    assert parse("--out", "a", "--seed", "3") == [First("a", 3), Second(rate=0.25)]
    assert parse("--out=a", "--family.seed", "7", "--rate", "1") == [First("a"), Second(seed=7, rate=1.0)]
    assert parse("--out", "a", "--family.rate=2", "--loud") == [First("a", loud=True), Second(rate=2.0)]
    with pytest.raises(UserError, match="unknown option '--no-loud'"):
        parse("--out", "a", "--no-loud")


def test_peek_reads_a_flag_either_way() -> None:
    assert options.peek(["a", "--family", "x"], "--family") == "x"
    assert options.peek(["--preset_config=x"], "--preset-config") == "x"
    assert options.peek(["--family"], "--family") is None
    assert options.peek(["--families", "x"], "--family") is None
