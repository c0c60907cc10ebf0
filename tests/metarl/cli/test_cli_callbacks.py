"""`metarl train --callback` and `--track`."""

import sys
from types import SimpleNamespace

import pytest
from command_line import refused, train

from metarl.runs.run import Run

MINE = """
from metarl import Callback

class Stop(Callback):
    def on_iteration(self, metrics):
        metrics["score/mine"] = 2.0
        return metrics["iteration"] < 1

class Broken(Callback):
    def on_iteration(self, metrics):
        return 1 / (1 - metrics["iteration"]) > 0

class Needy(Callback):
    def __init__(self, much):
        pass

def watch(metrics):
    print("saw", metrics["iteration"], metrics.get("score/mine"))

number = 3
"""


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    (tmp_path / "my_callbacks.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_callbacks", None)
    yield
    sys.modules.pop("my_callbacks", None)


def test_callbacks_of_ones_own_watch_add_and_stop(tmp_path):
    words = ["--callback", "my_callbacks:Stop", "--callback=my_callbacks:watch"]
    done = train(tmp_path / "run", "--iterations", "9", *words)
    assert done.code == 0
    assert [line for line in done.out.splitlines() if line.startswith("saw")] == ["saw 0 2.0", "saw 1 2.0"]
    assert "stopped by Stop after 2 of 9 iterations" in done.err
    assert [row["score/mine"] for row in Run.open(tmp_path / "run").metrics()] == [2.0, 2.0]
    assert train(tmp_path / "run", "--iterations", "9", "--resume").code == 0
    assert len(Run.open(tmp_path / "run").metrics()) == 9


def test_a_callback_that_fails_is_one_line_and_the_run_goes_on(tmp_path):
    done = train(tmp_path / "run", "--iterations", "3", "--callback", "my_callbacks:Broken")
    assert done.code == 2
    line = done.err.splitlines()[-1]
    words = (
        "metarl: raised in on_iteration of the callback Broken: ZeroDivisionError: division by zero (my_callbacks.py"
    )
    assert line.startswith(words)
    assert line.endswith(f"metarl train --resume {tmp_path / 'run'}")
    assert Run.open(tmp_path / "run").restore()[0] == 2
    assert train(tmp_path / "run", "--iterations", "3", "--resume").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--callback", "my_callbacks:Stopp"], "my_callbacks has no Stopp: did you mean Stop?"),
        (["--callback", "mine.py"], "name your own as module:Name"),
        (["--callback", "my_callbacks:number"], "int is no callback: it needs one of on_start"),
        (["--callback", "my_callbacks:Needy"], "--callback my_callbacks:Needy cannot be made: TypeError"),
        (["--track", "wand"], "invalid choice"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_begins(tmp_path, words, said):
    assert said in refused(train(tmp_path / "run", *words))
    assert not (tmp_path / "run").exists()


def test_trackers_get_the_numbers(tmp_path, monkeypatch):
    logged = []
    run = SimpleNamespace(log=lambda numbers, step: logged.append((step, sorted(numbers))), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=lambda **options: run))
    assert (
        train(tmp_path / "run", "--iterations", "2", "--callback", "my_callbacks:Stop", "--track", "trackio").code == 0
    )
    assert [step for step, _ in logged] == [0, 1]
    assert "score/mine" in logged[0][1]
    monkeypatch.setitem(sys.modules, "wandb", None)
    line = refused(train(tmp_path / "other", "--track", "wandb"))
    assert "WandB needs the package wandb, which is not installed: pip install 'metarl-suite[wandb]'" in line
