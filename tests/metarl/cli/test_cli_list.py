from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import NAVIGATION, metarl, refused

from metarl import registry
from metarl.cli import options


def test_lists_name_everything_registered() -> None:
    from metarl.envs import FAMILIES

    families = json.loads(metarl("list", "families", "--json").out)
    assert [row["family"] for row in families] == list(FAMILIES)
    navigation = families[0]
    assert navigation["presets"] == ["maml2017", "pearl", "varibad", "promp"]
    assert navigation["tasks reused"] == ["promp"]
    agents = json.loads(metarl("list", "agents", "--json").out)
    assert {row["agent"]: row["trained"] for row in agents} == {
        **dict.fromkeys(registry.agents(), True),
        **dict.fromkeys(registry.untrained(), False),
    }
    assert [row["dataset"] for row in json.loads(metarl("list", "datasets", "--json").out)] == list(registry.datasets())
    assert NAVIGATION in metarl("list", "families").out
    assert "maml-trpo" in metarl("list", "agents").out


@pytest.mark.parametrize("name", registry.agents())
def test_every_learner_has_the_contract_s_names_and_documented_options(name: str) -> None:
    learner = registry.learner(name)
    assert callable(learner.train)
    assert callable(learner.load)
    help_text = metarl("train", name, "--help").out
    for flag in options.flags(learner.Config, pairs=False):
        assert flag in help_text


BAD: list[tuple[list[str], str]] = [
    (["list", "famlies"], "unknown list 'famlies'; did you mean families?"),
    (["list"], "comes first"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_of_list(words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(metarl(*words))
    assert not list(tmp_path.iterdir())
