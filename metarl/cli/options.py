"""Words on the command line into options.

The fields of a dataclass become flags; tyro makes help and checks of them. Every mistake becomes one line that
says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

import tyro

from metarl.errors import UserError, unknown
from metarl.learning.brought import blame

Id = Annotated[str | None, tyro.conf.arg(metavar="ID")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Count = Annotated[int | None, tyro.conf.arg(metavar="INT")]


def fail(message: str) -> NoReturn:
    """End with a UserError."""
    raise UserError(message)


def check_output(path: Path | None) -> None:
    """See to it, before any work, that a file can be written."""
    if path is None:
        return
    if not path.parent.is_dir():
        fail(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        fail(f"cannot write {path}: it is a folder, or writing there is not allowed")


class Group(NamedTuple):
    """A dataclass whose fields become flags."""

    name: str
    kind: type
    default: Any = dataclasses.MISSING


def parse(prog: str, words: Sequence[str], *groups: Group) -> list[Any]:
    """An instance of every group's dataclass from flags.

    Flags carry no prefix. Where a later group has a flag of an earlier one, the earlier one gets it
    and the later is told apart as `--group.flag`; its other flags may then be written either way.

    Raises:
        UserError: an unknown flag, or a value of the wrong type or out of range.
    """
    fields: list[Any] = []
    spelling: dict[str, str] = {}  # flag as typed -> flag as tyro knows it
    for name, kind, default in groups:
        own = flags(kind, pairs=name != "command")
        clash = bool(own & spelling.keys())
        for flag in own:
            prefixed = f"--{name}.{flag[2:]}" if clash else flag
            spelling.setdefault(flag, prefixed)
            spelling.setdefault(prefixed, prefixed)
        marked = Annotated[kind, tyro.conf.FlagCreatePairsOff] if name == "command" else kind
        flat = marked if clash else Annotated[marked, tyro.conf.OmitArgPrefixes]
        preset = () if default is dataclasses.MISSING else (dataclasses.field(default=default),)
        fields.append((name, flat, *preset))
    known = spelling | {"--help": "--help"}
    translated = [_translate(word, known) for word in words]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed: Any = tyro.cli(
                dataclasses.make_dataclass("Options", fields, frozen=True, kw_only=True),
                args=translated,
                prog=prog,
                description="",
            )
    except SystemExit as done:
        if done.code:
            fail(_unboxed(errors.getvalue()))
        raise
    except UserError:
        raise
    except Exception as error:
        brought = [group.kind for group in groups if group.kind.__module__.partition(".")[0] != "metarl"]
        if not brought:
            raise
        names = " or ".join(f"{kind.__module__}:{kind.__qualname__}" for kind in brought)
        raise UserError(f"cannot make {names}: {blame(error)}") from error
    return [getattr(parsed, name) for name, *_ in groups]


def flags(kind: type, *, pairs: bool) -> set[str]:
    """The flags of a dataclass; with `pairs`, a boolean field has --x and --no-x."""
    fields = {field.name.replace("_", "-"): field.type in (bool, "bool") for field in dataclasses.fields(kind)}
    return {f"--{name}" for name in fields} | {f"--no-{name}" for name, switch in fields.items() if switch and pairs}


def _translate(word: str, known: Mapping[str, str]) -> str:
    """A word with its flag as tyro knows it; anything that is no flag as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    flag = name.replace("_", "-")
    if flag not in known:
        raise unknown("option", name, sorted(known.keys() - {"--help"}))
    return known[flag] + equals + value


def _unboxed(text: str) -> str:
    """The message in one of tyro's boxes."""
    drawn = "╭" in text  # else stdout has no UTF-8, and the title stands above a rule of its own
    lines = [line.strip("│| ") for line in text.splitlines() if not line.startswith(("╭", "╰"))]
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line and set(line) <= {"─", "-"}:
            blocks.append([])
        else:
            blocks[-1].append(line)
    message = " ".join(blocks[0 if drawn or len(blocks) == 1 else 1]) or " ".join(text.split())
    for name in ("agent", "family", "dataset", "command"):
        message = message.removeprefix(f"Error parsing {name}: ")
    message = re.sub(r"no type matching .*<class '\w+'>: (.+)", r"\1", message)  # an optional value
    message = re.sub(r"invalid literal for int\(\) with base \d+: (.+)", r"\1 is not an integer", message)
    message = re.sub(r"could not convert string to float: (.+)", r"\1 is not a number", message)
    return message.removeprefix("Error parsing ")


def peek(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag that decides which others exist."""
    last = None
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag:
            last = value if equals else (words[i + 1] if i + 1 < len(words) else None)
    return last


def first(words: Sequence[str], what: str, command: str) -> tuple[str, list[str]]:
    """The first word, which is no flag, and the others."""
    if not words or words[0].startswith("-"):
        fail(f"{what} comes first: metarl {command} {what} [options]; see metarl {command} --help")
    return words[0], list(words[1:])


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether help is all that is wanted."""
    return bool(words) and words[0] in ("-h", "--help")
