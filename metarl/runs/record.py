"""config.json: what a run was asked to do, and whether it is the same as another."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from metarl.documents import fits, parse_json, read_regular
from metarl.errors import UserError, shown
from metarl.files import sync, unfinished, write_atomically
from metarl.runs import environment, lock
from metarl.runs.folders import run_around
from metarl.version import __version__

VERSION = 1  # of config.json
CONFIG = "config.json"
IDENTITY = ("learner", "source", "seed", "config")  # the parts of a record that say which run it is


class NamedSource(Protocol):
    """The part of a `Source` that identifies it."""

    @property
    def name(self) -> str:
        """The family's id or the data set's name."""

    def options(self) -> dict[str, Any]:
        """Its preset and options, plain data."""


def new_record(learner: str, config: Any, source: NamedSource, seed: int, device: str) -> dict[str, Any]:
    """What config.json holds."""
    return {
        "version": VERSION,
        "metarl": __version__,
        "learner": learner,
        "config": _as_json(dataclasses.asdict(config), "the config"),
        "source": _as_json({"name": source.name, "options": source.options()}, "the source"),
        "seed": int(seed),
        "device": str(device),
        "choices": _home(source),
        "environment": environment.environment(),
    }


def _home(source: NamedSource) -> dict[str, str]:
    """Where the class of a source lies that is not of this package, so that the run can make it again."""
    kind = type(source)
    return {} if kind.__module__.partition(".")[0] == "metarl" else {"where": f"{kind.__module__}:{kind.__qualname__}"}


def _as_json(value: Any, what: str) -> Any:
    """The value as JSON gives it back (tuples become lists)."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} cannot be stored as JSON ({error}): {value}") from None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write config.json, whole."""
    write_atomically(folder / CONFIG, (json.dumps(record, indent=2) + "\n").encode())


def begin(folder: Path, record: Mapping[str, Any]) -> lock.Lock:
    """Make the folder of a new run.

    Raises:
        UserError: it holds another run or anything else, is written by another process, or cannot be written; nothing
            is changed.
    """
    try:
        if (folder / CONFIG).exists():
            raise UserError(f"{folder} already holds a run; resume it, or choose another folder")
        if (around := run_around(folder)) is not None:
            raise UserError(f"{folder} lies inside the run {around}; choose a folder outside of it")
        if folder.exists() and not is_fresh(folder):
            raise UserError(f"{folder} is not an empty folder; choose another one for the run")
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
        mine = lock.Lock(folder)
        if not is_fresh(folder):  # somebody was quicker
            mine.release()
            raise UserError(f"{folder} already holds a run; resume it, or choose another folder")
        for leftover in unfinished(folder / CONFIG):
            leftover.unlink()
        write_record(folder, record)
    except OSError as error:
        raise UserError(f"{folder} cannot hold a run: {error.strerror}; choose another folder") from None
    return mine


_FIELDS = {"learner": str, "config": dict, "source": dict, "seed": int, "device": str, "choices": dict}
_FORMS = {"source": {"name": str, "options": dict}, "choices": {}, "environment": {}}  # and those of what lies in them


def read_record(folder: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / CONFIG
    try:
        record = parse_json(read_regular(path))
    except NotADirectoryError:
        raise UserError(f"{folder} is no folder; give the one that training made") from None
    except FileNotFoundError:
        if (folder / "checkpoints").is_dir():
            raise UserError(f"{path} is missing, though there are checkpoints: put it back from a copy") from None
        raise UserError(f"{folder} holds no run (no {CONFIG} in it); give a folder that training made") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(record, dict) or record.get("version") != VERSION:
        raise UserError(f"{path} is no run of this metarl, which reads version {VERSION}")
    check_fields(record, path)
    return record


def check_fields(record: Mapping[str, Any], path: Path) -> None:
    """Check that a record, read from a file, has its fields.

    Raises:
        UserError: one is missing or of the wrong type.
    """
    wrong = [name for name, kind in _FIELDS.items() if type(record.get(name)) is not kind]
    wrong += [name for name, form in _FORMS.items() if name not in wrong and not fits(record.get(name, {}), form)]
    if wrong:
        raise UserError(f"{path} is damaged: missing or of the wrong type: {', '.join(wrong)}")
    environment.check(record, path)


def choice(record: Mapping[str, Any], path: Path, name: str, like: Any) -> Any | None:
    """A choice that a run remembers, or None.

    Args:
        record: the run's.
        path: of its config.json.
        name: of the choice.
        like: the form it must have (`metarl.documents.fits`); `object` for any.

    Raises:
        UserError: it has another form.
    """
    value = record["choices"].get(name)
    if value is not None and like is not object and not fits(value, like):
        raise UserError(f"{path} is damaged: its choice {name!r} is {shown(value)}")
    return value


def is_fresh(folder: Path) -> bool:
    """Whether the folder holds nothing, or only a config.json that was never completed and a lock."""
    return folder.is_dir() and set(folder.iterdir()) <= {folder / lock.NAME, *unfinished(folder / CONFIG)}


def check_identity(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], config: Any) -> None:
    """Raise UserError unless two records are of one run; see `differing`."""
    if different := differing(old, new, config):
        schedule = "iterations too: this learner's schedule depends on them"
        iterations = "iterations may be raised" if _may_grow(config) else schedule
        raise UserError(
            f"{folder} holds another run: {'; '.join(different)}; resume with the same values "
            f"({iterations}), or choose another folder"
        )


def differing(old: Mapping[str, Any], new: Mapping[str, Any], config: Any) -> list[str]:
    """What tells two records of runs apart, in words.

    The new one may have more iterations, unless the class of its config says `iterations_may_grow = False`. What no
    number of a run depends on may be another: how often it is saved, and the fields that the class names in
    `decide_nothing`.
    """
    free = {f"config.{name}" for name in ("checkpoint_every", *getattr(config, "decide_nothing", ()))}
    return [
        f"{name} is {shown(before)} there and {shown(now)} here"
        for part in IDENTITY
        for name, before, now in differences(part, old[part], new[part])
        if name not in free
        and not (
            _may_grow(config)
            and name == "config.iterations"
            and isinstance(before, int)
            and isinstance(now, int)
            and now > before
        )
    ]


def _may_grow(config: Any) -> bool:
    grows: bool = getattr(config, "iterations_may_grow", True)
    return grows


def differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two parts of a record differ: the dotted name below `name`, and the value of each; "absent" for none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in old or key not in new:
                yield f"{name}.{key}", old.get(key, "absent"), new.get(key, "absent")
            else:
                yield from differences(f"{name}.{key}", old[key], new[key])
    elif old != new:
        yield name, old, new


def build(kind: Any, value: Any, where: str) -> Any:
    """A value of a config's type from its JSON: dataclasses from dicts, tuples from lists."""
    if get_origin(kind) in (Union, types.UnionType):
        for member in get_args(kind):
            with contextlib.suppress(UserError):
                return build(member, value, where)
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build_dataclass(kind, value, where)
    elif get_origin(kind) is tuple and isinstance(value, list):
        of = get_args(kind)
        each = of[:1] * len(value) if of[-1] is Ellipsis else of
        if len(each) == len(value):
            return tuple(build(k, item, where) for k, item in zip(each, value, strict=True))
    elif _fits(kind, value):
        return value
    raise UserError(f"the {where} is {shown(value)}, which is not {getattr(kind, '__name__', kind)}")


