"""The contract of every few-shot learner, on glyphs with tiny settings: resumed, repeated, refused, evaluated."""

import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
import torch

from metarl import cli, registry
from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.learners import initialisation, training
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.learning.contract import Budget
from metarl.runs.run import Run

LEARNERS = [name for name, entry in registry.agents().items() if entry.source == "dataset"]
TINY = {  # where a learner has such an option
    "iterations": 7,
    "checkpoint_every": 2,
    "log_every": 3,
    "width": 2,
    "tasks": 2,
    "strategy": "loop",
    "inner_step_size": 0.4,
    "train_shots": 3,
    "train_ways": 4,
    "train_queries": 2,
    "minibatch": 6,
    "epochs": 2,
    "halve_every": 3,
}
SOURCE = Glyphs(ways=3, shots=2, queries=2)


def tiny(name, **changes):
    kind = registry.learner(name).Config
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{option: value for option, value in {**TINY, **changes}.items() if option in names})


def begin(folder, name, config, seed=1):
    return Run.create(folder, learner=name, config=config, source=SOURCE, seed=seed)


def resumed(folder, name, config):
    return Run.resume(folder, learner=name, config=config, source=SOURCE, seed=1)


def train(run, source=SOURCE):
    registry.learner(run.learner).train(run.config, source, run)
    return run


def load(run, source=SOURCE):
    return registry.learner(run.learner).load(run, source)


def assert_equal_runs(a, b):
    """Bit for bit: the logs, and everything in the checkpoints."""
    assert (a.folder / "metrics.jsonl").read_bytes() == (b.folder / "metrics.jsonl").read_bytes()

    def same(x, y, where=""):
        if isinstance(x, torch.Tensor):
            assert x.dtype == y.dtype and torch.equal(x, y), where  # noqa: PT018 -- one fact: the same bits
        elif isinstance(x, dict):
            assert x.keys() == y.keys(), where
            for key in x:
                same(x[key], y[key], f"{where}/{key}")
        elif isinstance(x, (list, tuple)):
            assert len(x) == len(y), where
            for i, (p, q) in enumerate(zip(x, y, strict=True)):
                same(p, q, f"{where}/{i}")
        else:
            assert x == y, where

    same(a.restore(), b.restore())


def power_cut(monkeypatch, at):
    """The process dies in iteration `at`."""
    fit = training.fit

    def failing(run, config, what, draw, step):
        def until(iteration):
            if iteration == at:
                raise ZeroDivisionError("the power is gone")
            return draw(iteration)

        fit(run, config, what, until, step)

    monkeypatch.setattr(training, "fit", failing)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_resumed_run_equals_an_uninterrupted_one(name, tmp_path, monkeypatch):
    """Killed in iteration 5, so after a line of the log and the checkpoint of iteration 4, in the middle of a mean."""
    config = tiny(name)
    whole = train(begin(tmp_path / "whole", name, config))
    with monkeypatch.context() as patch:
        power_cut(patch, 5)
        with pytest.raises(ZeroDivisionError):
            train(begin(tmp_path / "parts", name, config))
    parts = resumed(tmp_path / "parts", name, config)
    assert parts.restore()[0] == 4
    assert_equal_runs(whole, train(parts))
    assert [line["iteration"] for line in parts.metrics()] == [2, 5]
    # Log lines are means of what was seen.
    assert all(np.isfinite(list(line.values())).all() for line in parts.metrics())


@pytest.mark.parametrize("name", LEARNERS)
def test_a_run_goes_on_to_more_iterations_or_says_that_it_cannot(name, tmp_path):
    longer = tiny(name, iterations=9)
    train(begin(tmp_path / "parts", name, tiny(name)))
    if getattr(longer, "iterations_may_grow", True):
        whole = train(begin(tmp_path / "whole", name, longer))
        assert_equal_runs(whole, train(resumed(tmp_path / "parts", name, longer)))
    else:
        with pytest.raises(UserError, match="iterations too: this learner's schedule depends on them"):
            resumed(tmp_path / "parts", name, longer)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_seed_is_all_that_a_run_depends_on(name, tmp_path):
    config = tiny(name, iterations=3)
    first = train(begin(tmp_path / "first", name, config))
    torch.rand(100)  # the global generator has no say
    np.random.rand(100)  # noqa: NPY002
    assert_equal_runs(first, train(begin(tmp_path / "again", name, config)))
    other = train(begin(tmp_path / "other", name, config, seed=2))
    assert (other.folder / "metrics.jsonl").read_bytes() != (first.folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_curve_repeats_and_query_labels_decide_nothing(name, tmp_path):
    run = train(begin(tmp_path / "run", name, tiny(name, iterations=2)))
    tasks = SOURCE.fixed("test", 4)
    a, b = (load(run).curve(tasks, Budget(steps=2), seed=0) for _ in range(2))
    assert (a.values == b.values).all()
    assert a.kind == "accuracy"
    assert ((a.values >= 0) & (a.values <= 1)).all()
    assert "batch norm: " in a.protocol
    lengths = {len(axis) for axis in (a.gradient_steps, a.shots) if axis is not None}
    assert lengths == {a.values.shape[1]}
    batch = SOURCE.batch(tasks)
    other = dataclasses.replace(batch, query_y=(batch.query_y + 1) % 3)
    found = [load(run).log_probabilities(part, 3) for part in (batch, other)]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0].exp().sum(-1), torch.ones(4, 6))


