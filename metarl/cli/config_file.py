"""Options from a file: YAML, JSON, a run's config.json or the run's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metarl import registry
from metarl.cli.options import check_path, fail
from metarl.documents import check_plain, decoded, once, parse_json, read_regular
from metarl.errors import UserError, one_line, shown
from metarl.naming import names_in
from metarl.plugins import plugins

LONGEST = 1 << 16  # bytes of a file in YAML, whose reader is slow
RECORD = {"learner", "config", "source", "seed"}  # what tells a run's config.json from other files


class FileOptions(NamedTuple):
    """What a file says, as if typed: each flag with its words."""

    path: Path
    agent: str | None
    flags: dict[str, list[str]]  # "--iterations": ["5"]
    complete: bool = False  # whether it says all of the agent's config


def read_options(path: Path, trust: bool = False) -> FileOptions:
    """The options of a file.

    In YAML and JSON a key is an option without its dashes, `agent` the agent: `hidden: [64, 64]`, `lean: false`.
    Of a run it is all that the run was made with.

    Args:
        path: of the file.
        trust: whether it may name code that the command line does not.

    Raises:
        UserError: there is no such file, it holds no options, or it names code that is not trusted.
    """
    check_path(path)
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        fail(f"there is no config {file}")
    try:
        document = parse_json(read_regular(file)) if file.suffix == ".json" else _yaml(read_regular(file, LONGEST))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read options from {file}: {one_line(error)}") from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        fail(f"{file} holds no options: it must be a mapping, such as 'iterations: 5'")
    if document.keys() >= RECORD:
        from metarl.runs.record import check_fields

        check_fields({"choices": {}, "device": "cpu"} | document, file)
        return _of_run(file, document, trust)
    agent = document.pop("agent", None)
    if not isinstance(agent, str | None):
        fail(f"agent in {file} is {shown(agent)}; it must be a name")
    own = [] if agent is None or agent in registry.agents() or agent in plugins("agents") else [agent]
    registry.check_names([*own, *names_in(document)], file, trust)
    flags = {}
    for key, value in document.items():
        flag, words = _typed(f"--{key}", value, file)
        if flag in flags:
            fail(f"{file} gives {flag.removeprefix('--')} twice")
        if flag == "--config":
            fail(f"{file} names another config, {shown(value)}; give the options of both in one file")
        flags[flag] = words
    return FileOptions(file, agent, flags)


def run_options(folder: Path, trust: bool = False) -> FileOptions:
    """What continues a run: all that it was made with, and its folder.

    Raises:
        UserError: there is no run in the folder.
    """
    from metarl.runs.record import read_record

    check_path(folder)
    file = folder / "config.json"
    options = _of_run(file, read_record(folder), trust)
    options.flags.update({"--out": [str(folder)], "--resume": []})
    return options


def _yaml(data: bytes) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it repeats a part by an alias, which is not read: write it out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            once([(key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            return super().construct_mapping(node, deep)

    try:
        document = yaml.load(decoded(data), Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("its lists and mappings lie too deep") from None
    check_plain(document, finite=False)
    return document


def _of_run(file: Path, record: Mapping[str, Any], trust: bool) -> FileOptions:
    from metarl.runs.record import build

    registry.check_code({**record, "choices": record.get("choices", {})}, file, trust)
    learner: Any = registry.learner(record["learner"], f"agent in {file}")
    config = dataclasses.asdict(build(learner.Config, record["config"], f"config of {file}"))  # of older versions too
    source, choices = record["source"], record.get("choices", {})
    name = choices.get("where", source.get("name", ""))
    group = registry.kind_of(name)
    flags = {f"--{group}": [name], "--seed": [str(record["seed"])], "--device": [str(record.get("device", "cpu"))]}
    place = {"data_root": choices["data_root"]} if "data_root" in choices else {}
    for part, options in (("agent", config), (group, source.get("options", {}) | place)):
        for key, value in options.items():
            flag, words = _typed(f"--{part}.{key}", value, file)
            flags[flag] = words
    return FileOptions(file, record["learner"], flags, complete=True)


def _typed(flag: str, value: Any, file: Path) -> tuple[str, list[str]]:
    """An option as it is typed."""
    flag = flag.replace("_", "-")
    if isinstance(value, bool):
        group, dot, name = flag.removeprefix("--").rpartition(".")
        return (flag if value else f"--{group}{dot}no-{name}"), []
    words = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(word, str | int | float | None) and not isinstance(word, bool) for word in words):
        kinds = "a number, a text, true, false or a list"
        fail(f"{flag.removeprefix('--')} in {file} is {shown(value)}; it must be {kinds}")
    return flag, [str(word) for word in words]
