"""Transfer: base classes and their rotations, heads by hand, centroid and regression against their definitions."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from metarl.errors import UserError
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.learners import baseline, baseline_plus, centroid, logistic, transfer
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.logistic import Logistic
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.learners.transfer import BaseClasses, FittedHead, Head, HeadConfig
from metarl.learning.contract import Budget
from metarl.runs.run import Run
from metarl.seeding import Key

LABELS = torch.tensor([[0, 1, 2, 0, 1, 2]])


def features(*shape, stream="x"):
    return torch.randn(*shape, generator=Key(0)("transfer", stream).torch())


@dataclass(frozen=True, kw_only=True)
class Marked(ImageSource):
    """Six classes of two images; the corners of image i hold i, 100, 150, 200."""

    name: ClassVar[str] = "marked"

    def load(self):
        pixels = np.zeros((12, 1, 2, 2), np.uint8)
        pixels[:, 0, 0, 0] = np.arange(12)
        pixels[:, 0, 0, 1], pixels[:, 0, 1, 0], pixels[:, 0, 1, 1] = 100, 150, 200
        names = tuple("abcdef")
        return Images(pixels, names, (2,) * 6, names)

    def split_classes(self, images):
        return {"train": [4, 0, 2], "validation": [1], "test": [3, 5]}


# ---- base classes


def test_base_classes_are_the_train_classes():
    base = BaseClasses.of(Marked())
    assert base.count == 3
    x, y = base.draw(500, Key(0).numpy())
    assert x.dtype == torch.float32
    image = (x[:, 0, 0, 0] * 255).round().long()
    assert set(image.tolist()) == {8, 9, 0, 1, 4, 5}  # both images of classes 4, 0 and 2
    assert torch.equal(torch.tensor([4, 0, 2])[y], image // 2)


def test_a_rotated_class_is_a_class_of_its_own():
    base = BaseClasses.of(Marked(rotations=True))
    assert base.count == 12
    x, y = base.draw(2000, Key(0).numpy())
    for turns in range(4):
        back = x[y // 3 == turns].rot90(-turns, (2, 3))
        assert torch.equal((back[:, 0, 1, 1] * 255).round(), torch.full((len(back),), 200.0))
        image = (back[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(torch.tensor([4, 0, 2])[y[y // 3 == turns] % 3], image // 2)
    np.testing.assert_allclose(np.bincount(y) / 2000, 1 / 12, atol=0.025)


# ---- heads


def test_cosine_head_by_hand():
    """Weights along the axes: cosines of (3, 4) are 0.6 and 0.8; times norms 2 and 1, times the scale 10."""
    found = transfer.logits(
        torch.tensor([[3.0, 4.0]]), torch.tensor([[7.0, 0.0], [0.0, 0.1]]), torch.tensor([2.0, 1.0]), 10.0
    )
    torch.testing.assert_close(found, torch.tensor([[12.0, 8.0]]))


def test_linear_head_by_hand():
    found = transfer.logits(
        torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [1.0, -1.0]]), torch.tensor([0.5, 0.0]), None
    )
    assert found.tolist() == [[3.5, -1.0]]


def test_a_cosine_head_starts_as_the_linear_layer_on_unit_features():
    """Weight normalisation starts with each norm at that of its weight (Chen et al. 2019's code)."""
    head, x = Head(5, 3, Key(0).torch(), scale=2.0), features(4, 5)
    torch.testing.assert_close(head(x), 2 * F.normalize(x, dim=-1) @ head.weight.T)
    head(x).sum().backward()
    assert head.bias_or_norm.grad.abs().min() > 0


def test_the_scale_of_the_base_head():
    assert [transfer.base_scale(n) for n in (64, 200, 201, 4112)] == [2, 2, 10, 10]


def fitted(scale=None, **options):
    return FittedHead(nn.Identity(), "running", HeadConfig(**options), scale)


def test_one_step_of_the_task_head_by_hand():
    """Without momentum, one minibatch of everything: w - lr (mean gradient + decay w)."""
    support, query = features(1, 6, 4), features(1, 5, 4, stream="q")
    head = fitted(epochs=1, head_minibatch=6, head_step_size=0.5, momentum=0.0, weight_decay=0.1)
    first = Head(4, 3, Key(0)("transfer", "task head").torch())
    weight, bias = first.weight.detach(), torch.zeros(3)
    error = ((support[0] @ weight.T).softmax(-1) - F.one_hot(LABELS[0], 3)) / 6
    weight = weight - 0.5 * (error.T @ support[0] + 0.1 * weight)
    bias = bias - 0.5 * error.sum(0)
    expected = (query[0] @ weight.T + bias).log_softmax(-1)
    torch.testing.assert_close(head.compare(support, LABELS, query, 3)[0], expected)


def test_momentum_of_the_task_head_is_dampened_by_hand():
    """Minibatches of four and two, twice: each step is .9 of the last and .1 of its gradient (Chen et al. 2019)."""
    support, query = features(1, 6, 4), features(1, 5, 4, stream="q")
    head = fitted(epochs=2, head_minibatch=4, head_step_size=0.5, momentum=0.9, weight_decay=0.1)
    key = Key(0)("transfer", "task head")
    weight, bias, orders = Head(4, 3, key.torch()).weight.detach(), torch.zeros(3), key("order").numpy()
    run = None
    for _ in range(2):
        order = torch.from_numpy(orders.permutation(6))
        for rows in (order[:4], order[4:]):
            x, y = support[0, rows], LABELS[0, rows]
            error = ((x @ weight.T + bias).softmax(-1) - F.one_hot(y, 3)) / len(rows)
            gradients = (error.T @ x + 0.1 * weight, error.sum(0) + 0.1 * bias)
            run = gradients if run is None else tuple(0.9 * a + 0.1 * b for a, b in zip(run, gradients, strict=True))
            weight, bias = weight - 0.5 * run[0], bias - 0.5 * run[1]
    expected = (query[0] @ weight.T + bias).log_softmax(-1)
    torch.testing.assert_close(head.compare(support, LABELS, query, 3)[0], expected)


@pytest.mark.parametrize("scale", [None, 2.0])
def test_a_task_s_head_does_not_depend_on_the_tasks_beside_it(scale):
    support, query = features(3, 6, 4), features(3, 5, 4, stream="q")
    head = fitted(scale, epochs=5)
    together = head.compare(support, LABELS.expand(3, -1), query, 3)
    for t in range(3):
        alone = head.compare(support[t : t + 1], LABELS, query[t : t + 1], 3)
        torch.testing.assert_close(together[t : t + 1], alone)


@pytest.mark.parametrize("scale", [None, 2.0])
def test_a_task_s_head_is_drawn_from_its_own_key(scale):
    support, query = features(1, 6, 4).expand(3, -1, -1), features(1, 5, 4, stream="q").expand(3, -1, -1)
    head, keys = fitted(scale, epochs=2, head_step_size=0.1), [Key(0)(name) for name in "abc"]
    together = head.compare(support, LABELS.expand(3, -1), query, 3, keys)
    for t, key in enumerate(keys):
        alone = head.compare(support[:1], LABELS, query[:1], 3, [key])
        torch.testing.assert_close(together[t : t + 1], alone)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_every_task_split_shot_and_seed_has_a_key_of_its_own(monkeypatch):
    source, seen, compare = Glyphs(ways=3, shots=2, queries=2), [], FittedHead.compare

    def overheard(self, support, labels, query, ways, keys=()):
        seen.extend(keys)
        return compare(self, support, labels, query, ways, keys)

    monkeypatch.setattr(FittedHead, "compare", overheard)
    network = FittedHead(nn.Flatten(), "running", HeadConfig(epochs=1), None)
    for split in source.splits:
        for seed in (0, 1):
            TrainedEmbedding(network, source, "").curve(source.fixed(split, 3), Budget(), seed)
    assert len({key.digest() for key in seen}) == len(seen) == 3 * 2 * 3 * 2


@pytest.mark.parametrize("scale", [None, 2.0])
def test_a_task_s_head_fits_what_can_be_told_apart(scale):
    support = F.one_hot(LABELS, 3).float()
    for enabled in (True, False):  # also where the caller has switched gradients off
        with torch.set_grad_enabled(enabled):
            found = fitted(scale).compare(support, LABELS, support, 3)
        assert torch.equal(found.argmax(-1), LABELS)
        assert not found.requires_grad


# ---- regression and centroid


def test_regression_is_scikit_learn_s_on_unit_features():
    support, query = features(2, 6, 4), features(2, 5, 4, stream="q")
    for c in (0.01, 1.0):
        found = Logistic(nn.Identity(), "running", c).compare(support, LABELS.expand(2, -1), query, 3)
        x, z = (F.normalize(part, dim=-1).double().numpy() for part in (support, query))
        for t in range(2):
            expected = LogisticRegression(C=c, max_iter=1000).fit(x[t], LABELS[0].numpy()).predict_log_proba(z[t])
            np.testing.assert_allclose(found[t].numpy(), expected, atol=1e-5)


def test_regression_takes_any_way_and_unbalanced_support():
    network = Logistic(nn.Identity(), "running", 1.0)
    for labels in ([0, 1], [0, 0, 0, 1], [3, 1, 2, 0, 2]):
        y, ways = torch.tensor([labels]), max(labels) + 1
        found = network.compare(features(1, len(labels), 4), y, features(1, 5, 4, stream="q"), ways)
        assert found.shape == (1, 5, ways)
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(1, 5))


