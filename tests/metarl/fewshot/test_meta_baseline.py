"""Meta-Baseline: its rule by hand, its scale, and the encoder of another run that it starts from."""

import math

import pytest
import torch
from torch import nn

from metarl.errors import UserError
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.datasets.reading import DataWarning
from metarl.fewshot.learners import baseline, meta_baseline
from metarl.fewshot.learners.meta_baseline import MetaBaseline, make, start_from
from metarl.runs.run import Run

SOURCE = Glyphs(ways=3, shots=1, queries=2)


def test_cosines_with_class_means_by_hand():
    """Class 0 at (0, 0) and (0, 6): mean (0, 3); class 1 at (4, 0). The query (6, 8) has cosines 0.8 and 0.6."""
    support, labels = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, 6.0]]]), torch.tensor([[0, 1, 0]])
    found = MetaBaseline(nn.Identity(), "running", 5.0).compare(support, labels, torch.tensor([[[6.0, 8.0]]]), 2)
    z = math.log(math.exp(4) + math.exp(3))
    torch.testing.assert_close(found, torch.tensor([[[4 - z, 3 - z]]]))


def test_the_scale_is_learned():
    network = MetaBaseline(nn.Identity(), "running", 10.0)
    assert network.log_scale.exp().item() == pytest.approx(10)
    support, query = torch.eye(2)[None], torch.tensor([[[2.0, 1.0]]])
    network.compare(support, torch.tensor([[0, 1]]), query, 2)[..., 0].sum().backward()
    assert network.log_scale.grad.abs() > 0


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of the first stage."""
    config = baseline.Config(iterations=2, minibatch=8, width=4)
    run = Run.create(tmp_path_factory.mktemp("first") / "run", learner="baseline", config=config, source=SOURCE, seed=3)
    baseline.train(config, SOURCE, run)
    return run


def test_it_starts_from_the_encoder_of_another_run(first, tmp_path):
    config = meta_baseline.Config(iterations=1, tasks=2, width=4, step_size=1e-9, init_from=str(first.folder))
    run = Run.create(tmp_path / "run", learner="meta-baseline", config=config, source=SOURCE, seed=0)
    meta_baseline.train(config, SOURCE, run)
    expected, found = (each.restore()[1]["params"] for each in (first, run))
    name = "encoder.convolutions.0.weight"
    torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-7)
    assert not torch.allclose(make(config, SOURCE, 0).encoder.convolutions[0].weight, expected[name])
    meta_baseline.load(run, SOURCE)  # what it started from is not needed again


def test_it_does_not_start_anew_when_it_goes_on(first, tmp_path, monkeypatch):
    config = meta_baseline.Config(iterations=1, tasks=2, width=4, init_from=str(first.folder))
    run = Run.create(tmp_path / "run", learner="meta-baseline", config=config, source=SOURCE, seed=0)
    meta_baseline.train(config, SOURCE, run)
    monkeypatch.setattr(meta_baseline, "start_from", lambda *args: pytest.fail("started anew"))
    meta_baseline.train(config, SOURCE, run)


def test_what_it_cannot_start_from_is_said(first, tmp_path):
    narrow = make(meta_baseline.Config(width=2), SOURCE, 0).encoder
    with pytest.raises(UserError, match="does not fit"):
        start_from(str(first.folder), narrow, SOURCE)
    with pytest.raises(UserError, match=r"--init-from is .*, where there is no run"):
        start_from(str(tmp_path / "none"), narrow, SOURCE)
    seen = Run.create(tmp_path / "seen", learner="baseline", config=first.config, source=SOURCE, seed=0)
    seen.remember("trained_on", {"classes": sorted(SOURCE.classes("test")), "images": SOURCE.images.fingerprint})
    with (
        pytest.warns(DataWarning, match="has changed"),
        pytest.raises(UserError, match=r"was trained on .* test classes"),
    ):
        start_from(str(seen.folder), narrow, SOURCE)
    with pytest.raises(UserError, match=r"--scale is 0\.0; it must be above 0"):
        meta_baseline.Config(scale=0.0)
