"""Names of things that users bring: where they are looked for, and what is said when they are not there."""

import sys

import pytest

from metarl.errors import UserError
from metarl.naming import is_name, resolve


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, which Python does not look into, and nothing is left of what was imported from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("text", ["a:B", "a.b:C", "a.b:C.d", "_a:_B"])
def test_names(text):
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", "mlp", "a.b", ":B", "a:", "a b:C", "metarl/Navigation2D-v0", "C:\\net.py", "a:B:C"]
)
def test_no_names(text):
    assert not is_name(text)
    with pytest.raises(UserError, match="name your own as module:Name"):
        resolve(text, "--network")


def test_installed_things_are_found():
    from metarl.nets.mlp import MLP

    assert resolve("metarl.nets.mlp:MLP", "--network") is MLP
    assert resolve("metarl.nets.mlp:MLP.init", "--network") is MLP.init


def test_the_current_folder_is_looked_into_last(folder):
    (folder / "json.py").write_text("raise SystemError('shadows the standard library')")
    (folder / "bends.py").write_text("def late():\n    import neighbour\n    return neighbour.VALUE\n")
    (folder / "neighbour.py").write_text("VALUE = 3\n")
    assert resolve("bends:late", "--network")() == 3
    assert sys.path[-1] == str(folder)
    assert resolve("json:loads", "--network")("[1]") == [1]


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("nowhere:Net", {}, "there is no module nowhere, installed or in the current folder"),
        ("nets.py:Net", {"nets.py": "Net = 1"}, "leave .py out"),
        ("nets.deep:Net", {"nets/__init__.py": ""}, "there is no module nets.deep"),
        ("nets:Mett", {"nets.py": "Nett = 1"}, "nets has no Mett: did you mean Nett?"),
        ("nets:Net.deep", {"nets.py": "class Net: pass"}, "nets:Net has no deep"),
        ("nets:Net", {"nets.py": "import nowhere"}, "importing nets failed: ModuleNotFoundError: No module named"),
        ("nets:Net", {"nets.py": "1 / 0"}, "importing nets failed: ZeroDivisionError: division by zero"),
        ("nets:Net", {"nets.py": "def ("}, "importing nets failed: SyntaxError"),
        ("nets:Net", {"nets.py": "raise ValueError('two\\nlines')"}, "ValueError: two lines"),
        ("nets:Net", {"nets.py": "raise SystemExit(3)"}, "importing nets failed: SystemExit: 3"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(folder, name, files, said):
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    with pytest.raises(UserError) as error:
        resolve(name, "--network")
    assert str(error.value).startswith(f"--network is {name}; ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_the_module_is_not_kept(folder):
    with pytest.raises(UserError):
        resolve("nowhere:Net", "--network")
    assert str(folder) not in sys.path
