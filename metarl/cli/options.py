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
from typing import Annotated, Any, NamedTuple, NoReturn, get_type_hints

import tyro

from metarl.errors import UserError, shown, unknown
from metarl.learning.brought import blame
from metarl.learning.settings import check_whole_numbers

Id = Annotated[str | None, tyro.conf.arg(metavar="ID")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Count = Annotated[int | None, tyro.conf.arg(metavar="INT")]


def fail(message: str) -> NoReturn:
    """End with a UserError."""
    raise UserError(message)


def check_path(value: Any) -> None:
    """Refuse a path, or one among several, that no file can have, or whose folder must not be looked into.

    Raises:
        UserError: it is too long, holds a NUL, is a loop of links, or lies in a folder that is closed.
    """
    for path in value if isinstance(value, tuple) else (value,):
        if not isinstance(path, Path):
            continue
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"{shown(str(path))} is no path that can be used here: {reason}; give another one"
            ) from None


class Group(NamedTuple):
    """A dataclass whose fields become flags."""

    name: str
    kind: type
    default: Any = dataclasses.MISSING


class Words(NamedTuple):
    """Options as they are typed: those on the command line come before those of a file."""

    typed: Sequence[str]
    file: Mapping[str, Sequence[str]] = {}  # flag -> the words after it
    where: str = ""  # the file
    complete: bool = False  # whether the file leaves nothing of the agent's config to presets

    def peek(self, flag: str) -> str | None:
        """The value of a flag that decides which others exist."""
        of_file = self.file.get(flag, [])
        return peek(self.typed, flag) or (of_file[0] if of_file else None)

    @property
    def ask_for_help(self) -> bool:
        """Whether help is wanted on the options, as far as they are known."""
        return "--help" in self.typed or "-h" in self.typed


def parse(prog: str, words: Sequence[str] | Words, *groups: Group) -> list[Any]:
    """An instance of every group's dataclass from flags.

    Flags carry no prefix. Where a later group has a flag of an earlier one, the earlier one gets it
    and the later is told apart as `--group.flag`; its other flags may then be written either way.

    Raises:
        UserError: an unknown flag, or a value of the wrong type or out of range.
    """
    words = words if isinstance(words, Words) else Words(words)
    spelling = _spelling(groups)
    parsed = _ask_tyro(prog, _translated(words, spelling, groups), groups, spelling)
    made = [getattr(parsed, group.name) for group in groups]
    for each in made:
        check_whole_numbers(each)
        for field in dataclasses.fields(each):
            check_path(getattr(each, field.name))
    return made


def parse_last(prog: str, words: Words, *groups: Group) -> Any:
    """An instance of the last group's dataclass alone, whatever the words say about the others."""
    spelling, last = _spelling(groups), groups[-1]
    own = {spelling[f"--{last.name}.{flag[2:]}"] for flag in flags(last.kind, pairs=True)}
    tokens: list[str] = []
    mine = False
    for token in _translated(words, spelling, groups):
        if token.startswith("--"):
            mine = token.partition("=")[0] in own
        tokens += [token] if mine else []
    return getattr(_ask_tyro(prog, tokens, (last,), spelling), last.name)


def _spelling(groups: Sequence[Group]) -> dict[str, str]:
    """Every flag as it may be typed -> as tyro knows it."""
    spelling: dict[str, str] = {}
    for name, kind, _ in groups:
        own = flags(kind, pairs=name != "command")
        clash = bool(own & spelling.keys())
        for flag in own:
            prefixed = f"--{name}.{flag[2:]}"
            spelling.setdefault(flag, prefixed if clash else flag)
            spelling.setdefault(prefixed, prefixed if clash else flag)
    return spelling


def _translated(words: Words, spelling: Mapping[str, str], groups: Sequence[Group]) -> list[str]:
    """The words, and those of the file that the command line does not say otherwise, with flags as tyro knows them."""
    known = dict(spelling) | {"--help": "--help"}
    typed = [_translate(word, known) for word in words.typed]
    said = {_positive(word.partition("=")[0]) for word in typed if word.startswith("--")}
    repeated = {spelling[f"--{group.name}.{name}"] for group in groups for name in _repeatable(group.kind)}
    of_file: list[str] = []
    for flag, values in words.file.items():
        if flag not in known:
            names = sorted(name.removeprefix("--") for name in spelling if "." not in name)
            raise unknown(f"option in {words.where}", flag.removeprefix("--"), names)
        if _positive(known[flag]) not in said:
            again = [word for value in values for word in (known[flag], value)]
            of_file += again if known[flag] in repeated else [known[flag], *values]
    return [*of_file, *typed]


def _repeatable(kind: type) -> list[str]:
    """The options that are given once for each of their values."""
    hints = get_type_hints(kind, include_extras=True)
    append = tyro.conf.UseAppendAction
    return [name.replace("_", "-") for name, hint in hints.items() if append in getattr(hint, "__metadata__", ())]


def _positive(flag: str) -> str:
    """A flag without its "no-"."""
    group, dot, name = flag.removeprefix("--").rpartition(".")
    return f"--{group}{dot}{name.removeprefix('no-')}"


def _ask_tyro(prog: str, tokens: Sequence[str], groups: Sequence[Group], spelling: Mapping[str, str]) -> Any:
    fields: list[Any] = []
    for name, kind, default in groups:
        marked = Annotated[kind, tyro.conf.FlagCreatePairsOff] if name == "command" else kind
        apart = any(spelling[f"--{name}.{flag[2:]}"] != flag for flag in flags(kind, pairs=False))
        flat = marked if apart else Annotated[marked, tyro.conf.OmitArgPrefixes]
        preset = () if default is dataclasses.MISSING else (dataclasses.field(default=default),)
        fields.append((name, flat, *preset))
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                dataclasses.make_dataclass("Options", fields, frozen=True, kw_only=True),
                args=list(tokens),
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
        shown = [one for one in known if one != "--help" and ("." not in one or known[one] == one)]
        raise unknown("option", name, sorted(shown))
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
    for word in words[: next((i for i, word in enumerate(words) if word.startswith("-")), len(words))]:
        check_path(Path(word))
    return words[0], list(words[1:])


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether help is all that is wanted."""
    return bool(words) and words[0] in ("-h", "--help")
