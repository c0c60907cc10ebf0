import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.datasets.sinusoid import Sinusoid
from metarl.fewshot.learners import maml
from metarl.runs.run import Run
from metarl.tasks import Tasks


def test_targets_literal():
    task = {"amplitude": [2.0], "phase": [0.0], "support_x": [[0.0, math.pi / 2]], "query_x": [[-math.pi / 2]]}
    batch = Sinusoid(shots=2, queries=1).batch(Tasks(task))
    torch.testing.assert_close(batch.support_y[0, :, 0], torch.tensor([0.0, 2.0]))
    assert batch.query_y.item() == pytest.approx(-2)
    shifted = Sinusoid(shots=2, queries=1).batch(Tasks({**task, "phase": [math.pi / 2]}))
    torch.testing.assert_close(shifted.support_y[0, :, 0], torch.tensor([-2.0, 0.0]))


def test_ranges_and_frozen_sequences():
    source = Sinusoid()
    arrays = source.fixed("test", 500).arrays
    assert 0.1 <= arrays["amplitude"].min() < 0.3
    assert 4.8 < arrays["amplitude"].max() <= 5
    assert arrays["phase"].min() >= 0
    assert arrays["phase"].max() <= math.pi
    assert np.abs(arrays["support_x"]).max() <= 5
    assert arrays["support_x"].shape == (500, 10)
    assert source.fixed("test", 3) == source.fixed("test", 500)[:3]
    assert source.fixed("validation", 3) != source.fixed("test", 3)
    assert source.fixed("ood", 50).arrays["amplitude"].min() >= 5
    assert source.fixed("test", 2).sha256().startswith("3d167a0488af0523")


def test_bad_settings_say_what_is_allowed():
    with pytest.raises(UserError, match="--shots is 0; it must be at least 1"):
        Sinusoid(shots=0)
    with pytest.raises(UserError, match="--outer-step-size is 0; it must be above 0"):
        maml.Config(outer_step_size=0)
    with pytest.raises(ValueError, match="no split 'tset'"):
        Sinusoid().fixed("tset", 1)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    source = Sinusoid()
    config = maml.Config(iterations=30, log_every=7, checkpoint_every=8, strategy="vmap", hidden=(5,))

    def begin(name, settings):
        return Run.create(tmp_path / name, learner="maml", config=settings, source=source, seed=1)

    whole = begin("whole", config)
    maml.train(config, source, whole)
    maml.train(replace(config, iterations=16), source, begin("parts", replace(config, iterations=16)))
    resumed = Run.resume(tmp_path / "parts", learner="maml", config=config, source=source, seed=1)
    maml.train(config, source, resumed)
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "parts/metrics.jsonl").read_bytes()
    a, b = whole.restore()[1]["params"], resumed.restore()[1]["params"]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_auto_remembers_its_choice(tmp_path):
    source = Sinusoid()
    config = maml.Config(iterations=1, tasks=2, hidden=(5,))
    run = Run.create(tmp_path / "run", learner="maml", config=config, source=source, seed=0)
    maml.train(config, source, run)
    plan = run.recall("meta_gradient")
    assert plan["strategy"] in ("loop", "threads", "vmap")
    assert Run.open(tmp_path / "run").recall("meta_gradient") == plan
