"""Rules that compare features: right wherever the origin, at any scale, in any precision; and bounded in memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metarl.errors import NonFiniteError
from metarl.fewshot.classifier import FewShotClassifier
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.learners import maml
from metarl.fewshot.learners.adaptation import make_network
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.initialisation import TrainedInitialisation
from metarl.fewshot.learners.logistic import Logistic
from metarl.fewshot.learners.matchingnet import MatchingNet
from metarl.fewshot.learners.meta_baseline import MetaBaseline
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.learners.r2d2 import R2D2
from metarl.fewshot.learners.transfer import FittedHead, HeadConfig
from metarl.fewshot.networks import chunks
from metarl.fewshot.networks.backbones import make_backbone
from metarl.fewshot.networks.distances import unit
from metarl.learning.contract import Budget
from metarl.seeding import Key

HALF, SINGLE, DOUBLE = (torch.float16, torch.bfloat16), torch.float32, torch.float64
RULES = {
    "protonet": lambda encoder: ProtoNet(encoder, "running"),
    "matchingnet": lambda encoder: MatchingNet(encoder, "running", 10.0),
    "meta-baseline": lambda encoder: MetaBaseline(encoder, "running", 10.0),
    "r2d2": lambda encoder: R2D2(encoder, "running", 0.5, 10.0),
    "logistic": lambda encoder: Logistic(encoder, "running", 1.0),
    "baseline": lambda encoder: FittedHead(encoder, "running", HeadConfig(epochs=2), None),
    "baseline++": lambda encoder: FittedHead(encoder, "running", HeadConfig(epochs=2), 2.0),
}


def log_softmax(values):
    values = values - values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def reference(rule, support, labels, query):
    """Log-probabilities of one task in extended precision, by the definitions."""
    support, query = (part.double().numpy().astype(np.longdouble) for part in (support, query))
    if rule == "protonet":
        means = np.stack([support[labels == label].mean(0) for label in np.unique(labels)])
        return log_softmax(-((query[:, None] - means) ** 2).sum(-1))
    lengths = [np.sqrt((part**2).sum(-1, keepdims=True)) for part in (support, query)]
    support, query = (
        part / np.where(length > 0, length, 1) for part, length in zip((support, query), lengths, strict=True)
    )
    votes = np.exp(log_softmax(10 * query @ support.T))
    return np.log(np.stack([votes[:, labels == label].sum(-1) for label in np.unique(labels)], -1))


@settings(max_examples=80)
@given(
    st.sampled_from(["protonet", "matchingnet"]),
    st.sampled_from([*HALF, SINGLE, DOUBLE]),
    st.sampled_from([0.0, 3.0, 3000.0, 1e6]),
    st.sampled_from([1e-20, 1e-3, 1.0, 300.0]),
    st.integers(0, 2**32),
)
def test_rules_are_exact_wherever_the_origin_is(rule, kind, origin, scale, seed):
    """The answer to the features as they are, rounded to their type: no more is lost on the way."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, 8)) * scale
    if kind == torch.float16:
        origin = min(origin, 3000.0)
    labels = np.repeat(np.arange(4), 3)
    support = torch.from_numpy(centres[labels] + rng.normal(size=(12, 8)) * 0.3 * scale + origin).to(kind)
    query = torch.from_numpy(centres[rng.integers(0, 4, 9)] + rng.normal(size=(9, 8)) * 0.3 * scale + origin).to(kind)
    network = RULES[rule](nn.Identity())
    found = network.judge(support[None], torch.from_numpy(labels)[None], query[None], 4)[0]
    assert found.dtype == (SINGLE if kind in HALF else kind)
    expected = reference(rule, support, labels, query).astype(np.float64)
    np.testing.assert_allclose(found.double().detach().numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", [*HALF, SINGLE, DOUBLE], ids=str)
def test_every_rule_takes_every_precision_and_features_of_zero(rule, kind):
    support = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 3.0]]], dtype=kind)
    query = torch.tensor([[[5.0, 0.1], [0.0, 4.0], [0.0, 0.0]]], dtype=kind)
    found = RULES[rule](nn.Identity()).judge(support, torch.tensor([[0, 0, 1, 1]]), query, 2)
    assert found.isfinite().all()
    np.testing.assert_allclose(found.exp().sum(-1).detach(), 1, atol=1e-3)
    if not rule.startswith("baseline"):  # too few epochs to learn anything
        assert found.argmax(-1)[0, :2].tolist() == [0, 1]


def test_a_feature_of_zero_has_a_gradient_of_use():
    x = torch.zeros(1, 3, requires_grad=True)
    (unit(x) @ torch.ones(3)).sum().backward()
    assert x.grad.abs().max() <= 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["support", "query"])
def test_a_feature_that_is_no_number_is_an_error(rule, wrong, where):
    features = {"support": torch.rand(1, 4, 3, generator=Key(0).torch()), "query": torch.rand(1, 5, 3)}
    features[where][0, 2, 1] = wrong
    count = features[where].shape[1]
    with pytest.raises(NonFiniteError, match=f"features of 1 of {count} {where} images are NaN or infinite") as said:
        RULES[rule](nn.Identity()).judge(features["support"], torch.tensor([[0, 0, 1, 1]]), features["query"], 2)
    assert "\n" not in str(said.value)
    assert str(said.value).endswith("is to be trained again")  # nothing here has a step size


class Features(nn.Module):
    """The numbers given, in a type of its own."""

    def __init__(self, kind=torch.float32, times=1.0):
        super().__init__()
        self.kind = kind
        self.times = nn.Parameter(torch.tensor(times))

    def forward(self, x):
        return (x.flatten(1) * self.times).to(self.kind)


