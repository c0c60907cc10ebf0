"""What the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import NAVIGATION, QUICK, metarl, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluated runs, seeds 0 and 1, below this folder; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        assert train(folder / str(seed), "--seed", seed).code == 0
        assert metarl("evaluate", folder / str(seed), *QUICK).code == 0
    return folder


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The curve of standing still on the same tasks."""
    path = tmp_path_factory.mktemp("still") / "still.json"
    assert metarl("evaluate", "stand-still", "--family", NAVIGATION, *QUICK, "--json", path).code == 0
    return path
