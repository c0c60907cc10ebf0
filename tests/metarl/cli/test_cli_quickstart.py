from __future__ import annotations

from pathlib import Path

import pytest
from command_line import metarl, refused

from metarl.cli import quickstart
from metarl.cli.evaluate import EvaluateOptions
from metarl.evaluation.curve import AdaptationCurve


def test_quickstart_trains_evaluates_and_can_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "CHANGES", {"iterations": 1, "tasks": 2, "episodes": 2, "threads": 1})
    monkeypatch.setattr(quickstart, "EvaluateOptions", lambda: EvaluateOptions(episodes=2))
    folder = tmp_path / "quick"
    first = metarl("quickstart", "--out", folder)
    assert first.code == 0, first.err
    assert "training maml-trpo" in first.out
    curve = AdaptationCurve.load(folder / "curve.json")
    assert curve.per_task.shape == (1, 40, 4)
    assert (folder / "curve.png").exists()
    again = metarl("quickstart", "--out", folder)
    assert again.code == 0
    assert "already trained" in again.out
    assert "training maml-trpo" not in again.out
    assert "seed is 0 there and 1 here" in refused(metarl("quickstart", "--out", folder, "--seed", "1"))


BAD: list[tuple[list[str], str]] = [
    (["quickstart", "--sed", "1"], "unknown option '--sed'; did you mean --seed?"),
    (["quickstart", "--seed", "one"], "--seed: 'one' is not an integer"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_of_quickstart(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(metarl(*words))
    assert not list(tmp_path.iterdir())
