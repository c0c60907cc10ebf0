"""Evaluating few-shot runs as a user does: other tasks than in training, the data's place, references, Lake's runs."""

import contextlib
import io
import json
import os
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from metarl import cli, registry
from metarl.evaluation.curve import AdaptationCurve
from metarl.fewshot import LEARNERS
from metarl.fewshot.datasets.folder import Folder, read
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.learning.contract import Budget
from metarl.runs.run import Run
from metarl.seeding import Key

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("METARL_DATA", ""))
needs_lake = pytest.mark.skipif(
    not all((DATA / f"omniglot/{name}.zip").is_file() for name in ("all_runs", "images_background")),
    reason="METARL_DATA has no Omniglot and all_runs.zip",
)
SHORT = ["--iterations", "1", "--width", "8"]


def metarl(*words):
    """Exit code, stdout, stderr of the command as typed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def done(*words):
    code, out, err = metarl(*words)
    assert code == 0, err
    return out


def refused(*words):
    code, _, err = metarl(*words)
    assert code == 2
    assert err.startswith("metarl: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    done("train", "protonet", "--dataset", "glyphs", "--out", folder / "protonet", *SHORT, "--train-ways", "5")
    gradient = ["--tasks", "2", "--strategy", "loop"]
    done("train", "maml", "--dataset", "glyphs", "--out", folder / "maml", *SHORT, *gradient)
    return folder


def test_a_run_is_judged_on_other_tasks_than_it_was_trained_on(runs):
    done("evaluate", runs / "protonet", "--tasks", "4")
    done("evaluate", runs / "protonet", "--tasks", "4", "--ways", "8", "--shots", "3", "--queries", "2")
    within = ["--within-groups", "--ways", "20", "--split", "validation"]
    done("evaluate", runs / "protonet", "--tasks", "4", *within)
    usual = AdaptationCurve.load(runs / "protonet/curve.json")
    other = AdaptationCurve.load(runs / "protonet/curve-8-ways-3-shots-2-queries.json")
    alike = AdaptationCurve.load(runs / "protonet/curve-validation-20-ways-within-groups.json")
    assert (usual.options["ways"], usual.shots, usual.random, usual.oracle) == (5, (0, 1), 0.2, 1.0)
    assert (other.options["ways"], other.shots, other.random) == (8, (0, 1, 2, 3), 0.125)
    assert (alike.options["within_groups"], alike.options["ways"], alike.random) == (True, 20, 0.05)
    tasks = Glyphs(ways=20, within_groups=True).fixed("validation", 4)
    assert alike.task_hash == tasks.sha256()
    np.testing.assert_allclose(other.normalised, (other.mean - 0.125) / 0.875)
    assert other.normalised[0] == 0


def test_maml_s_curve_goes_over_gradient_steps_and_its_head_keeps_its_ways(runs):
    done("evaluate", runs / "maml", "--tasks", "4", "--steps", "2", "--shots", "3")
    curve = AdaptationCurve.load(runs / "maml/curve-3-shots.json")
    assert (curve.gradient_steps, curve.shots, curve.random) == ((0, 1, 2), (0, 3, 3), 0.2)
    assert "these tasks have 4 classes, this learner's head is for 5" in refused(
        "evaluate", runs / "maml", "--tasks", "4", "--ways", "4"
    )


def test_raw_pixels_are_a_baseline(tmp_path):
    out = done(
        "evaluate", "pixels", "--dataset", "glyphs", "--tasks", "50", "--shots", "2", "--json", tmp_path / "p.json"
    )
    assert "nearest class mean of raw pixels" in out
    curve = AdaptationCurve.load(tmp_path / "p.json")
    assert curve.protocol.endswith("batch norm: none")
    source = Glyphs(shots=2)
    assert curve.task_hash == source.fixed("test", 50).sha256()
    batch = source.batch(source.fixed("test", 50))
    means = batch.support_x.flatten(2).view(50, 5, 2, -1).mean(2)
    right = (torch.cdist(batch.query_x.flatten(2), means).argmin(-1) == batch.query_y).double().mean()
    assert curve.mean[2] == pytest.approx(float(right))
    assert curve.mean[0] == pytest.approx(0.2)


def test_options_that_do_not_fit_are_refused(runs):
    nav = ["evaluate", "random", "--family", "metarl/Navigation2D-v0"]
    assert "metarl/Navigation2D-v0 has no --ways" in refused(*nav, "--ways", "3")
    assert "pixels learns from a data set: give --dataset" in refused("evaluate", "pixels")
    assert "metarl evaluate pixels --dataset NAME" in refused("train", "pixels", "--out", "x")
    assert "sinusoid has no images, and glyphs" in refused("evaluate", runs / "maml", "--dataset", "sinusoid")
    assert "ways must be at least 2, got 1" in refused("evaluate", runs / "protonet", "--ways", "1")


def pictures(folder):
    rng = Key(0)("pictures").numpy()
    for name in "abcdefghij":
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name / f"{i}.png")


def test_a_run_remembers_where_its_data_lies(tmp_path, monkeypatch):
    monkeypatch.delenv("METARL_DATA", raising=False)
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "mine")
    source = ["--dataset", "folder", "--ways", "2", "--shots", "1", "--queries", "2", "--size", "16", "--grey"]
    run = ["protonet", *source, "--data-root", "mine", "--out", "run", *SHORT]  # a relative folder
    done("train", *run)
    assert "data_root" not in Run.open("run").source["options"]  # the same problem, wherever it lies
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done("evaluate", "../run", "--tasks", "3")
    (tmp_path / "mine").rename(tmp_path / "moved")
    said = refused("evaluate", "../run", "--tasks", "3")
    assert f"was trained on data in {tmp_path / 'mine'}, which is not there: give --data-root" in said
    done("evaluate", "../run", "--tasks", "3", "--data-root", "../moved")
    monkeypatch.chdir(tmp_path)
    moved = [word if word != "mine" else "moved" for word in run]
    done("train", *moved, "--resume", "--iterations", "2")  # resuming from another place is the same run
    done("evaluate", "run", "--tasks", "3")


def letters(folder, names, pictures=4):
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(pictures):
            noise = Key(0)("letters", name, i).numpy().integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i}.png")


def test_no_class_moves_when_others_come_and_a_run_knows_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    mine = tmp_path / "mine"
    letters(mine, [f"class{i}" for i in range(31)])

    def splits():
        read.cache_clear()
        source = Folder(data_root=mine, size=16)
        return {name: split for split in source.splits for name in source.classes(split)}

    words = ["--dataset", "folder", "--ways", "2", "--shots", "1", "--queries", "2", "--size", "16", "--grey", *SHORT]
    train = ["train", "protonet", *words, "--data-root", mine, "--out", tmp_path / "run"]
    done(*train)
    before = splits()
    remembered = Run.open(tmp_path / "run").recall("trained_on")["classes"]
    assert remembered == sorted(name for name, split in before.items() if split == "train")
    done("evaluate", tmp_path / "run", "--tasks", "2")
    letters(mine, ["another"])
    after = splits()
    assert {name: after[name] for name in before} == before
    code, _, err = metarl("evaluate", tmp_path / "run", "--tasks", "2")
    assert code == 0  # no test class was trained on, but the tasks are others
    assert err.startswith(f"metarl: warning: folder has changed since {tmp_path / 'run'} was trained (")
    assert err.count("\n") == 1
    said = refused(*train, "--resume", "--iterations", "2")
    assert "cannot go on: folder has changed since it began" in said
    # laid out by hand so that a class it was trained on is tested on
    (mine / "another").rename(tmp_path / "another")
    for name, split in before.items():
        (mine / ("test" if name == remembered[0] else split)).mkdir(exist_ok=True)
        (mine / name).rename(mine / ("test" if name == remembered[0] else split) / name)
    read.cache_clear()
    assert (
        f"was trained on 1 of the {1 + list(before.values()).count('test')} test classes ({remembered[0]})"
        in refused("evaluate", tmp_path / "run", "--tasks", "2")
    )


def test_few_classes_say_which_ways_work(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    letters(tmp_path / "mine", [f"class{i}" for i in range(10)], pictures=6)
    words = ["--dataset", "folder", "--shots", "1", "--queries", "2", "--size", "16", *SHORT]
    code, _, err = metarl("train", "protonet", *words, "--data-root", tmp_path / "mine", "--out", tmp_path / "run")
    source = Folder(data_root=tmp_path / "mine", size=16)
    count = {split: len(source.classes(split)) for split in source.splits}
    assert count == {"train": 6, "validation": 1, "test": 3}
    assert code == 0
    assert "too few classes to judge with 5 ways (validation 1, test 3): evaluate with fewer --ways, or more" in err
    said = refused("evaluate", tmp_path / "run", "--tasks", "2")
    assert "5 ways asked for, the test split has 3 classes in all (train 6, validation 1): at most --ways 3, or" in said
    done("evaluate", tmp_path / "run", "--tasks", "2", "--ways", "3")


def test_predicting_classes_that_were_trained_on_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    letters(tmp_path / "mine", [f"class{i}" for i in range(10)])
    words = ["--dataset", "folder", "--ways", "2", "--queries", "2", "--size", "16", *SHORT]
    done("train", "protonet", *words, "--data-root", tmp_path / "mine", "--out", tmp_path / "run")
    query = tmp_path / "mine/class0/0.png"
    code, out, err = metarl("predict", tmp_path / "run", "--support", tmp_path / "mine", "--query", query)
    assert code == 0
    assert out.startswith(str(query))
    assert f"warning: {tmp_path / 'run'} was trained on 6 of these classes (" in err


# Any module as encoder, for every learner


def encoder(generator):
    layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 12), nn.ReLU())
    for parameter in layers.parameters():
        nn.init.uniform_(parameter, -0.05, 0.05, generator=generator)
    return layers


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_takes_any_encoder(name, tmp_path):
    learner = registry.learner(name)
    source = Glyphs()
    config = replace(learner.DEFAULTS["glyphs"], iterations=2)
    if hasattr(config, "moves") and name != "anil":
        config = replace(config, moves="*")
    if hasattr(config, "strategy"):
        config = replace(config, tasks=2, strategy="loop", inner_step_size=0.05)
    run = Run.create(tmp_path / "run", learner=name, config=config, source=source, seed=0)
    learner.train(config, source, run, encoder=encoder(Key(0).torch()))
    fresh = encoder(Key(1).torch())
    found = learner.load(Run.open(tmp_path / "run", learner.Config), source, encoder=fresh)
    weights = found.params if hasattr(found, "params") else dict(found.network.named_parameters())
    moved = {key: value for key, value in weights.items() if value.shape == (12, 784)}
    assert len(moved) == 1  # the encoder's, trained from where it was given
    distance = (next(iter(moved.values())) - encoder(Key(0).torch())[1].weight).abs().max()
    assert 0 < distance < 0.05
    assert found.curve(source.fixed("test", 2), Budget(1), 0).values.shape == (2, 2)


# Lake's runs


def lake(*words, monkeypatch):
    """Exit code, stdout, stderr of the script as typed."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", ["lake.py", *map(str, words)])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "scripts/lake.py"), run_name="__main__")
    return left.value.code, out.getvalue(), err.getvalue()


