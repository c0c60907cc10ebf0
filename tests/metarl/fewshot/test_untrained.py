"""Baselines that need no training, and features centred and scaled before they are compared."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from metarl import registry
from metarl.errors import UserError
from metarl.fewshot.batch import Batch
from metarl.fewshot.classifier import FewShotClassifier
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.learners import feature_norm
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.hog import hog
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.networks.feature_norm import Normalised
from metarl.learning.contract import Budget
from metarl.seeding import Key


def accuracy(learner, source, tasks=40):
    return learner.curve(source.fixed("test", tasks), Budget(), 0).values[:, -1].mean()


# ---- histograms of gradients


def test_a_ramp_votes_in_one_bin():
    """Grey rises downwards by 1/8 a pixel: all gradients point at 90 degrees, bin 4, and the four cells are alike."""
    ramp = (torch.arange(8) / 8)[:, None].expand(8, 8)[None, None]
    histograms = hog(ramp, 4).view(1, 2, 2, 9)
    assert histograms[..., 4].flatten().tolist() == pytest.approx([0.5] * 4)  # clipped at .2 and divided again
    assert histograms.sum() == histograms[..., 4].sum()


def test_a_blank_image_has_zeros():
    assert hog(torch.ones(2, 3, 16, 16), 4).abs().max() == 0


@pytest.mark.parametrize(("shape", "cell"), [((1, 28, 28), 3), ((3, 32, 32), 4), ((3, 33, 50), 5)])
def test_histograms_are_scikit_image_s(shape, cell):
    feature = pytest.importorskip("skimage.feature", reason="scikit-image is not installed")
    images = torch.rand(3, *shape, generator=Key(0)("hog").torch(), dtype=torch.float64)
    theirs = [feature.hog(x.numpy(), 9, (cell, cell), (2, 2), block_norm="L2-Hys", channel_axis=0) for x in images]
    np.testing.assert_allclose(hog(images, cell).numpy(), theirs, atol=1e-6)  # it adds up in float32


@pytest.mark.parametrize("name", ["hog-centroid", "hog-logistic"])
def test_histograms_tell_letters_apart_better_than_pixels(name):
    source = Glyphs(shots=5, queries=5)
    assert accuracy(registry.make_untrained(name, source), source) > accuracy(
        registry.make_untrained("pixels", source), source
    )


# ---- CL2N


def test_cl2n_by_hand():
    """Centre (1, 1): (4, 5) goes to (3, 4) / 5, and the centre itself to zeros."""
    values = torch.tensor([[4.0, 5.0], [1.0, 1.0]])
    assert Normalised(torch.tensor([1.0, 1.0]))(values).flatten().tolist() == pytest.approx([0.6, 0.8, 0, 0])
    assert Normalised()(torch.tensor([[3.0, 4.0]])).flatten().tolist() == pytest.approx([0.6, 0.8])


def test_a_head_compares_normalised_features():
    """About the centre (1, 0), supports are up and right, and the query (9, 1) right; about the origin it is, too,
    nearer to the right one; without lengths the nearest is the one above."""
    network = ProtoNet(nn.Flatten(), "running").eval()
    support = torch.tensor([[[1.0, 1.0], [20.0, 0.0]]])[..., None, None]
    query = torch.tensor([[[9.0, 1.0]]])[..., None, None]
    batch = Batch(support, torch.tensor([[0, 1]]), query, torch.zeros(1, 1, dtype=torch.int64))
    assert network.log_probabilities(batch, 2).argmax() == 0
    network.feature_norm = Normalised(torch.tensor([1.0, 0.0]))
    found = network.log_probabilities(batch, 2)[0, 0].exp()
    one, two = (8 / math.sqrt(65)) ** 2 + (1 / math.sqrt(65) - 1) ** 2, (8 / math.sqrt(65) - 1) ** 2 + 1 / 65
    assert found.tolist() == pytest.approx(
        [math.exp(-one) / (math.exp(-one) + math.exp(-two)), 1 / (1 + math.exp(two - one))]
    )


def test_the_centre_is_the_mean_training_feature(monkeypatch):
    source = Glyphs()
    names = set(source.classes("train"))
    mine = [i for i, name in enumerate(source.images.classes) if name in names]
    rows = np.concatenate(
        [np.arange(source.images.starts[i], source.images.starts[i] + source.images.sizes[i]) for i in mine]
    )
    monkeypatch.setattr(feature_norm, "MOST", len(rows))
    found = feature_norm.training_mean(ProtoNet(nn.Flatten(), "running"), source)
    expected = source.images.pixels[rows].reshape(len(rows), -1).mean(0, dtype=np.float64) / 255
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-5, atol=1e-7)


def test_cl2n_is_said_in_the_protocol_and_refused_where_it_has_no_meaning():
    source = Glyphs(shots=2, queries=2)
    learner = feature_norm.with_feature_norm(registry.make_untrained("hog-centroid", source), "cl2n", source)
    assert "features cl2n" in learner.curve(source.fixed("test", 2), Budget(), 0).protocol
    with pytest.raises(UserError, match="compare features"):
        feature_norm.with_feature_norm(object(), "cl2n", source)
    moving = TrainedEmbedding(ProtoNet(nn.Flatten(), "transductive"), source, "x")
    with pytest.raises(UserError, match="use --feature-norm l2"):
        feature_norm.with_feature_norm(moving, "cl2n", source)


def test_a_classifier_without_a_run_centres_on_what_it_learns_from():
    """Means of (2, 1) and (20, 0) about (11, .5) point apart; the query (12, 1) is right of it."""
    x = np.array([[2.0, 1.0], [20.0, 0.0]])
    assert FewShotClassifier().fit(x, [0, 1]).predict(np.array([[10.0, 1.0]])).tolist() == [0]
    centred = FewShotClassifier(feature_norm="cl2n").fit(x, [0, 1])
    assert centred.predict(np.array([[11.5, 0.5]])).tolist() == [1]
    with pytest.raises(ValueError, match="choose from none, l2, cl2n"):
        FewShotClassifier(feature_norm="x").fit(x, [0, 1])
