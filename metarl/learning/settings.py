"""Checks that the configs of learners share."""

from __future__ import annotations

import dataclasses
from typing import Any

from metarl.errors import UserError, shown

LARGEST = 2**63 - 1  # of a whole number, and the least is as far below 0


def check_range(
    config: Any, *names: str, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    """Check that fields of a config lie in a range.

    Args:
        config: a learner's config.
        names: its fields; None in one means unset, a tuple is checked entry by entry.
        least: no number may be smaller.
        above: every number must be larger.
        most: no number may be larger.

    Raises:
        UserError: one lies outside, or is NaN; its flag is named.
    """
    if least is not None and most is not None:
        allowed = f"between {least} and {most}"
    else:
        limits = {"at least": least, "above": above, "at most": most}
        allowed = ", ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            fits = number is None or (
                (least is None or number >= least)
                and (above is None or number > above)
                and (most is None or number <= most)
            )
            if not fits:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be {allowed}")


def check_whole_numbers(options: Any) -> None:
    """Check that the whole numbers of options are such as arrays and files take: of 64 bits.

    Args:
        options: a dataclass; a tuple in it is checked entry by entry.

    Raises:
        UserError: one is larger; its flag is named.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and abs(number) > LARGEST:
                raise UserError(f"--{field.name.replace('_', '-')} is {shown(number)}; it must be at most {LARGEST}")