@needs_lake
def test_lake_s_runs_for_a_trained_run(tmp_path, monkeypatch):
    words = ["--dataset", "omniglot", "--preset", "lake", "--ways", "20", *SHORT, "--train-ways", "5"]
    done("train", "protonet", *words, "--out", tmp_path / "run")
    code, out, err = lake(tmp_path / "run", "--json", tmp_path / "lake.json", monkeypatch=monkeypatch)
    assert code == 0, err
    document = json.loads((tmp_path / "lake.json").read_text())
    assert len(document["per_run"]) == 20
    assert document["error_percent"] == pytest.approx(np.mean(document["per_run"]))
    assert 30 < document["error_percent"] < 95  # hardly trained: chance is 95
    assert document["ci_low"] < document["error_percent"] < document["ci_high"]
    assert round(document["hausdorff_error_percent"], 1) == 38.8
    assert out.startswith(f"protonet: {document['error_percent']:.1f} % error [")
    assert "modified Hausdorff distance, measured here: 38.8 %" in out


def test_lake_refuses_runs_that_know_the_answers(tmp_path, runs, monkeypatch):
    shutil.copytree(runs / "protonet", tmp_path / "leaky")
    config = json.loads((tmp_path / "leaky/config.json").read_text())
    config["source"] = {"name": "omniglot", "options": {"preset": "vinyals"}}
    (tmp_path / "leaky/config.json").write_text(json.dumps(config))
    code, out, err = lake(tmp_path / "leaky", monkeypatch=monkeypatch)
    assert (code, out) == (2, "")
    assert "vinyals classes, some of which are in Lake's runs: use --preset lake" in err
    assert err.count("\n") == 1
    monkeypatch.setenv("METARL_OFFLINE", "1")
    code, _, err = lake(runs / "protonet", "--data-root", tmp_path, monkeypatch=monkeypatch)
    assert code == 2
    assert "all_runs.zip is missing" in err
    code, _, err = lake(runs / "maml", "--data-root", DATA, monkeypatch=monkeypatch)
    assert code == 2  # a head of 5; without the data, their absence


def test_a_run_is_judged_on_other_pictures(runs, tmp_path):
    rng = Key(0)("other pictures").numpy()
    for label in range(20):
        (tmp_path / f"own/c{label}").mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / f"own/c{label}/{i}.png")
    words = ["--dataset", "folder", "--data-root", tmp_path / "own", "--tasks", "4", "--ways", "2", "--queries", "2"]
    done("evaluate", runs / "protonet", *words, "--shots", "1")
    curve = AdaptationCurve.load(runs / "protonet/curve-folder-2-ways-1-shots-2-queries.json")
    own = Folder(data_root=tmp_path / "own", size=28, grey=True, ways=2, shots=1, queries=2)
    assert (curve.family, curve.task_hash) == ("folder", own.fixed("test", 4).sha256())
    mine = registry.Opened(registry.learner("protonet"), registry.open_run(runs / "protonet").run, own)
    assert curve.mean[1] == pytest.approx(mine.load().curve(own.fixed("test", 4), Budget(), 0).values.mean(0)[1])
