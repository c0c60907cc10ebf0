"""Every example runs, small, and is short."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = {
    "adapt_and_drive": (["--iterations", "1", "--tasks", "2", "--episodes", "2"], "3 gradient steps"),
    "adapt_in_memory": (["--iterations", "1", "--trials", "20"], "the best arm is"),
    "compare_agents": (["--iterations", "1", "--tasks", "2"], "random: "),
    "few_shot_classifier": (["--iterations", "2"], "new pictures are recognised"),
    "own_callback": (["--iterations", "1", "--every", "1"], "[-"),
    "own_family": (["--iterations", "1", "--tasks", "2"], "ood ["),
    "sweep_on_slurm": (["--iterations", "1", "--seeds", "0", "--sizes", "0.1", "--cluster", "local"], "seed 0: mean"),
    "own_policy": (["--iterations", "1", "--tasks", "2"], "mine ["),
}


def test_every_example_is_run_here_and_fits_a_screen():
    files = {path.stem: path.read_text().splitlines() for path in EXAMPLES.glob("*.py")}
    assert files.keys() == SMALL.keys()
    for name, lines in files.items():
        code = [line for line in lines if line.strip()]
        assert len(code) <= 40, f"{name} has {len(code)} lines"


@pytest.mark.parametrize("name", SMALL)
def test_the_example_runs(name, tmp_path, monkeypatch, capsys):
    words, said = SMALL[name]
    if name == "sweep_on_slurm":
        pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--out", "run", *words])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert said in capsys.readouterr().out
    assert (tmp_path / "run").is_dir()
