"""What a user goes through with everything of their own, in a folder that also holds the clone, called metarl."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAMILY = ["--family", "mypackage.families:Rooms", "--iterations", "5", "--callback", "mypackage.callbacks:Watch"]
TRAININGS = {
    "maml": ["maml-trpo", "--network", "mypackage.nets:Policy", "--tasks", "3", "--episodes", "4"],
    "rl2": [
        *("rl2", "--encoder", "mypackage.nets:encoder", "--embedding", "6", "--hidden", "8"),
        *("--trials", "8", "--minibatches", "2"),
    ],
}
QUICK = ["--tasks", "3", "--episodes", "4", "--steps", "1"]


@pytest.fixture
def folder(tmp_path):
    """The user's folder: their package and script, and the clone beside them."""
    shutil.copytree(ROOT / "tests/transcript", tmp_path, dirs_exist_ok=True)
    if (ROOT / "metarl/envs").is_symlink():
        (tmp_path / "metarl").symlink_to(ROOT, target_is_directory=True)
    return tmp_path


def python(folder, *words):
    """A process of Python in the folder, with nothing on its path but what is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said(process, code=0):
    """What it wrote."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, f"{out}\n{err}"
    return out + err


def test_everything_of_ones_own_from_python(folder):
    told = said(python(folder, "own_everything.py"))
    assert "stopped by Watch after 2 of 5 iterations" in told
    assert "compared ['maml-trpo', 'rl2', 'random']" in told
    assert [line.split()[:3] for line in told.splitlines() if line.startswith("driven")] == [
        ["driven", "runs/maml", "40"],
        ["driven", "runs/rl2", "10"],
        ["driven", "random", "0"],
    ]
    for name in ("curves.png", "maml.gif", "rl2.gif"):
        assert (folder / name).stat().st_size > 1000


def test_the_same_from_the_command_line(folder):
    trainings = [
        python(folder, "-m", "metarl", "train", *words, *FAMILY, "--out", f"runs/{name}")
        for name, words in TRAININGS.items()
    ]
    for training in trainings:
        assert "stopped by Watch after 2 of 5 iterations" in said(training)
    later = [
        *(["evaluate", f"runs/{name}", *QUICK, "--trust"] for name in TRAININGS),
        ["evaluate", "random", "--family", "mypackage.families:Rooms", *QUICK, "--json", "random.json"],
        ["compare", "runs/maml", "runs/rl2", "random.json", "--out", "compared.png"],
        *(["video", f"runs/{name}", "--out", f"{name}.gif", *QUICK[2:]] for name in TRAININGS),
    ]
    script = f"from metarl.cli import main\nfor words in {later}:\n    assert main(words) == 0, words"
    told = said(python(folder, "-c", script))  # one process, to be quick: each is what `python -m metarl` runs
    assert "wrote compared.png" in told
    for name in ("compared.png", "maml.gif", "rl2.gif"):
        assert (folder / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--network", "mypackage.nets:Polcy"], "--network is mypackage.nets:Polcy; mypackage.nets has no Polcy"),
        (["--callback", "mypackage.callback:Watch"], "there is no module mypackage.callback"),
        (["--family", "mypackage.families:Room"], "mypackage.families:Room"),
        (["--network", "mypackage.nets:Doubt"], "mypackage.nets:Doubt"),
    ],
)
def test_mistakes_are_one_line(folder, words, line, monkeypatch, capsys):
    from metarl import cli

    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    options = [*TRAININGS["maml"][:1], *FAMILY[:4], "--out", "run", *words]
    assert cli.main(["train", *options]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1
    assert not (folder / "run").exists()
