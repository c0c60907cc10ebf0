"""Encoders: shapes, explicit batch-norm modes, vmap, and that any module will do."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from metarl.errors import UserError
from metarl.fewshot.networks import chunks, pooled_blocks
from metarl.fewshot.networks.backbones import Conv4, initialise, make_backbone
from metarl.fewshot.networks.batch_norm import BatchNorm
from metarl.fewshot.networks.encoders import feature_size
from metarl.seeding import Key

FORMS = [
    ("conv4", (1, 28, 28), 64, 64),
    ("conv4", (3, 84, 84), 32, 800),
    ("conv4-strided", (1, 28, 28), 64, 64),
    ("resnet12", (3, 32, 32), 8, 64),
    ("mlp", (1, 28, 28), 64, 64),
]


def images(*shape, stream="x"):
    return torch.rand(shape, generator=Key(0)("images", stream).torch())


def made(name, shape=(1, 28, 28), **options):
    return make_backbone(name, shape, Key(1)("weights").torch(), **options)


@pytest.mark.parametrize(("name", "shape", "width", "features"), FORMS)
def test_features(name, shape, width, features):
    encoder = made(name, shape, width=width)
    assert encoder(images(3, *shape)).shape == (3, features)
    assert encoder.features == feature_size(encoder, shape) == features


def test_the_published_networks_have_their_parameter_counts():
    def count(encoder):
        return sum(p.numel() for p in encoder.parameters())

    # 3x3 convolutions with biases, and a scale and a shift a channel
    assert count(made("conv4", width=64)) == (9 + 1) * 64 + 3 * (64 * 9 + 1) * 64 + 4 * 2 * 64 == 111_936
    assert count(made("conv4-strided", scale=False)) == 111_936 - 4 * 64
    widths = [3, 64, 128, 256, 512]  # a block: 3x3 from a to b, twice b to b, 1x1 from a to b, four norms
    blocks = pairwise(widths)
    assert count(made("resnet12", (3, 84, 84))) == sum(9 * a * b + 18 * b * b + a * b + 8 * b for a, b in blocks)
    assert count(made("mlp")) == 784 * 256 + 256 * 128 + 128 * 64 + 64 * 64 + 3 * (256 + 128 + 64 + 64)


@pytest.mark.parametrize("name", ["conv4", "conv4-strided", "resnet12", "mlp"])
def test_weights_come_from_the_generator(name):
    first, again = made(name, (3, 32, 32), width=8), made(name, (3, 32, 32), width=8)
    other = make_backbone(name, (3, 32, 32), Key(2).torch(), width=8)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", ["conv4", "conv4-strided", "resnet12", "mlp"])
def test_transductive_features_depend_on_the_other_images_and_support_features_do_not(name):
    support, query, others = (images(4, 3, 32, 32, stream=s) for s in "abc")
    for mode, independent in (("transductive", False), ("support", True)):
        encoder = made(name, (3, 32, 32), width=8, batch_norm=mode)
        once = encoder(torch.cat([support, query]), 4)
        again = encoder(torch.cat([support, query[:1], others]), 4)
        assert torch.allclose(once[4], again[4], atol=1e-5) == independent
        assert torch.allclose(once[:4], again[:4], atol=1e-5) == independent
        assert torch.allclose(once[:4], encoder(support), atol=1e-5) == independent


def test_batch_norm_literals():
    x = torch.tensor([[1.0], [3.0], [11.0]])
    support = BatchNorm(1, "support")
    torch.testing.assert_close(support(x, 2), torch.tensor([[-1.0], [1.0], [9.0]]), atol=1e-4, rtol=0)
    transductive = BatchNorm(1, "transductive")
    torch.testing.assert_close(transductive(x, 2), transductive(x))
    torch.testing.assert_close(transductive(x), (x - 5) / (56 / 3) ** 0.5)
    assert support.eval()(x, 2)[2] > 8  # evaluation mode changes nothing: the mode is explicit


def test_running_mode_is_torchs_batch_norm():
    ours, theirs = BatchNorm(3, "running"), nn.BatchNorm2d(3)
    for i in range(3):
        x = images(5, 3, 4, 4, stream=str(i)) * (i + 1)
        torch.testing.assert_close(ours(x), theirs(x))
    x = images(2, 3, 4, 4, stream="last")
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert set(dict(ours.named_buffers())) == {"running_mean", "running_var"}
    assert not dict(BatchNorm(3, "support").named_buffers())


@pytest.mark.parametrize("mode", ["transductive", "support"])
@pytest.mark.parametrize("name", ["conv4", "conv4-strided", "resnet12", "mlp"])
def test_vmap_over_tasks_equals_the_loop(name, mode):
    encoder = made(name, (1, 16, 16), width=4, batch_norm=mode).double()
    tasks = images(3, 6, 1, 16, 16).double()
    params = {k: torch.stack([v.detach() * (1 + 0.1 * t) for t in range(3)]) for k, v in encoder.named_parameters()}

    def loss(p, x):
        return (functional_call(encoder, p, (x, 4)) ** 2).mean()

    together = vmap(grad(loss))(params, tasks)
    for t in range(3):
        alone = grad(loss)({k: v[t] for k, v in params.items()}, tasks[t])
        for key in alone:
            torch.testing.assert_close(together[key][t], alone[key], atol=1e-9, rtol=1e-6)


def test_statistics_of_the_support_receive_gradients():
    encoder = made("conv4", (1, 16, 16), width=4, batch_norm="support")
    support = images(4, 1, 16, 16).requires_grad_()
    encoder(torch.cat([support, images(2, 1, 16, 16, stream="q")]), 4)[4:].sum().backward()
    assert support.grad is not None
    assert support.grad.abs().sum() > 0


def test_any_module_is_an_encoder():
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5))
    before = module[2].running_mean.clone()
    assert feature_size(module, (3, 4, 4)) == 5
    assert torch.equal(module[2].running_mean, before)
    assert module.training
    initialise(module, Key(3).torch())
    assert module[1].bias.abs().sum() == 0
    with pytest.raises(UserError, match="does not take images of shape"):
        feature_size(module, (3, 5, 5))
    with pytest.raises(UserError, match=r"\(B, C, H, W\) into \(B, F\)"):
        feature_size(nn.Identity(), (3, 5, 5))


def test_choices_are_told():
    with pytest.raises(UserError, match="choose from conv4, conv4-strided, resnet12, mlp"):
        made("vgg")
    with pytest.raises(UserError, match="choose from transductive, support, running"):
        made("conv4", batch_norm="batch")
    with pytest.raises(UserError, match="too small"):
        Conv4(1, (8, 8))
    with pytest.raises(UserError, match="too small"):
        made("resnet12", (1, 8, 8))


def test_a_large_batch_in_parts_learns_what_it_learns_at_once(monkeypatch):
    """Loss, gradients and running averages, in float64: of negative scales too, and windows with a row to spare."""
    whole = made("conv4", (3, 21, 18), width=4, batch_norm="running").double()
    for i, norm in enumerate(whole.norms):
        nn.init.normal_(norm.weight, generator=Key(i)("scale").torch())
        nn.init.normal_(norm.bias, generator=Key(i)("shift").torch())
    assert any((norm.weight < 0).any() for norm in whole.norms)
    x = images(7, 3, 21, 18).double()
    outcomes = []
    for limit, first_order in ((1 << 40, True), (1, True), (8000 * 7, True), (1, False)):
        monkeypatch.setattr(chunks, "BYTES", limit)
        monkeypatch.setattr(pooled_blocks, "PART", 2 * 4 * 21 * 18 * 8)  # two images in the first layer
        encoder, own = copy.deepcopy(whole), x.clone().requires_grad_()
        encoder.first_order = first_order
        features = encoder(own)
        assert ("_Block" in str(graph(features.grad_fn))) == (limit < 1 << 40 and first_order)
        (features * torch.linspace(-1, 2, features.numel()).double().view_as(features)).sum().backward()
        outcomes.append([features, own.grad, *(p.grad for p in encoder.parameters()), *encoder.buffers()])
    for others in outcomes[1:]:
        for one, other in zip(outcomes[0], others, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11)


def graph(node):
    """The names of all nodes behind one."""
    return [node.name(), *(graph(each) for each, _ in node.next_functions if each is not None)]
