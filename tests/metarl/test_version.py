from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from metarl import version

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@needs_git
def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    assert version.commit_of(tmp_path) is None
    git(tmp_path, "init")
    assert version.commit_of(tmp_path) is None  # nothing is committed yet
    (tmp_path / "file").write_text("a")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = version.commit_of(tmp_path)
    assert clean is not None
    assert re.fullmatch("[0-9a-f]{12}", clean)
    (tmp_path / "other").write_text("is not tracked")
    assert version.commit_of(tmp_path) == clean
    (tmp_path / "file").write_text("b")
    assert version.commit_of(tmp_path) == f"{clean}+"
    (tmp_path / "folder").mkdir()
    assert version.commit_of(tmp_path / "folder") is None  # an installed package in somebody's checkout


@needs_git
def test_without_git_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init")
    monkeypatch.setenv("PATH", "")
    assert version.commit_of(tmp_path) is None


def test_this_codes_own_commit_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(version, "commit_of", lambda checkout: asked.append(checkout))
    version.commit.cache_clear()
    assert version.commit() is version.commit() is None
    assert asked == [Path(version.__file__).resolve().parents[1]]
    version.commit.cache_clear()
