"""The README's Python runs as written."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_example_is_fifteen_lines():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15 + 1  # fifteen and the last print


def test_a_family_of_ones_own_is_thirty_lines():
    (block,) = [block for block in BLOCKS if "GymFamily" in block]
    assert len([line for line in block.splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize("i", range(len(BLOCKS)))
def test_readme_block_runs(i, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(BLOCKS[i], f"README.md, block {i}", "exec"), names)
    if "Pendulums" in names:
        family = names["family"]
        assert family.fixed("ood", 20).arrays["gravity"].min() >= 12
        assert names["agent"].family is family
        before, after = capsys.readouterr().out.strip("[]\n").split()
        assert -1500 < float(before) < -100
        assert -1500 < float(after) < -100
    if i == 0:
        mean = names["curve"].mean
        assert mean.shape == (4,)
        assert mean[1] > mean[0] + 10
        assert (tmp_path / "curve.png").stat().st_size > 10_000
