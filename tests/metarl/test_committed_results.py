"""What results/ holds can be made again: its description fits, committed runs load, numbers come out the same."""

import os
import sys
from pathlib import Path

import pytest

from metarl import registry

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import recompute  # noqa: E402 - a script, found by the line above
from reproduction import description, extras  # noqa: E402

RESULTS = ROOT / "results"
CURVES = description.tables("curves")
RUNS = sorted(path.parent for path in RESULTS.glob("*/runs/*/config.json"))
DATA = {"omniglot", "cifar-fs"}  # tables whose data are not in the package


@pytest.mark.parametrize("name", CURVES)
def test_a_table_names_what_there_is(name):
    table = description.Table.of(name)
    assert table.extra in ("", *extras.EXTRAS)
    for agent in table.agents:
        assert agent.name in (registry.untrained() if agent.train is None else registry.agents())
        assert set(agent.settings or ()) <= set(table.settings)


@pytest.mark.parametrize("name", CURVES)
def test_every_committed_run_belongs_to_its_table(name):
    table = description.Table.of(name)
    runs = {f"{agent.name}-{seed}" for agent in table.agents if agent.train is not None for seed in range(table.seeds)}
    assert {path.name for path in RUNS if path.parents[1].name == name} <= runs
    for agent in table.agents:
        for file in agent.files(RESULTS / name, table, 0).values():
            assert file.parent == RESULTS / name


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parents[1].name}-{run.name}")
def test_every_committed_run_loads(run):
    if run.parents[1].name in DATA and not os.environ.get("METARL_DATA"):
        pytest.skip("needs the development data")
    agent = registry.open_run(run).load()
    assert callable(agent.curve)


@pytest.mark.parametrize(("table", "cell"), [("bandit", "greedy n=10 k=5"), ("bandit", "gittins n=10 k=5")])
def test_a_cell_of_a_solver_comes_out_the_same(table, cell):
    [committed] = [one for one in recompute.cells(table) if one.name == cell]
    assert committed.unlike() == []


def test_a_curve_comes_out_the_same():
    [committed] = [one for one in recompute.curves("cheetah-direction") if one.agent == "random"]
    assert committed.unlike() == []


def test_what_differs_is_named():
    assert recompute.unlike({"a": [1.0], "b": 2}, {"a": [1.0]}) == []
    assert recompute.unlike({"a": [1.0], "b": 2}, {"a": [1.0000000000000002], "c": 3}) == ["a", "c"]


def test_few_are_of_many_kinds():
    every = [one for name in CURVES for one in recompute.curves(name)]
    picked = recompute.of_different_kinds(every, 8)
    assert len({one.table for one in picked}) >= 6
    assert len({(one.table, one.agent) for one in picked}) == 8
