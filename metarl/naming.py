"""Things that users bring by name: `mypackage.module:Name`."""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from metarl.errors import UserError


def is_name(text: str) -> bool:
    """Whether a text has the form `module:Name`, so that it is no name of ours."""
    module, colon, attribute = text.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def is_module(text: str) -> bool:
    """Whether a text names a module to look for: `package.module`, or a file or package of the current folder."""
    if not all(part.isidentifier() for part in text.split(".")):
        return False
    return "." in text or os.path.isfile(f"{text}.py") or os.path.isfile(os.path.join(text, "__init__.py"))


_consented: set[str] = set()  # what was named by the user of this process, not by a file alone


def consent(names: Iterable[str]) -> None:
    """Take down names that the user gave or allowed, so that files may give them too."""
    _consented.update(names)


def has_consent(name: str) -> bool:
    """Whether a name in a file may be imported: the user has named it, or the program holds that very class already."""
    module, colon, attribute = name.partition(":")
    if name in _consented:
        return True
    if module.partition(".")[0] in sys.stdlib_module_names or module not in sys.modules:
        return False
    if not colon:
        return True
    value: Any = sys.modules[module]
    for part in attribute.split("."):
        value = getattr(value, part, None)
    return isinstance(value, type) or (module == "__main__" and value is None)  # nothing is there that could run


def names_in(document: Any) -> Iterator[str]:
    """Every text of the form `module:Name` among the values of plain data."""
    if isinstance(document, str):
        if is_name(document):
            yield document
    elif isinstance(document, dict | list | tuple):
        for value in document.values() if isinstance(document, dict) else document:
            yield from names_in(value)


def resolve_module(name: str, what: str) -> ModuleType:
    """The module of a dotted name, looked for as `resolve` does.

    Raises:
        UserError: there is no such module, or importing it fails.
    """
    module = _import(name, f"{what} is {name}")
    consent([name])
    return module


def resolve(name: str, what: str) -> Any:
    """The object called `module:Name`, where Name may be a path of attributes.

    A module that Python does not find is looked for in the current folder too: a console script, unlike
    `python -m`, does not look there. Where it is found there the folder stays on `sys.path`, after all others, since
    the module may import its neighbours late.

    Args:
        name: such as `mypackage.module:Pendulums`.
        what: what is being named, for the error: "--family".

    Raises:
        UserError: the text has another form, there is no such module or attribute, or importing it fails.
    """
    if not is_name(name):
        raise UserError(f"{what} is {name!r}; name your own as module:Name, such as mypackage.module:Name")
    module_name, _, path = name.partition(":")
    module = _import(module_name, f"{what} is {name}")
    value: Any = module
    for attribute in path.split("."):
        try:
            value = getattr(value, attribute)
        except AttributeError:
            close = difflib.get_close_matches(attribute, [word for word in dir(value) if word[0] != "_"], 1)
            hint = f": did you mean {close[0]}?" if close else ""
            where = module_name if value is module else f"{module_name}:{path.partition('.' + attribute)[0]}"
            raise UserError(f"{what} is {name}; {where} has no {attribute}{hint}") from None
    consent([name])
    return value


def _import(module: str, said: str) -> ModuleType:
    """The module; an error begins with what was said."""
    package = module.partition(".")[0]
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        _look_in_current_folder(package)
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module}.".startswith(f"{missing}."):
            hint = "; leave .py out" if missing.endswith(".py") else ""
            raise UserError(f"{said}; there is no module {missing}, installed or in the current folder{hint}") from None
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{said}; importing {module} failed: {reason}") from error


def _look_in_current_folder(package: str) -> None:
    """Put the current folder after all others on `sys.path`, if the package is there."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()
        if importlib.util.find_spec(package) is None:
            sys.path.remove(folder)
