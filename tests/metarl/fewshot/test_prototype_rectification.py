"""BD-CSPN: its means by hand, what it does for other heads, and that nobody can miss that it is transductive."""

import json
import math

import pytest
import torch
from command_line import metarl, refused
from torch import nn

from metarl import registry
from metarl.errors import UserError
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.learners.transductive import with_rectification
from metarl.fewshot.networks.prototype_rectification import Rectified, rectified
from metarl.learning.contract import Budget
from metarl.seeding import Key

SUPPORT, LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
QUERY = torch.tensor([[2.8, -0.4], [2.2, -0.6]])  # (0.8, 0.6) and (0.2, 0.4), moved by (2, -1)


def test_rectified_means_by_hand():
    """Supports (1, 0) and (0, 1), mean (.5, .5). The first query is moved to (.8, .6): cosines .8 and .6 with the
    means, so it is of class 0, where it weighs 1 / (1 + exp(10 (1 - .8))). The second, (.2, .4), is of class 1."""
    means, moved = rectified(SUPPORT, LABELS, QUERY, 2)
    torch.testing.assert_close(moved, torch.tensor([[0.8, 0.6], [0.2, 0.4]]).double(), rtol=0, atol=1e-6)
    one, two = (1 / (1 + math.exp(10 * (1 - cosine))) for cosine in (0.8, 0.4 / math.sqrt(0.2)))
    expected = [[1 - one + one * 0.8, one * 0.6], [two * 0.2, 1 - two + two * 0.4]]
    torch.testing.assert_close(means, torch.tensor(expected).double(), rtol=0, atol=1e-6)


def test_the_head_is_shown_the_means():
    found = Rectified(ProtoNet(nn.Identity(), "running")).compare(SUPPORT[None], LABELS[None], QUERY[None], 2)
    means, moved = rectified(SUPPORT, LABELS, QUERY, 2)
    expected = (-(torch.cdist(moved, means) ** 2)).log_softmax(-1)
    torch.testing.assert_close(found[0].double(), expected, rtol=0, atol=1e-6)


def test_queries_far_from_the_supports_change_nothing_by_being_far():
    """The shift between the two sets is taken out; without it the first query would be nearest to class 0 by far."""
    network = Rectified(ProtoNet(nn.Identity(), "running"))
    near, far = (network.compare(SUPPORT[None], LABELS[None], QUERY[None] + by, 2) for by in (0.0, 64.0))
    torch.testing.assert_close(near, far, rtol=1e-4, atol=1e-4)


def test_a_prediction_sees_the_other_queries_and_no_other_task():
    network = Rectified(ProtoNet(nn.Identity(), "running"))
    query = torch.randn(2, 6, 2, generator=Key(0)("rectified").torch())
    support, labels = SUPPORT.expand(2, 2, 2), LABELS.expand(2, 2)
    both = network.compare(support, labels, query, 2)
    torch.testing.assert_close(both[1:], network.compare(support[1:], labels[1:], query[1:], 2))
    assert not torch.allclose(both[:, :3], network.compare(support, labels, query[:, :3], 2))


def test_the_protocol_says_so_and_who_compares_no_features_is_refused():
    source = Glyphs(ways=3, shots=1, queries=4)
    learner = with_rectification(registry.make_untrained("hog-centroid", source))
    scores = learner.curve(source.fixed("test", 4), Budget(), 0)
    assert "transductive: BD-CSPN, sees all query images of a task" in scores.protocol
    with pytest.raises(UserError, match="compare features"):
        with_rectification(object())


def test_on_the_command_line(tmp_path):
    words = ["--dataset", "glyphs", "--ways", "3", "--tasks", "4", "--transductive", "bd-cspn", "--json"]
    assert metarl("evaluate", "hog-centroid", *words, tmp_path / "curve.json").code == 0
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert curve["agent"] == "hog-centroid, transductive bd-cspn"
    words = ["--family", "metarl/Navigation2D-v0", "--transductive", "bd-cspn"]
    said = refused(metarl("evaluate", "random", *words))
    assert "--transductive is for few-shot learners; metarl/Navigation2D-v0 has no images" in said
