from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import metarl, refused, train

from metarl.evaluation.curve import AdaptationCurve


def test_report_writes_one_page(trained: Path, still: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "young").code == 0
    said = metarl("report", trained / "0", trained / "1", still, tmp_path / "young", "--out", tmp_path / "a" / "page")
    assert said.code == 0, said.err
    page = tmp_path / "a" / "page" / "index.html"
    assert str(page) in said.out.replace("\n", "")
    text = page.read_text(encoding="utf-8")
    assert "Training of maml-trpo" in text
    assert f"<code>{tmp_path / 'young'}</code> has no adaptation curve yet" in text
    assert f"{AdaptationCurve.load(still).mean[-1]:.2f}" in text
    assert metarl("report", trained / "0", "--out", tmp_path / "a" / "page").code == 0  # written again
    assert page.read_text(encoding="utf-8") != text


def test_report_changes_nothing_where_it_refuses(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "it is a file; give a folder" in refused(metarl("report", trained / "0", "--out", tmp_path / "file"))
    assert "holds no run" in refused(metarl("report", trained, "--out", tmp_path / "page"))
    shutil.copytree(trained / "0", tmp_path / "damaged")
    (tmp_path / "damaged" / "metrics.jsonl").write_text("[\n")
    assert "metrics.jsonl is damaged" in refused(metarl("report", tmp_path / "damaged", "--out", tmp_path / "page"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "file"]
    assert (tmp_path / "file").read_text() == "mine"


BAD: list[tuple[list[str], str]] = [
    (["report"], "RUN comes first"),
    (["report", "."], "--out"),
    (["report", "nothing", "--out", "x"], "there is no run or curve 'nothing'"),
    (["report", ".", "--out", "x"], "holds no run"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_of_report(words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(metarl(*words))
    assert not list(tmp_path.iterdir())
