"""The same meta-gradients as learn2learn's, on the same tasks and the same network.

Runs where learn2learn is installed: scripts/setup_peers.sh, then
.venv-peers/bin/python -m pytest tests/metarl/fewshot/test_parity.py
"""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.learners import maml
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.networks.backbones import make_backbone
from metarl.fewshot.networks.classifier import Classifier, EncoderAndHead
from metarl.meta import inner, outer
from metarl.parallel import intra_op_threads
from metarl.seeding import Key

SOURCE = Glyphs(ways=5, shots=1, queries=2, rotations=True)
PLANS = [outer.Plan("loop"), outer.Plan("threads", threads=2), outer.Plan("vmap")]
TOLERANCE = 1e-5  # of the largest number of each parameter's gradient


@pytest.fixture(scope="module")
def l2l():
    where = Path(__file__).resolve().parents[3] / "scripts" / "peers.py"
    spec = importlib.util.spec_from_file_location("peers", where)
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    try:
        return peers.learn2learn()
    except ImportError:
        pytest.skip("learn2learn is not installed here: scripts/setup_peers.sh, then .venv-peers/bin/python -m pytest")


def problem(backbone, width, dtype):
    """Our classifier, its parameters, and a module for learn2learn that holds the same."""
    key = Key(0)("parity")
    encoder = make_backbone(backbone, SOURCE.image_shape, key("encoder").torch(), width).to(dtype)
    network = Classifier(encoder, SOURCE.image_shape, SOURCE.ways)
    params = {name: value.to(dtype) for name, value in network.init(key("init").torch()).items()}
    module = EncoderAndHead(copy.deepcopy(encoder), SOURCE.image_shape, SOURCE.ways).to(dtype)
    module.load_state_dict(params)
    batch = SOURCE.batch(SOURCE.sample(4, key("tasks").numpy()))
    return network, params, module, batch, batch.support_x.to(dtype), batch.query_x.to(dtype)


def theirs(learner, batch, support_x, query_x, steps):
    """The gradient that their loop leaves in the parameters: clone, adapt, query loss, backward, mean over tasks."""
    for t in range(len(batch)):
        clone = learner.clone()
        for _ in range(steps):
            clone.adapt(F.cross_entropy(clone(support_x[t]), batch.support_y[t]))
        (F.cross_entropy(clone(query_x[t]), batch.query_y[t]) / len(batch)).backward()


def assert_close(found, expected):
    for name, value in expected.items():
        error = (found[name] - value).abs().max() / value.abs().max().clamp(min=1e-3)
        assert error < TOLERANCE, (name, float(error))


def ours(network, meta, rule, batch, support_x, query_x, plan):
    data = type(batch)(support_x, batch.support_y, query_x, batch.query_y)
    return outer.meta_gradient(maml.objective(network, rule), meta, maml.pairs(data), plan).gradient


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.strategy)
@pytest.mark.parametrize(("steps", "order"), [(1, 2), (3, 2), (3, 1)])
def test_the_meta_gradient_of_maml(l2l, plan, steps, order):
    """Conv4 with 8 filters, float64; order 1 is FOMAML."""
    network, params, module, batch, support_x, query_x = problem("conv4-strided", 8, torch.float64)
    theirs(l2l.algorithms.MAML(module, lr=0.4, first_order=order == 1), batch, support_x, query_x, steps)
    found = ours(network, {"model": params}, inner.Rule(0.4, steps, order=order), batch, support_x, query_x, plan)
    assert_close(found["model"], {name: value.grad for name, value in module.named_parameters()})


def test_the_meta_gradient_of_conv4_as_trained(l2l):
    """Conv4 with 64 filters in float32, pooled."""
    network, params, module, batch, support_x, query_x = problem("conv4", 64, torch.float32)
    # On as many threads as ours: before batch normalisation a convolution's bias has gradient zero, of which float32
    # leaves the rounding, and that depends on the number of threads.
    with intra_op_threads(PLANS[0].threads):
        theirs(l2l.algorithms.MAML(module, lr=0.4), batch, support_x, query_x, 1)
    found = ours(network, {"model": params}, inner.Rule(0.4), batch, support_x, query_x, PLANS[0])
    assert_close(found["model"], {name: value.grad for name, value in module.named_parameters()})


def test_the_meta_gradient_of_meta_sgd(l2l):
    """With a step size for every number, which receives its gradient too."""
    network, params, module, batch, support_x, query_x = problem("conv4-strided", 8, torch.float64)
    learner = l2l.algorithms.MetaSGD(module, lr=0.4)
    learner.double()
    theirs(learner, batch, support_x, query_x, 1)
    sizes = {name: torch.full_like(value, 0.4) for name, value in params.items()}
    found = ours(network, {"model": params, "rule": sizes}, inner.Rule(0.0), batch, support_x, query_x, PLANS[0])
    assert_close(found["model"], {name: value.grad for name, value in module.named_parameters()})
    assert_close(found["rule"], {name: lr.grad for name, lr in zip(params, learner.lrs, strict=True)})


def test_prototypical_probabilities(l2l):
    _, _, module, batch, support_x, query_x = problem("conv4", 8, torch.float64)
    with torch.no_grad():
        found = ProtoNet(module.encoder, "transductive").compare(
            torch.stack([module.encoder(x) for x in support_x]),
            batch.support_y,
            torch.stack([module.encoder(x) for x in query_x]),
            SOURCE.ways,
        )
        for t in range(len(batch)):
            classifier = l2l.nn.PrototypicalClassifier(module.encoder(support_x[t]), batch.support_y[t])
            expected = classifier(module.encoder(query_x[t])).log_softmax(-1)
            torch.testing.assert_close(found[t], expected, rtol=1e-5, atol=1e-8)
