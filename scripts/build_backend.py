"""setuptools' build backend; an editable install is found beside a clone that is called `metarl`, too.

An editable install is looked for after everything on the path. A folder without `__init__.py` on the path is a
namespace package, if nothing better is found: so a script beside a clone called `metarl` would import the clone's
folder, with nothing in it. To a package installed in any other way a namespace gives way. The editable wheel gets a
file that makes it give way to this one as well; other packages on the path are found before it, as ever.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the hooks of a build backend

FINDER = "_metarl_suite_editable"
START = "__editable__.metarl_suite.pth"  # read after setuptools' own, whose name goes on with "-": it sorts before "."
HOOK = '''"""Lets a folder called metarl on the path give way to the editable install, as to any other."""

import sys
from importlib.machinery import PathFinder


class NamespaceGivesWay:
    """Finds metarl where it is installed, unless the path has a package of that name with a file."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname != "metarl":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            return spec
        for finder in sys.meta_path:
            if getattr(finder, "__module__", "").startswith("__editable___metarl_suite"):
                return finder.find_spec(fullname, path, target)
        return None


if NamespaceGivesWay not in sys.meta_path:
    sys.meta_path.insert(0, NamespaceGivesWay)
'''


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """The editable wheel of setuptools, and the hook in it."""
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    add_files(Path(wheel_directory, name), {f"{FINDER}.py": HOOK, START: f"import {FINDER}\n"})
    return name


def add_files(wheel: Path, texts: dict[str, str]) -> None:
    """Add files to a wheel, and to the record it keeps of its files."""
    with zipfile.ZipFile(wheel) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    unfinished = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
        for entry, data in entries:
            record = entry.filename.endswith(".dist-info/RECORD")
            archive.writestr(entry, data + "".join(map(_line, texts.items())).encode() if record else data)
    os.replace(unfinished, wheel)


def _line(file: tuple[str, str]) -> str:
    name, data = file[0], file[1].encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"