@pytest.mark.parametrize("kind", [SINGLE, torch.float16])
def test_the_classifier_far_from_the_origin_and_in_half_precision(kind):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 64)) * (0.05 if kind == SINGLE else 8)
    labels, truth = np.repeat(np.arange(5), 5), np.repeat(np.arange(5), 40)
    spread = 0.02 if kind == SINGLE else 2
    x, q = (centres[y] + rng.normal(size=(len(y), 64)) * spread + 3000 for y in (labels, truth))
    model = FewShotClassifier(Features(kind)).fit(x.astype(np.float32), labels)
    assert model.score(q.astype(np.float32), truth) == 1


@pytest.mark.parametrize("rule", ["centroid", "logistic", "baseline", "baseline++"])
def test_a_classifier_never_answers_what_is_not_a_number(rule):
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    model = FewShotClassifier(Features(times=float("nan")), rule=rule).fit(x, [0, 0, 1, 1])
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        model.predict(x)


def test_an_evaluation_never_scores_what_is_not_a_number():
    source = Glyphs(ways=2, queries=1)
    learner = TrainedEmbedding(ProtoNet(Features(times=float("nan")), "running").eval(), source, "rule")
    with pytest.raises(NonFiniteError):
        learner.curve(source.fixed("test", 2), Budget(), 0)


# Memory


class Watched(nn.Module):
    """An encoder that notes how many images it is given, and takes 64 numbers for each of an image's."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.layer = nn.Conv2d(1, 64, 1)

    def forward(self, x):
        self.seen.append(len(x))
        return self.layer(x).mean((2, 3))


@pytest.mark.parametrize("budget", [1, 1 << 20, 1 << 24])
def test_an_encoder_is_given_so_many_images_as_fit(budget, monkeypatch):
    monkeypatch.setattr(chunks, "BYTES", budget)
    source = Glyphs(ways=5, shots=5, queries=5)
    encoder = Watched()
    learner = TrainedEmbedding(ProtoNet(encoder, "running").eval(), source, "rule")
    values = learner.curve(source.fixed("test", 12), Budget(), 0).values
    image = 65 * 28 * 28 * 4  # the convolution's output, and the image before it
    largest = max(1, budget // (64 * 28 * 28 * 4))
    assert max(encoder.seen[1:]) <= max(largest, 2)
    assert max(encoder.seen[1:]) >= min(600, budget // (2 * image))
    assert sum(encoder.seen) <= 12 * 50 + 2  # none twice, but for two blank ones
    monkeypatch.setattr(chunks, "BYTES", 1 << 34)
    assert (learner.curve(source.fixed("test", 12), Budget(), 0).values == values).all()


@pytest.mark.parametrize("mode", ["transductive", "support", "running"])
def test_scores_do_not_depend_on_the_bytes(mode, monkeypatch):
    source = Glyphs(ways=3, shots=2, queries=3)
    network = ProtoNet(make_backbone("conv4", (1, 28, 28), Key(1).torch(), 4, mode), mode).eval()
    learner = TrainedEmbedding(network, source, "rule")
    tasks = source.fixed("test", 6)
    found = []
    for budget in (1, 1 << 21, 1 << 30):
        monkeypatch.setattr(chunks, "BYTES", budget)
        found.append(learner.curve(tasks, Budget(), 0).values.tolist())
    assert found[0] == found[1] == found[2]


def test_a_classifier_takes_queries_in_parts_alike(monkeypatch):
    rng = np.random.default_rng(0)
    x, q = rng.random((6, 28, 28)), rng.random((40, 28, 28))
    encoder = make_backbone("conv4", (1, 28, 28), Key(1).torch(), 4, "running")
    found = []
    for budget in (1, 1 << 20, 1 << 30):
        monkeypatch.setattr(chunks, "BYTES", budget)
        model = FewShotClassifier(encoder).fit(x, [0, 1] * 3)
        found.append(model.predict_proba(q))
        assert model._together == {1: 1, 1 << 20: (1 << 20) // (4 * 784 * 4), 1 << 30: 1000}[budget]
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    np.testing.assert_allclose(found[1], found[2], atol=1e-6)


def test_maml_gathers_so_many_tasks_as_fit(monkeypatch):
    source = Glyphs(ways=2, queries=2)
    network = make_network(maml.DEFAULTS["glyphs"], source, Key(0))
    learner = TrainedInitialisation(network, network.init(Key(0).torch()), maml.inner.Rule(0.1, 1, "*", 1), source)
    sizes, batch = [], Glyphs.batch

    def counted(self, tasks, *device):
        sizes.append(len(tasks))
        return batch(self, tasks, *device)

    monkeypatch.setattr(Glyphs, "batch", counted)
    monkeypatch.setattr(chunks, "BYTES", chunks.COPIES * 3 * 6 * 784 * 4)
    few = learner.curve(source.fixed("test", 8), Budget(1), 0).values
    assert sizes == [3, 3, 2]
    monkeypatch.setattr(chunks, "BYTES", 1 << 30)
    assert (learner.curve(source.fixed("test", 8), Budget(1), 0).values == few).all()


def test_large_features_are_compared_a_task_at_a_time():
    """Doubles of all tasks' raw pixels would be larger than the pixels."""
    support, query = (torch.rand(16, n, 5000, generator=Key(n).torch()) for n in (4, 10))
    with torch.no_grad(), chunks._Largest() as largest:
        ProtoNet(nn.Flatten(), "running").compare(support, torch.tensor([[0, 0, 1, 1]]).expand(16, -1), query, 2)
    assert largest.bytes <= 3 * 10 * 5000 * 8  # of one task; all of them would take 16 times as much
