"""Agents, families, data sets and options that do not go together: one line, whatever is crossed."""

import dataclasses

import pytest
from command_line import NAVIGATION, metarl, refused

from metarl import registry
from metarl.cli.evaluate import EvaluateOptions
from metarl.cli.training import understood
from metarl.errors import UserError

FAMILIES, DATASETS = sorted(registry.families()), sorted(registry.datasets())
SOURCES = [*(("--family", name) for name in FAMILIES), *(("--dataset", name) for name in DATASETS)]
FEW = [("--family", NAVIGATION), ("--dataset", "sinusoid"), ("--dataset", "glyphs")]
PAIRS = [(agent, *source) for agent in registry.agents() for source in FEW] + [
    (agent, *source) for agent in ("rl2", "maml") for source in SOURCES
]


@pytest.mark.parametrize(("agent", "flag", "name"), PAIRS)
def test_an_agent_takes_a_source_or_says_in_a_line_what_it_takes(agent, flag, name):
    words = [agent, flag, name, "--out", "run"]
    if flag == f"--{registry.agents()[agent].source}":
        assert understood(words).source.name == name
    else:
        with pytest.raises(UserError) as refusal:
            understood(words)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("agent", registry.untrained())
@pytest.mark.parametrize(
    ("flag", "name"), [*FEW, ("--family", "metarl/GaussianBandit-v0"), ("--family", "metarl/TabularMDP-v0")]
)
def test_an_agent_without_training_is_judged_or_refused(agent, flag, name):
    said = metarl("evaluate", agent, flag, name, "--tasks", "1", "--episodes", "1", "--steps", "0")
    assert said.code == 0 or refused(said)


VALUES = {
    "int": "2",
    "Count": "2",
    "File": "x.json",
    "Path": "data",
    "str": "test",
    "bool": None,
    "Id": NAVIGATION,
    "Name": "glyphs",
}


@pytest.mark.parametrize("field", dataclasses.fields(EvaluateOptions), ids=lambda field: field.name)
def test_every_option_of_evaluate_on_a_run_of_a_family(field, trained, tmp_path, monkeypatch):
    """Those for data sets alone are refused by name."""
    monkeypatch.chdir(tmp_path)
    value = next((text for kind, text in VALUES.items() if kind in str(field.type)), "2")
    run = tmp_path / "run"
    run.symlink_to(trained / "0")
    words = ["--tasks", "0"] if field.name != "tasks" else ["--split", "none"]  # nothing is measured
    said = metarl("evaluate", run, f"--{field.name.replace('_', '-')}", *([value] if value else []), *words)
    refused(said)
    if field.name in ("ways", "shots", "queries", "within_groups", "data_root"):
        assert f"--{field.name.replace('_', '-')}" in said.err
