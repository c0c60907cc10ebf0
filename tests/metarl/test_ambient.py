"""Nothing depends on what the caller switched in torch: every learner, trained and judged inside and outside."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from metarl import registry
from metarl.ambient import plain_torch, usable
from metarl.envs import make_family
from metarl.fewshot.classifier import FewShotClassifier
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.datasets.sinusoid import Sinusoid
from metarl.learning.contract import Budget
from metarl.runs.run import Run

TINY = {  # where a learner has such an option
    "iterations": 2,
    "checkpoint_every": 1,
    "log_every": 1,
    "width": 2,
    "tasks": 2,
    "episodes": 2,
    "trials": 2,
    "hidden": (4,),
    "strategy": "loop",
    "inner_steps": 2,
    "gradient_steps": 2,
    "inner_step_size": 0.1,
    "train_shots": 3,
    "train_ways": 3,
    "train_queries": 2,
    "minibatch": 6,
    "minibatches": 2,
    "epochs": 2,
    "envs": 2,
    "threads": 1,
    "step_sizes": (0.1,),
    "validation_tasks": 2,
    "adaptation_steps": 1,
    "adaptation_episodes": 2,
}


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES = {
    "float64": default_dtype,
    "inference": torch.inference_mode,
    "no gradient": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "another device": lambda: torch.device("meta"),
    "deterministic": deterministic,
}


@contextlib.contextmanager
def every_state():
    with contextlib.ExitStack() as stack:
        for state in STATES.values():
            stack.enter_context(state())
        yield


def tiny(name):
    kind = registry.learner(name).Config
    config = kind()
    options = {**TINY, "iterations": 1} if name == "ppo-scratch" else TINY
    here = {n: getattr(config, n) for n in options if hasattr(config, n)}
    of_ours = {n: options[n] for n, v in here.items() if v is None or isinstance(v, type(options[n]))}
    return dataclasses.replace(config, **of_ours)


def source_of(name):
    if registry.agents()[name].source == "dataset":
        return Glyphs(ways=3, shots=2, queries=2)
    return make_family("metarl/Navigation2D-v0")


def result(name, folder, source):
    """The last checkpoint, and a curve."""
    learner = registry.learner(name)
    config = tiny(name)
    run = Run.create(folder, learner=name, config=config, source=source, seed=1)
    learner.train(config, source, run)
    curve = learner.load(run, source).curve(source.fixed("test", 2), Budget(1, 2), 0)
    return checkpoints_bytes(run), curve.values


def checkpoints_bytes(run):
    path = max((run.folder / "checkpoints").glob("*.pt"))
    return path.name  # it holds a hash of the content


@pytest.mark.parametrize("name", registry.agents())
def test_every_learner_is_the_same_in_every_state(name, tmp_path):
    plain = result(name, tmp_path / "plain", source_of(name))
    with every_state():
        found = result(name, tmp_path / "switched", source_of(name))
        assert torch.get_default_dtype() == torch.float64
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_grad_enabled()
    assert found[0] == plain[0]
    assert (found[1] == plain[1]).all()


@pytest.mark.parametrize("state", STATES)
def test_each_state_is_left_behind_and_comes_back(state):
    def seen():
        switches = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()
        return torch.get_default_dtype(), torch.get_default_device(), *switches

    outside = seen()
    with STATES[state]():
        before = seen()
        assert plain_torch()(seen)() == outside == (torch.float32, torch.device("cpu"), False, False, True)
        with pytest.raises(ZeroDivisionError), plain_torch():
            raise ZeroDivisionError
        assert seen() == before
        assert (before != outside) == (state != "deterministic")


def test_regression_and_probabilities_are_the_same(tmp_path):
    def both(folder):
        source = Sinusoid()
        maml = registry.learner("maml")
        config = dataclasses.replace(tiny("maml"), moves="*")
        run = Run.create(folder, learner="maml", config=config, source=source, seed=1)
        maml.train(config, source, run)
        waves = maml.load(run, source).curve(source.fixed("test", 2), Budget(2), 0).values
        return checkpoints_bytes(run), waves.tolist()

    plain = both(tmp_path / "plain")
    with every_state():
        assert both(tmp_path / "switched") == plain


@pytest.mark.parametrize("rule", ["centroid", "logistic", "baseline"])
def test_the_classifier_is_the_same(rule):
    rng = np.random.default_rng(0)
    pictures, labels = rng.random((6, 8, 8)), ["a", "b"] * 3
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))

    def probabilities():
        return FewShotClassifier(encoder, rule).fit(pictures, labels).predict_proba(pictures)

    plain = probabilities()
    with every_state():
        assert (probabilities() == plain).all()


@pytest.mark.parametrize("name", ["maml", "protonet", "baseline"])
def test_tensors_made_in_inference_mode_are_taken(name, tmp_path):
    source = source_of(name)
    learner = registry.learner(name)
    run = Run.create(tmp_path / "run", learner=name, config=tiny(name), source=source, seed=1)
    learner.train(run.config, source, run)
    trained = learner.load(run, source)
    plain = trained.log_probabilities(source.batch(source.fixed("test", 2)), 3)
    with torch.inference_mode():
        batch = source.batch(source.fixed("test", 2))
    assert torch.equal(trained.log_probabilities(batch, 3), plain)
    assert batch.support_x.is_inference()
    assert not usable(batch).support_x.is_inference()
