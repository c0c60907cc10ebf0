"""Build sdist -> wheel -> import, away from the repository, and compare what came out with the tree.

    python scripts/check_wheel.py

The folders envs/ and agents/ install as metarl.envs and metarl.agents, and two symlinks let editors see
them there. This script shows that packaging is right whatever a checkout made of those symlinks:

1. a copy of the tree is built into an sdist, and the sdist into a wheel;
2. the same copy with each symlink replaced by a text file (a checkout on Windows) gives the same wheel;
3. sdist and wheel hold every module once, the licence and py.typed, and nothing else of the package;
4. the wheel, unpacked into an empty folder, imports every module from there and from nowhere else;
5. so does a script beside a clone called metarl, and an editable install of that clone imports the clone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("envs", "agents")  # folders that install below metarl
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)
LEFT_OUT = {"runs", "results", "shared"}  # folders of the root

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
target, root = sys.argv[1:]
sys.meta_path = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]
sys.path.insert(0, target)
import metarl, metarl.envs, metarl.agents
names = [m.name for m in pkgutil.walk_packages(metarl.__path__, "metarl.")]
for name in names:
    importlib.import_module(name)
files = {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "metarl" and m.__file__}
strangers = {n: f for n, f in files.items() if not f.startswith(target)}
assert not strangers, f"imported from elsewhere: {strangers}"
folders = tuple(f"{root}/{name}/" for name in ("metarl", "envs", "agents"))
used = [m.__file__ for m in sys.modules.values() if (getattr(m, "__file__", None) or "").startswith(folders)]
assert not used, f"files of the repository were used: {used}"
from importlib.metadata import distribution
[script] = [e for e in distribution("metarl-suite").entry_points if e.name == "metarl"]
assert callable(script.load()), script
print(f"imported {len(names) + 1} modules from the wheel")
"""

BESIDE_A_CLONE = """
import site, sys
parent, target, expected = sys.argv[1:]
sys.meta_path = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
for name in [n for n in sys.modules if "_metarl_suite" in n]:
    del sys.modules[name]
sys.path.insert(0, target)  # before this interpreter's own, whose files have the same names
site.addsitedir(target)
sys.path.insert(0, parent)
import metarl, metarl.envs, metarl.agents
assert metarl.__file__ == expected + "/metarl/__init__.py", f"{metarl} is not that of {expected}"
"""


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command; its output is shown only when it fails."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")


def copy_tree(to: Path, *, links_as_text: bool) -> Path:
    """A clean copy of the repository; with `links_as_text`, symlinks become files that hold their target."""

    def ignore(folder: str, names: list[str]) -> set[str]:
        return {*NOT_COPIED(folder, names), *(LEFT_OUT if Path(folder) == ROOT else ())}

    shutil.copytree(ROOT, to, symlinks=True, ignore=ignore)
    for name in LINKED:
        link = to / "metarl" / name
        if links_as_text and link.is_symlink():
            target = os.readlink(link)
            link.unlink()
            link.write_text(target)
    return to


def build(source: Path, out: Path) -> tuple[Path, Path]:
    """The sdist of a source tree, and the wheel built from that sdist."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=source.parent)
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def modules_of_the_tree() -> set[str]:
    """Every file the wheel must hold, by its name there."""
    files = {"metarl/py.typed"}
    for folder, prefix in (("metarl", "metarl"), *((name, f"metarl/{name}") for name in LINKED)):
        for path in (ROOT / folder).rglob("*.py"):  # does not follow the symlinks
            inside = path.relative_to(ROOT / folder).as_posix()
            if inside.split("/")[0] not in LINKED:
                files.add(f"{prefix}/{inside}")
    return files


def check_names(sdist: Path, wheel: Path) -> None:
    """Compare the names in both archives with the tree."""
    expected = modules_of_the_tree()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    assert len(names) == len(set(names)), "the wheel holds a file twice"
    assert packed == expected, f"missing in the wheel: {expected - packed}; unexpected: {packed - expected}"
    assert any(name.endswith("licenses/LICENSE") for name in names), "no LICENSE in the wheel"

    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    sources = [member.name.partition("/")[2] for member in members if member.isfile()]
    in_tree = {name.replace("metarl/", "", 1) if name.split("/")[1] in LINKED else name for name in expected}
    assert in_tree <= set(sources), f"missing in the sdist: {in_tree - set(sources)}"
    assert {"LICENSE", "SECURITY.md"} <= set(sources), "no LICENSE or no SECURITY.md in the sdist"
    assert not any(member.issym() or member.islnk() for member in members), "the sdist holds links"
    doubled = [name for name in sources if name.split("/")[0] == "metarl" and name.split("/")[1] in LINKED]
    assert not doubled, f"the sdist holds files behind the symlinks: {doubled}"


def check_beside_a_clone(folder: Path, target: Path) -> None:
    """Import from the parent of a clone called metarl: what is installed in `target`, then an editable install."""
    clone = copy_tree(folder / "parent" / "metarl", links_as_text=False)
    isolated = (sys.executable, "-I", "-c")
    run(*isolated, BESIDE_A_CLONE, clone.parent, target, target, cwd=clone.parent)
    build_it = "import sys; sys.path.insert(0, 'scripts'); import build_backend; build_backend.build_editable('dist')"
    (clone / "dist").mkdir()
    run(*isolated, build_it, cwd=clone)
    [wheel] = (clone / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    run(*isolated, BESIDE_A_CLONE, clone.parent, folder / "site", clone, cwd=clone.parent)


def main() -> None:
    """Run every check; exit with 1 and a message when one fails."""
    with tempfile.TemporaryDirectory(prefix="metarl-wheel-") as name:
        folder = Path(name).resolve()
        sdist, wheel = build(copy_tree(folder / "linked", links_as_text=False), folder / "out")
        check_names(sdist, wheel)
        check_names(*build(copy_tree(folder / "plain", links_as_text=True), folder / "out-plain"))

        target = folder / "target"
        install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
        run(sys.executable, *install, cwd=folder)
        done = subprocess.run(
            [sys.executable, "-I", "-c", IMPORT_EVERYTHING, str(target), str(ROOT)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"the installed wheel does not import:\n{done.stderr}")
        check_beside_a_clone(folder, target)
        print(f"{wheel.name}: {done.stdout.strip()}")


if __name__ == "__main__":
    main()
