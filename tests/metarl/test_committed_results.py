"""What results/ holds can be made again: its description fits, committed runs load, numbers come out the same."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import recompute
from reproduction import (
    ablation,
    curves,
    description,
    extras,
    known_answers,
    rows,
    training,
    trainings,
)

from metarl import registry
from metarl.cli import main
from metarl.cli.training import understood
from metarl.envs import make_family
from metarl.learning.contract import Budget
from metarl.runs.record import as_of_today

ROOT = Path(__file__).resolve().parents[2]
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


def needs_data(run):
    if run.parents[1].name in DATA and not os.environ.get("METARL_DATA"):
        pytest.skip("needs the development data")


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parents[1].name}-{run.name}")
def test_every_committed_run_loads(run):
    needs_data(run)
    agent = registry.open_run(run).load()
    assert callable(agent.curve)


def asked_for():
    """Every committed run whose table says how it was trained, and the words for that."""
    for name in CURVES:
        table = description.Table.of(name)
        for agent in table.agents:
            if (run := RESULTS / name / "runs" / f"{agent.name}-0").exists():
                yield run, [agent.name, *table.source.split(), *(agent.train or "").split()]
    for name, problem in known_answers.PROBLEMS.items():
        yield RESULTS / "rl2" / "runs" / name, ["rl2", *problem.words.split(), *problem.train.split()]
    for name in description.tables("ablation"):
        for variant in description.DESCRIPTIONS[name]["variants"]:
            if (run := RESULTS / name / "runs" / f"{variant}-0").exists():
                yield run, ablation.words_of(name, variant)
    for name in description.tables("trainings"):
        yield from ((folder, trainings.words_of(name, one)) for one, _, folder in trainings.kept_logs(name))
    for name, row in rows.ROWS.items():
        if (run := RESULTS / rows.NAME / "runs" / name).exists():
            yield run, ["rl2", *row.words.split()]


@pytest.mark.parametrize(("run", "words"), [pytest.param(*one, id="-".join(one[0].parts[-3:])) for one in asked_for()])
def test_the_description_asks_for_the_config_of_the_run(run, words):
    needs_data(run)
    config = understood([*words, "--out", "runs/new"]).config
    committed = as_of_today(type(config), json.loads((run / "config.json").read_text())["config"])
    assert json.loads(json.dumps(dataclasses.asdict(config))) == committed


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


def test_every_row_of_the_literature_is_there_and_its_words_are_understood(tmp_path):
    assert set(rows.ROWS) == {
        *(f"bandit-{n}-{k}" for n in (10, 100, 500) for k in (5, 10, 50)),
        *(f"mdp-{n}" for n in (10, 25, 50, 75, 100)),
    }
    for row in rows.ROWS.values():
        config = understood(["rl2", *row.words.split(), "--out", str(tmp_path / "run")]).config
        assert 0 < config.teacher_iterations <= config.iterations
        assert set(row.solvers) <= registry.untrained().keys()
        assert config.teacher in row.solvers


def test_a_row_is_made_from_its_description_and_recomputed(tmp_path, monkeypatch):
    def metarl(*words, minutes=None):  # without a process of its own
        assert main(list(words)) == 0

    small = "--trials 4 --hidden 4 --minibatches 2 --epochs 1 --iterations 2 --teacher-iterations 1 --validate-every 1"
    train = f"--teacher online-beb --validation-tasks 3 {small}"
    options = {"states": 3, "actions": 2, "steps": 2, "episodes": 2}
    row = rows.Row("metarl/TabularMDP-v0", options, train, duan=-99.0, snail=99.0, tasks=6)
    monkeypatch.setattr(rows, "ROWS", {"mdp-2": row})
    monkeypatch.setitem(rows.WORDS, "common", "")
    monkeypatch.chdir(tmp_path)
    for module in (rows, training):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(training, "metarl", metarl)
    monkeypatch.setattr(recompute, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(rows, "OUT", tmp_path / "results" / rows.NAME)
    rows.reproduce((), None)
    out = tmp_path / "results" / rows.NAME
    assert {path.name for path in out.iterdir()} == {"README.md", "rows.png", "mdp-2.json", "runs"}
    text = (out / "README.md").read_text()
    assert "At or above Duan et al.'s RL²: 1 of 1, at or above SNAIL: 0 of 1, not below" in text
    assert text.count("|mdp-2|") == 3
    assert "|mdp-2|refused|" not in text  # a GRU has no positions
    [committed] = list(recompute.of_rows(rows.NAME))
    assert committed.unlike() == []
    document = json.loads((out / "mdp-2.json").read_text())
    assert document["steps"] == 2 * 4 * 4
    family = make_family(row.family, **options)
    trials = known_answers.solver("random", family).curve(family.fixed("test", 6), Budget(0, 1), 0).values
    assert trials.shape == (6, 2)  # as RL²'s, not an episode
    assert document["test"]["agents"]["random"]["return"][0] == pytest.approx(trials.sum(1).mean(), abs=1e-4)
    assert [steps for steps, _ in document["curve"]] == [16, 32]


def test_an_ablations_variants_are_understood_and_differ_in_what_they_name(tmp_path):
    for name in description.tables("ablation"):
        variants = description.DESCRIPTIONS[name]["variants"]
        configs = [understood([*ablation.words_of(name, v), "--out", str(tmp_path)]).config for v in variants]
        assert len({(config.trials, config.iterations) for config in configs}) == 1  # equal steps
        assert len(set(configs)) == len(configs) > 1


def test_an_ablation_is_made_from_its_description_and_what_is_judged_is_left_alone(tmp_path, monkeypatch):
    trained = []

    def metarl(*words, minutes=None):  # without a process of its own
        trained.append(words[-1])
        assert main(list(words)) == 0

    words = {
        "kind": "ablation",
        "family": "metarl/TabularMDP-v0",
        "seeds": 2,
        "tasks": 3,
        "common": "--trials 2 --minibatches 1 --epochs 1 --iterations 2 --validate-every 1 --validation-tasks 2",
        "about": "A small one.",
        "variants": {"gru": "--hidden 3", "lstm": "--memory lstm --hidden 3"},
    }
    monkeypatch.setitem(description.DESCRIPTIONS, "small", words)
    monkeypatch.chdir(tmp_path)
    for module in (ablation, training):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(training, "metarl", metarl)
    for module in (ablation, recompute):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    for seeds in (1, None):
        ablation.reproduce("small", seeds, (), None)
    assert trained == [f"runs/small-{variant}-{seed}" for seed in (0, 1) for variant in ("gru", "lstm")]
    text = (tmp_path / "results/small/README.md").read_text()
    assert "|gru|`--hidden 3`|" in text
    assert (tmp_path / "results/small/validation.png").exists()
    every = list(recompute.of_variants("small"))
    assert [one.name for one in every] == ["gru-0", "gru-1", "lstm-0", "lstm-1"]
    assert every[0].unlike() == []


def test_few_are_of_many_kinds():
    every = [one for name in CURVES for one in recompute.curves(name)]
    picked = recompute.of_different_kinds(every, 8)
    assert len({one.table for one in picked}) >= 6
    assert len({(one.table, one.agent) for one in picked}) == 8


def test_a_table_is_made_from_its_description(tmp_path, monkeypatch):
    def metarl(*words, minutes=None):  # without a process of its own
        assert main(list(words)) == 0
        return "metarl " + " ".join(words)

    words = {
        "kind": "curves",
        "source": "--dataset glyphs",
        "evaluate": "--tasks 2",
        "agents": [{"name": "protonet", "train": "--iterations 1 --log-every 1", "published": "150"}],
        "about": "A table of one run.",
        "settings": {"5-way": "", "3-way": "--ways 3"},
    }
    monkeypatch.setitem(description.DESCRIPTIONS, "small", words)
    monkeypatch.chdir(tmp_path)
    for module in (curves, training, description):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for module in (curves, training):
        monkeypatch.setattr(module, "metarl", metarl)
    monkeypatch.setattr(curves, "RESULTS", tmp_path / "results")
    curves.reproduce("small", None, None, (), again=False)
    out = tmp_path / "results" / "small"
    files = {"README.md", "5-way.png", "3-way.png", "5-way-protonet-0.json", "3-way-protonet-0.json", "runs"}
    assert {path.name for path in out.iterdir()} == files
    assert (out / "runs/protonet-0/checkpoints/latest.json").exists()
    text = (out / "README.md").read_text()
    assert "|protonet, seed 0|1|150|" in text
    assert (
        "metarl train protonet --dataset glyphs --iterations 1 --log-every 1 --seed 0 --out runs/small-protonet-0"
        in text
    )
    assert text.count("## ") >= 2
    shutil.rmtree(out)
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(SystemExit, match="no run to judge"):
        curves.reproduce("small", None, 0, (), again=False)


def test_a_comparison_of_trainings_is_made_from_its_description_and_what_is_whole_is_left_alone(tmp_path, monkeypatch):
    trained = []

    def metarl(*words, minutes=None):  # without a process of its own
        trained.extend(word for word in words if word.startswith("runs/"))
        assert main(list(words)) == 0
        return "metarl " + " ".join(words)

    common = "--tasks 2 --episodes 2 --hidden 3 --threads 1 --iterations 2 --validate-every 1 --validation-tasks 2"
    words = {
        "kind": "trainings",
        "source": "--family metarl/Navigation2D-v0 --preset pearl",
        "seeds": 1,
        "reach": -1000,
        "about": "Two agents.",
        "trainings": {"a": f"maml-trpo {common}", "b": f"promp --credit none {common}"},
    }
    monkeypatch.setitem(description.DESCRIPTIONS, "small", words)
    monkeypatch.chdir(tmp_path)
    for module in (trainings, training):
        monkeypatch.setattr(module, "ROOT", tmp_path)
        monkeypatch.setattr(module, "metarl", metarl)
    for module in (trainings, recompute):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    with pytest.raises(SystemExit, match="nothing is trained yet"):
        trainings.reproduce("small", None, (), 0)
    trainings.reproduce("small", None, ("a",), None)
    assert trained == ["runs/small-a-0"]
    trainings.reproduce("small", None, (), None)
    assert trained == ["runs/small-a-0", "runs/small-b-0"]
    out = tmp_path / "results" / "small"
    assert {path.name for path in out.iterdir()} == {"README.md", "curve.png", "curve.json", "logs"}
    text = (out / "README.md").read_text()
    assert "|b|0|2|2|" in text
    assert "| b | 1 |" in text
    assert "metarl train promp --family metarl/Navigation2D-v0 --preset pearl --credit none" in text
    assert [one.unlike() for one in recompute.of_trainings("small")] == [[], []]
    log = out / "logs/a-0/metrics.jsonl"
    log.write_text(log.read_text().replace('"episodes/steps": 1', '"episodes/steps": 2'))
    assert [one.unlike() for one in recompute.of_trainings("small")] == [["env_steps"], []]