def trained(tmp_path, module, name, **options):
    source = Glyphs(ways=3, shots=2, queries=2)
    config = module.Config(iterations=2, minibatch=8, width=2, **options)
    run = Run.create(tmp_path / name, learner=name, config=config, source=source, seed=0)
    module.train(config, source, run)
    return module.load(run, source), source, run


def test_centroid_is_protonet_s_rule_on_the_trained_encoder(tmp_path):
    learner, source, run = trained(tmp_path, centroid, "centroid")
    batch = source.batch(source.fixed("test", 3))
    rule = ProtoNet(learner.network.encoder, "running").eval()
    assert torch.equal(learner.log_probabilities(batch, 3), rule(batch, 3).detach())
    held = run.restore()[1]["params"]
    assert torch.equal(learner.network.encoder.convolutions[0].weight, held["encoder.convolutions.0.weight"])
    assert held["head.weight"].shape == (1133, 32 // 16)  # a class for each train letter


@pytest.mark.parametrize("module", [centroid, logistic, baseline, baseline_plus])
def test_the_encoder_is_frozen_on_new_tasks(tmp_path, module):
    options = {"epochs": 2} if issubclass(module.Config, HeadConfig) else {}
    learner, source, _ = trained(tmp_path, module, "run", **options)
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    learner.log_probabilities(source.batch(source.fixed("test", 2)), 3)
    assert all(torch.equal(value, before[name]) for name, value in learner.network.state_dict().items())


def test_the_heads_of_training_differ(tmp_path):
    """Baseline trains a linear head, Baseline++ a cosine head."""
    for module, kind in ((baseline, "zeros"), (baseline_plus, "norms")):
        _, _, run = trained(tmp_path, module, module.__name__.rpartition(".")[2], epochs=1)
        other = run.restore()[1]["params"]["head.bias_or_norm"]
        assert (other.mean() > 0.3) == (kind == "norms")
    other = trained(tmp_path, baseline, "again", epochs=1)[0]
    assert other.network.scale is None
    assert trained(tmp_path, baseline_plus, "plus", epochs=1)[0].network.scale == 2  # of a task (Chen et al. 2019)


def test_other_queries_do_not_matter_with_running_averages(tmp_path):
    learner, source, _ = trained(tmp_path, logistic, "logistic")
    batch = source.batch(source.fixed("test", 2))
    changed = batch.query_x.clone()
    changed[:, 1:] = 1 - changed[:, 1:]
    before, after = (learner.log_probabilities(part, 3)[:, 0] for part in (batch, replace(batch, query_x=changed)))
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: centroid.Config(minibatch=0), "--minibatch is 0; it must be at least 1"),
        (lambda: logistic.Config(c=0.0), "--c is 0.0; it must be above 0"),
        (lambda: baseline.Config(epochs=0), "--epochs is 0; it must be at least 1"),
        (lambda: baseline_plus.Config(head_step_size=-1.0), "--head-step-size is -1.0; it must be above 0"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(UserError, match=message):
        make()