@pytest.mark.parametrize("name", LEARNERS)
def test_tasks_are_judged_alone_as_in_any_chunk(name, tmp_path, monkeypatch):
    learner, tasks = load(train(begin(tmp_path / "run", name, tiny(name, iterations=2)))), SOURCE.fixed("test", 6)
    whole = learner.curve(tasks, Budget(steps=2), seed=0).values
    monkeypatch.setattr(TrainedEmbedding, "_tasks_together", lambda self, tasks: 4)
    monkeypatch.setattr(initialisation, "EVALUATION_CHUNK", 4)
    np.testing.assert_allclose(
        learner.curve(tasks[[5, 2, 3, 0, 1]], Budget(steps=2), seed=0).values, whole[[5, 2, 3, 0, 1]]
    )
    np.testing.assert_allclose(learner.curve(tasks[4:5], Budget(steps=2), seed=0).values, whole[4:5])


@pytest.mark.parametrize("name", LEARNERS)
def test_unbalanced_support_and_variable_way(name, tmp_path):
    source = Glyphs(ways=4, min_ways=2, shots=3, min_shots=2, unbalanced=True, queries=2)
    config = tiny(name, iterations=4, train_ways=None)
    run = Run.create(tmp_path / "run", learner=name, config=config, source=source, seed=0)
    learner = load(train(run, source), source)
    assert learner.curve(source.fixed("test", 3), Budget(steps=1), 0).values.shape[0] == 3
    three = Glyphs(ways=3, shots=2, queries=2)
    found = learner.log_probabilities(three.batch(three.fixed("test", 2)), 3)  # fewer ways than it was trained with
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 6))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_run_without_a_checkpoint_is_refused(name, tmp_path):
    run = begin(tmp_path / "run", name, tiny(name))
    with pytest.raises(UserError, match="has no checkpoint yet: train it first"):
        load(run)


def command(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def flags(name):
    config = tiny(name, iterations=2)
    given = {field.name for field in dataclasses.fields(config)} & set(TINY)
    return [word for option in sorted(given) for word in (f"--{option.replace('_', '-')}", getattr(config, option))]


@pytest.mark.parametrize("name", LEARNERS)
def test_the_command_line_trains_and_evaluates_it(name, tmp_path):
    run = tmp_path / "run"
    data = ["--dataset", "glyphs", "--ways", "3", "--shots", "2", "--queries", "2"]
    words = ["train", name, *data, "--out", run, "--device", "cpu", *flags(name)]
    code, _, err = command(*words)
    assert code == 0, err
    assert Run.open(run).device == "cpu"
    code, out, err = command("evaluate", run, "--tasks", "3", "--steps", "1")
    assert code == 0, err
    curve = AdaptationCurve.load(run / "curve.json")
    assert (curve.agent, curve.family, curve.score) == (name, "glyphs", "accuracy")
    assert "batch norm:" in " ".join(out.split())  # beside every accuracy


WRONG = [
    (["--width", "0"], "--width is 0; it must be at least 1"),
    (["--widht", "2"], "unknown option '--widht'; did you mean --width?"),
    (["--device", "abacus"], "this machine has no device 'abacus'"),
    (["--backbone", "vgg"], "vgg"),
    (["--iterations", "few"], "--iterations: 'few' is not an integer"),
    (["--ways", "1"], "ways must be at least 2, got 1"),
]
TOO_MUCH = {  # refused only when training asks for a task, or for an encoder
    "maml": (["--ways", "5000"], "5000 ways asked for, the train split has 1133 classes"),
    "reptile": (
        ["--train-shots", "12"],
        "12 shots and 1 queries need 13 images a class, no train class has more than 12",
    ),
    "protonet": (["--train-ways", "5000"], "5000 ways asked for, the train split has 1133 classes"),
    "matchingnet": (
        ["--shots", "11"],
        "11 shots and 2 queries need 13 images a class, no train class has more than 12",
    ),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_wrong_options_are_one_line_and_leave_nothing(name, tmp_path):
    data = ["--dataset", "glyphs", "--ways", "3", "--shots", "2", "--queries", "2"]
    for extra, message in [*WRONG, *([TOO_MUCH[name]] if name in TOO_MUCH else [])]:
        code, out, err = command("train", name, *data, "--out", tmp_path / "wrong", *flags(name), *extra)
        assert code == 2, extra
        assert [line for line in out.splitlines() if not line.startswith("glyphs: preset")] == [], extra
        assert err.startswith("metarl: ")
        assert err.count("\n") == 1
        assert message in err
        assert not list(tmp_path.iterdir()), extra


@pytest.mark.parametrize("name", LEARNERS)
def test_its_named_settings_fit_its_data_sets(name):
    learner = registry.learner(name)
    for where, config in learner.DEFAULTS.items():
        assert isinstance(config, learner.Config)
        assert any(where == dataset or where.startswith(f"{dataset}-") for dataset in registry.datasets()), where
        json.dumps(dataclasses.asdict(config))