def check_readable(config: Any, where: str) -> None:
    """Check that a config's values are of its fields' types, so that its record can be read again.

    Raises:
        UserError: one is not.
    """
    build(type(config), _as_json(dataclasses.asdict(config), "the config"), where)


def as_of_today(kind: type, config: dict[str, Any]) -> dict[str, Any]:
    """A config that was recorded, with today's names of its fields and the defaults of those that came later."""
    try:
        today: dict[str, Any] = _as_json(dataclasses.asdict(build(kind, config, "config")), "the config")
    except UserError:
        return config  # which is another's, or damaged: what differs is told field by field
    return today


def _build_dataclass(kind: Any, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    renamed: Mapping[str, str] = getattr(kind, "renamed", {})  # old name of a field -> today's
    value = {renamed.get(name, name): item for name, item in value.items()}
    if unknown := sorted(value.keys() - {field.name for field in dataclasses.fields(kind)}):
        raise UserError(f"the {where} has unknown fields: {shown(unknown)}")
    fields = {name: build(hints[name], item, f"{name} in the {where}") for name, item in value.items()}
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"the {where} does not fit: {error}") from None


def _fits(kind: Any, value: Any) -> bool:
    """Whether a JSON value that needs no building is of the type, as far as a config's types go."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (bool, int, float, str, types.NoneType):
        return type(value) is kind or (kind is float and type(value) is int)
    return not dataclasses.is_dataclass(kind) and get_origin(kind) is not tuple
