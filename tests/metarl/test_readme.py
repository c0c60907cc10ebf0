"""The README's Python runs as written."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_example_is_fifteen_lines():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15 + 1  # fifteen and the last print


@pytest.mark.parametrize("i", range(len(BLOCKS)))
def test_readme_block_runs(i, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(BLOCKS[i], f"README.md, block {i}", "exec"), names)
    if i == 0:
        mean = names["curve"].mean
        assert mean.shape == (4,)
        assert mean[1] > mean[0] + 10
        assert (tmp_path / "curve.png").stat().st_size > 10_000
