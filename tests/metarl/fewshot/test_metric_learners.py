"""Learners that compare embeddings: their rules by hand, identities, batch-norm modes, any way and support."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from metarl.errors import UserError
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.learners import matchingnet, metric, protonet
from metarl.fewshot.learners.embedding import TrainedEmbedding
from metarl.fewshot.learners.matchingnet import FullContext, MatchingNet
from metarl.fewshot.learners.meta_baseline import MetaBaseline
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.learners.r2d2 import R2D2
from metarl.fewshot.learners.training import halving
from metarl.fewshot.networks import chunks
from metarl.fewshot.networks.backbones import make_backbone
from metarl.fewshot.networks.distances import class_means, squared_distances
from metarl.fewshot.networks.scores import loss_and_accuracy
from metarl.learning.contract import Budget
from metarl.runs.run import Run
from metarl.seeding import Key

SHAPE = (1, 16, 16)


def plain(*shape, stream="x"):
    return torch.rand(*shape, generator=Key(0)("metric", stream).torch())


def encoder(batch_norm="running", width=4):
    return make_backbone("conv4", SHAPE, Key(1)("encoder").torch(), width, batch_norm)


def networks(batch_norm="running"):
    """One of each, in evaluation mode."""
    made = [
        ProtoNet(encoder(batch_norm), batch_norm),
        MatchingNet(encoder(batch_norm), batch_norm, 10.0),
        MatchingNet(encoder(batch_norm), batch_norm, 10.0, FullContext(4, 3, Key(2).torch())),
        R2D2(encoder(batch_norm), batch_norm, 0.1, 10.0),
        MetaBaseline(encoder(batch_norm), batch_norm, 10.0),
    ]
    return [network.eval() for network in made]


def batch(tasks=3, ways=3, shots=2, queries=4):
    labels = torch.arange(ways).repeat_interleave(shots).expand(tasks, -1)
    return Batch(
        plain(tasks, ways * shots, *SHAPE, stream="support"),
        labels,
        plain(tasks, ways * queries, *SHAPE, stream="query"),
        torch.arange(ways).repeat_interleave(queries).expand(tasks, -1),
    )


# ---- by hand


def test_prototypes_and_log_probabilities_by_hand():
    """Class 0 at (0, 0) and (2, 0), so its mean is (1, 0); class 1 at (1, 3). The query (1, 1) is at 1 and 4."""
    support = torch.tensor([[[0.0, 0.0], [1.0, 3.0], [2.0, 0.0]]])
    labels = torch.tensor([[0, 1, 0]])
    query = torch.tensor([[[1.0, 1.0]]])
    assert class_means(support, labels, 2).tolist() == [[[1.0, 0.0], [1.0, 3.0]]]
    assert squared_distances(query, torch.tensor([[[1.0, 0.0], [1.0, 3.0]]])).tolist() == [[[1.0, 4.0]]]
    found = ProtoNet(nn.Identity(), "running").compare(support, labels, query, 2)
    z = math.log(math.exp(-1) + math.exp(-4))
    torch.testing.assert_close(found, torch.tensor([[[-1 - z, -4 - z]]]))


def test_squared_distances_equal_their_definition():
    a, b = plain(2, 5, 7, stream="a"), plain(2, 3, 7, stream="b")
    torch.testing.assert_close(squared_distances(a, b), torch.cdist(a, b) ** 2, rtol=1e-4, atol=1e-5)


def test_the_attention_vote_by_hand():
    """A query along the first axis: cosines 1, 0 and 0, and the second and third images are of one class."""
    support = torch.tensor([[[2.0, 0.0], [0.0, 5.0], [0.0, 0.1]]])
    labels = torch.tensor([[1, 0, 0]])
    query = torch.tensor([[[3.0, 0.0]]])
    found = MatchingNet(nn.Identity(), "running", scale=2.0).compare(support, labels, query, 2).exp()
    e = math.exp(2.0)
    torch.testing.assert_close(found, torch.tensor([[[2 / (e + 2), e / (e + 2)]]]))


def test_the_scale_of_the_cosine_is_learned():
    network = MatchingNet(nn.Identity(), "running", scale=10.0)
    assert network.log_scale.exp().item() == pytest.approx(10)
    support, labels = plain(1, 4, 6), torch.tensor([[0, 1, 0, 1]])
    network.compare(support, labels, plain(1, 3, 6, stream="q"), 2)[..., 0].sum().backward()
    assert network.log_scale.grad.abs() > 0


def test_full_context_without_weights_is_no_context():
    context = FullContext(6, 3, Key(0).torch())
    support, query = plain(2, 5, 6), plain(2, 4, 6, stream="q")
    read = context(support, query)
    assert all(not torch.allclose(a, b) for a, b in zip(read, (support, query), strict=True))
    for weight in context.parameters():
        nn.init.zeros_(weight)  # the cells stay at 0, so nothing is added
    for found, given in zip(context(support, query), (support, query), strict=True):
        torch.testing.assert_close(found, given)


def test_full_context_reads_the_whole_support_set():
    context = FullContext(6, 3, Key(0).torch())
    support, query = plain(1, 5, 6), plain(1, 4, 6, stream="q")
    before = context(support, query)
    changed = support.clone()
    changed[0, 4] += 1
    after = context(changed, query)
    assert all(not torch.allclose(before[0][0, i], after[0][0, i]) for i in range(5))
    assert all(not torch.allclose(before[1][0, i], after[1][0, i]) for i in range(4))
    # and a query does not read the others
    others = query.clone()
    others[0, 1:] += 1
    torch.testing.assert_close(context(support, others)[1][0, 0], before[1][0, 0])


def test_loss_and_accuracy_by_hand():
    logs = torch.tensor([[[0.5, 0.5], [0.9, 0.1]], [[0.2, 0.8], [0.6, 0.4]]]).log()
    loss, accuracy = loss_and_accuracy(logs, torch.tensor([[0, 1], [1, 1]]))
    assert loss.item() == pytest.approx(-(math.log(0.5) + math.log(0.1) + math.log(0.8) + math.log(0.4)) / 4)
    assert accuracy.item() == pytest.approx(0.5)


def test_the_learning_rate_halves():
    rate = halving(0.8, 100)
    assert [rate(i) for i in (0, 99, 100, 199, 200, 350)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.1]
    assert halving(0.8, None)(10**6) == 0.8


# ---- identities


@pytest.mark.parametrize("network", [networks()[i] for i in (0, 1, 3, 4)], ids=["proto", "matching", "r2d2", "cosine"])
def test_permuting_the_classes_permutes_the_probabilities(network):
    data, order = batch(), torch.tensor([2, 0, 1])
    found = network(replace(data, support_y=order[data.support_y]), 3)
    torch.testing.assert_close(found, network(data, 3)[..., order.argsort()])


@pytest.mark.parametrize("network", [networks()[i] for i in (0, 1, 3, 4)], ids=["proto", "matching", "r2d2", "cosine"])
def test_the_order_of_the_support_images_does_not_matter(network):
    data, order = batch(), torch.tensor([4, 0, 5, 2, 1, 3])
    shuffled = replace(data, support_x=data.support_x[:, order], support_y=data.support_y[:, order])
    torch.testing.assert_close(network(shuffled, 3), network(data, 3))


@pytest.mark.parametrize("network", [networks()[i] for i in (0, 1, 3, 4)], ids=["proto", "matching", "r2d2", "cosine"])
def test_support_images_given_twice_change_nothing(network):
    data = batch()
    twice = replace(data, support_x=data.support_x.repeat(1, 2, 1, 1, 1), support_y=data.support_y.repeat(1, 2))
    torch.testing.assert_close(network(twice, 3), network(data, 3))


def test_an_image_given_twice_has_two_votes_but_does_not_move_its_own_mean():
    proto, matching, *_ = networks()
    data = batch(shots=1)
    more = replace(
        data,
        support_x=torch.cat([data.support_x, data.support_x[:, :1]], 1),
        support_y=torch.cat([data.support_y, data.support_y[:, :1]], 1),
    )
    torch.testing.assert_close(proto(more, 3), proto(data, 3))
    p, q = matching(data, 3).exp(), matching(more, 3).exp()
    torch.testing.assert_close(q[..., 0], 2 * p[..., 0] / (1 + p[..., 0]))


@pytest.mark.parametrize("network", networks(), ids=["protonet", "matchingnet", "full context", "r2d2", "cosine"])
def test_probabilities_sum_to_one_for_any_way_and_unbalanced_support(network):
    for labels, ways in (([0, 1], 2), ([0, 0, 0, 1, 2, 2, 3], 4), ([5, 4, 3, 2, 1, 0, 0], 6)):
        y = torch.tensor(labels).expand(2, -1)
        data = Batch(plain(2, len(labels), *SHAPE), y, plain(2, 5, *SHAPE, stream="q"), torch.zeros(2, 5).long())
        found = network(data, ways)
        assert found.shape == (2, 5, ways)
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 5))
        assert torch.isfinite(found).all()


# ---- batch norm: proven by intervention


@pytest.mark.parametrize(("mode", "independent"), [("transductive", False), ("support", True), ("running", True)])
@pytest.mark.parametrize("which", range(5), ids=["protonet", "matchingnet", "full context", "r2d2", "cosine"])
def test_other_queries_matter_in_transductive_mode_alone(mode, independent, which):
    network, data = networks(mode)[which], batch()
    changed = data.query_x.clone()
    changed[:, 1:] = 1 - changed[:, 1:] ** 2
    before, after = (network(part, 3)[:, 0] for part in (data, replace(data, query_x=changed)))
    assert torch.allclose(before, after, atol=1e-5) == independent


@pytest.mark.parametrize("mode", ["transductive", "support", "running"])
def test_tasks_do_not_see_one_another(mode):
    for network in networks(mode):
        data = batch()
        torch.testing.assert_close(network(data, 3)[1:2], network(data[1:2], 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "changes"), [("transductive", True), ("support", True), ("running", False)])
def test_what_a_support_image_does_to_the_features_of_a_query(mode, changes):
    network, data = networks(mode)[0], batch()
    other = data.support_x.clone()
    other[:, 0] = 1 - other[:, 0]
    before, after = (network.embed(part)[1] for part in (data, replace(data, support_x=other)))
    assert torch.allclose(before, after, atol=1e-5) != changes


def test_evaluation_does_not_change_the_running_averages():
    network, data = networks()[0], batch()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learner = TrainedEmbedding(network, Glyphs(), "rule")
    learner.log_probabilities(data, 3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# ---- curves


def trained(**options):
    source = Glyphs(**options)
    made = make_backbone("conv4", source.image_shape, Key(1).torch(), 4, "running")
    return TrainedEmbedding(ProtoNet(made, "running").eval(), source, "nearest class mean"), source


def test_a_curve_shows_the_first_images_of_each_class():
    learner, source = trained(ways=3, shots=3, queries=4)
    tasks = source.fixed("test", 5)
    scores = learner.curve(tasks, Budget(), 0)
    assert scores.shots == (0, 1, 2, 3)
    assert scores.gradient_steps is None
    assert scores.values[:, 0].tolist() == pytest.approx([1 / 3] * 5)
    assert scores.protocol.endswith("batch norm: running")
    data = source.batch(tasks)
    for k in (1, 2, 3):
        rows = [3 * c + i for c in range(3) for i in range(k)]
        fewer = replace(data, support_x=data.support_x[:, rows], support_y=data.support_y[:, rows])
        accuracy = (learner.log_probabilities(fewer, 3).argmax(-1) == data.query_y).double().mean(1)
        torch.testing.assert_close(torch.from_numpy(scores.values[:, k]), accuracy)


def test_a_curve_does_not_depend_on_how_tasks_are_chunked(monkeypatch):
    learner, source = trained(ways=3, shots=2, queries=3)
    tasks = source.fixed("test", 7)
    whole = learner.curve(tasks, Budget(), 0).values
    monkeypatch.setattr(chunks, "BYTES", 1)
    assert (learner.curve(tasks, Budget(), 0).values == whole).all()


def test_an_unbalanced_set_is_shown_whole():
    learner, source = trained(ways=3, shots=3, queries=2, unbalanced=True)
    scores = learner.curve(source.fixed("test", 4), Budget(), 0)
    assert scores.shots == (0, 3)
    assert scores.values.shape == (4, 2)


# ---- training


def test_training_tasks_have_their_own_ways_and_queries():
    source = Glyphs(ways=5, min_ways=3, shots=2, queries=4)
    own = metric.training_source(metric.Config(train_ways=20, train_queries=6), source)
    assert (own.ways, own.min_ways, own.queries, own.shots) == (20, None, 6, 2)
    same = metric.training_source(matchingnet.Config(), source)
    assert (same.ways, same.min_ways, same.queries) == (5, 3, 4)


def test_training_has_its_own_ways_and_its_learning_rate_halves(tmp_path, monkeypatch):
    seen, honest = [], metric.loss_and_accuracy

    def spy(logs, labels):
        seen.append(tuple(logs.shape))
        return honest(logs, labels)

    monkeypatch.setattr(metric, "loss_and_accuracy", spy)
    source = Glyphs(ways=3, queries=2)
    config = protonet.Config(iterations=3, width=2, train_ways=4, train_queries=1, step_size=0.4, halve_every=1)
    run = Run.create(tmp_path / "run", learner="protonet", config=config, source=source, seed=0)
    protonet.train(config, source, run)
    assert set(seen) == {(1, 4 * 1, 4)}
    assert run.restore()[1]["optimiser"]["param_groups"][0]["lr"] == pytest.approx(0.1)


def test_a_pretrained_encoder_is_where_training_starts():
    given = encoder()
    source = Glyphs()
    assert protonet.make(protonet.Config(), source, 0, given).encoder is given
    assert matchingnet.make(matchingnet.Config(), source, 0, given).encoder is given
    assert matchingnet.make(matchingnet.Config(full_context=True), source, 0, given).context.reads.input_size == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: protonet.Config(train_ways=1), "--train-ways is 1; it must be at least 2"),
        (lambda: protonet.Config(train_queries=0), "--train-queries is 0; it must be at least 1"),
        (lambda: protonet.Config(step_size=0.0), "--step-size is 0.0; it must be above 0"),
        (lambda: protonet.Config(halve_every=0), "--halve-every is 0; it must be at least 1"),
        (lambda: matchingnet.Config(scale=0.0), "--scale is 0.0; it must be above 0"),
        (lambda: matchingnet.Config(context_steps=0), "--context-steps is 0; it must be at least 1"),
        (lambda: matchingnet.Config(iterations=0), "--iterations is 0; it must be at least 1"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(UserError, match=message):
        make()
