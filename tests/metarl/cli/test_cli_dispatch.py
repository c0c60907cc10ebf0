from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import NAVIGATION, metarl, refused

from metarl.cli import dispatch
from metarl.version import __version__

HEAVY = {"torch", "mujoco", "matplotlib", "sklearn", "stable_baselines3", "tensorboard", "imageio"}
LOADED = """
import sys
from metarl.cli import main
def loaded(*words):
    assert main(words) == 0, words
    return sorted(HEAVY & set(sys.modules))
print()
print("none:", sorted(HEAVY & set(sys.modules) | {"tyro", "gymnasium", "rich"} & set(sys.modules)))
print("help:", loaded("--help"))
print("agents:", loaded("list", "agents"))
import metarl.registry
print("families:", loaded("list", "families"))
print("datasets:", loaded("list", "datasets"))
for agent in ("maml-trpo", "rl2"):
    print(f"{agent}:", loaded("train", agent, "--help"))
print("family:", loaded("train", "maml-trpo", "--family", "metarl/HalfCheetahVelocity-v0", "--help"))
"""


def test_what_is_heavy_loads_no_earlier_than_it_is_needed() -> None:
    program = f"HEAVY = {HEAVY!r}\n{LOADED}"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    told = dict(line.split(": ", 1) for line in said.stdout.splitlines() if line.endswith("]") and ": [" in line)
    lists = {name: told.pop(name) for name in ("none", "help", "agents", "families", "datasets")}
    assert lists == dict.fromkeys(lists, "[]")
    assert told == dict.fromkeys(("maml-trpo", "rl2", "family"), "['torch']")
    assert all(name in said.stdout for name in dispatch.COMMANDS)


def test_every_command_keeps_the_memory_it_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(dispatch, "keep_freed_memory", lambda: called.append(True))
    assert metarl("list", "agents").code == 0
    assert called == [True]


def test_the_installed_command_refuses_in_one_line() -> None:
    command = Path(sys.executable).with_name("metarl")
    said = subprocess.run(
        [command, "train", "maml-trpo", "--family", "metarl/Navigaton2D-v0", "--out", "x"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr.startswith(
        f"metarl: unknown family 'metarl/Navigaton2D-v0'; did you mean {NAVIGATION}? choose from {NAVIGATION}, "
    )
    assert said.stderr.count("\n") == 1


def test_help_grows_with_what_is_named() -> None:
    assert "--inner-step-size" not in metarl("train", "--help").out
    assert "--preset " not in metarl("train", "maml-trpo", "--help").out
    said = metarl("train", "maml-trpo", "--family", NAVIGATION, "--help")
    assert said.code == 0
    assert "--inner-step-size FLOAT" in said.out
    assert "--preset STR" in said.out
    for command in dispatch.COMMANDS:
        said = metarl(command, "--help")
        assert (said.code, said.out.count("usage: ")) == (0, 1), command
    assert metarl("--version").out.strip() == __version__
    assert metarl().out == metarl("-h").out


BAD: list[tuple[list[str], str]] = [
    (["trian"], "unknown command 'trian'; did you mean train? choose from quickstart, list, train"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_of_no_command(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(metarl(*words))
    assert not list(tmp_path.iterdir())


def test_programming_mistakes_are_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(words: Any) -> int:
        raise ValueError("a bug")

    monkeypatch.setattr("metarl.cli.listing.list_things", broken)
    with pytest.raises(ValueError, match="a bug"):
        metarl("list", "agents")
