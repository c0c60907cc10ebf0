"""MAML and its kin on images: step sizes of mean losses, what moves, what is differentiated, what queries reveal."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import grad

from metarl.errors import UserError
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.learners import anil, fomaml, maml, meta_sgd
from metarl.fewshot.learners.adaptation import make_network
from metarl.fewshot.learners.initialisation import TrainedInitialisation
from metarl.fewshot.networks.backbones import make_backbone
from metarl.fewshot.networks.classifier import Classifier
from metarl.fewshot.networks.regressor import Regressor
from metarl.learning.contract import Budget
from metarl.meta import inner, outer
from metarl.seeding import Key

SHAPE = (1, 8, 8)
WAYS = 3


def classifier(batch_norm="transductive", ways=WAYS, backbone="conv4-strided", scale=False):
    key = Key(0)("classifier")
    encoder = make_backbone(backbone, SHAPE, key("encoder").torch(), width=4, batch_norm=batch_norm, scale=scale)
    network = Classifier(encoder.double(), SHAPE, ways, batch_norm)
    network._head.double()
    return network, network.init(key("init").torch())


def tasks(n=4, ways=WAYS, shots=2, queries=3):
    g = Key(1)("tasks").torch()
    images = torch.rand(n, ways, shots + queries, *SHAPE, generator=g, dtype=torch.float64)
    labels = torch.arange(ways)[None, :, None].expand(n, ways, shots + queries)

    def part(a, b):
        return images[:, :, a:b].flatten(1, 2), labels[:, :, a:b].flatten(1, 2)

    return Batch(*part(0, shots), *part(shots, shots + queries))


def meta_gradient(network, meta, rule, batch):
    return outer.meta_gradient(maml.objective(network, rule), meta, maml.pairs(batch)).gradient


# ---- step sizes


def test_a_step_of_the_mean_loss_is_a_step_of_the_summed_loss_divided_by_the_ways():
    """Finn et al.'s image code descends the sum of losses over K; by hand for 2 ways, 1 shot, pictures 1 and 3.

    At zero weights every probability is 1/2, so with their step size 0.4
    W_0 = -0.4 ((1/2 - 1) 1 + (1/2 - 0) 3) = -0.4 and b_0 = -0.4 (-1/2 + 1/2) = 0.
    """
    network = Classifier(nn.Flatten(), (1, 1, 1), 2)
    zeros = {name: torch.zeros_like(value) for name, value in network.init(Key(0).torch()).items()}
    data = (torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), torch.tensor([0, 1]))
    moved = inner.step(zeros, network.support_loss, data, inner.Rule(0.4 * 2))
    torch.testing.assert_close(moved["head.weight"], torch.tensor([[-0.4], [0.4]]))
    torch.testing.assert_close(moved["head.bias"], torch.zeros(2))


def test_published_step_sizes_in_mean_loss_terms():
    sizes = {name: config.inner_step_size for name, config in maml.DEFAULTS.items()}
    assert sizes["omniglot"] == pytest.approx(0.4 * 5)
    assert sizes["omniglot-20way"] == pytest.approx(0.1 * 20)
    assert sizes["mini-imagenet"] == sizes["mini-imagenet-5shot"] == pytest.approx(0.01 * 5)
    assert maml.DEFAULTS["mini-imagenet"].clip == pytest.approx(10 / 75)  # their loss sums over 5 x 15 queries


def test_clipping_cuts_every_number(tmp_path):
    from metarl.runs.run import Run

    source = Glyphs(ways=3, queries=2)
    moved = {}
    for clip in (None, 1e-9):
        config = maml.Config(
            iterations=1, tasks=2, width=4, inner_step_size=1.0, strategy="loop", clip=clip, outer_step_size=1.0
        )
        run = Run.create(tmp_path / str(clip), learner="maml", config=config, source=source, seed=0)
        maml.train(config, source, run)
        adam = run.restore()[1]["optimiser"]["state"]
        moved[clip] = max(float(entry["exp_avg"].abs().max()) for entry in adam.values())
    assert moved[None] > 1e-3
    assert moved[1e-9] == pytest.approx(1e-10, rel=1e-3)  # Adam's first moment is a tenth of the gradient


def test_training_has_its_own_queries_and_its_learning_rate_halves(tmp_path, monkeypatch):
    from metarl.runs.run import Run

    seen, pairs = [], maml.pairs

    def spy(batch, *rest):
        seen.append(batch.query_x.shape[1])
        return pairs(batch, *rest)

    monkeypatch.setattr(maml, "pairs", spy)
    source = Glyphs(ways=3, queries=2)
    config = maml.Config(
        iterations=3, tasks=2, width=2, strategy="loop", train_queries=1, outer_step_size=0.4, halve_every=1
    )
    run = Run.create(tmp_path / "run", learner="maml", config=config, source=source, seed=0)
    maml.train(config, source, run)
    assert set(seen) == {3 * 1}
    assert run.restore()[1]["optimiser"]["param_groups"][0]["lr"] == pytest.approx(0.1)


# ---- what moves, what is differentiated


def test_no_steps_is_no_adaptation():
    network, params = classifier()
    learner = TrainedInitialisation(network, params, inner.Rule(0.5, 0), Glyphs(ways=WAYS))
    batch = tasks()
    expected = torch.stack([network.query_logits(params, batch[t]) for t in range(4)]).log_softmax(-1)
    torch.testing.assert_close(learner.log_probabilities(batch, WAYS), expected)
    assert learner.adapt(batch[0], 0) == [params]


def test_maml_moves_all_but_the_shifts_of_batch_norm():
    network, params = classifier()
    rule = inner.Rule(0.5, moves=maml.DEFAULTS["omniglot"].moves)
    batch = tasks()[0]
    moved = inner.step(params, network.support_loss, (batch.support_x, batch.support_y), rule)
    still = {name for name in params if moved[name] is params[name]}
    assert still == {f"encoder.norms.{i}.bias" for i in range(4)}


@pytest.mark.parametrize("backbone", ["conv4-strided", "mlp", "resnet12"])
def test_anil_moves_the_head_alone_and_trains_the_encoder(backbone):
    assert all(config.moves in ("head.*", "2.*") for config in anil.DEFAULTS.values())
    shape = (1, 16, 16)
    encoder = make_backbone(backbone, shape, Key(0).torch(), width=2)
    network = Classifier(encoder, shape, WAYS)
    params = network.init(Key(1).torch())
    images = torch.rand(1, 2 * WAYS, *shape, generator=Key(2).torch())
    labels = torch.arange(WAYS).repeat(2)[None]
    batch = Batch(images, labels, images.flip(-1), labels)
    rule = inner.Rule(0.5, 2, anil.Config().moves)
    last = inner.adapt(params, network.support_loss, (images[0], labels[0]), rule)[-1]
    assert {name for name in params if last[name] is not params[name]} == {"head.weight", "head.bias"}
    gradient = meta_gradient(network, {"model": params}, rule, batch)["model"]
    assert all(gradient[name].abs().max() > 0 for name in params if name.startswith("encoder.norms"))


def test_fomaml_s_gradient_is_the_query_gradient_at_the_adapted_parameters():
    network, params = classifier()
    batch = tasks()
    rule = inner.Rule(0.5, 3, order=fomaml.Config().order)
    gradient = meta_gradient(network, {"model": params}, rule, batch)["model"]
    expected = {name: torch.zeros_like(value) for name, value in params.items()}
    for t in range(4):
        adapted = {name: value.clone() for name, value in params.items()}
        for _ in range(3):  # plain gradient descent, no code shared with `inner`
            leaves = {name: value.detach().requires_grad_() for name, value in adapted.items()}
            loss = network.support_loss(leaves, (batch[t].support_x, batch[t].support_y))
            slopes = torch.autograd.grad(loss, list(leaves.values()))
            adapted = {name: leaves[name].detach() - 0.5 * s for name, s in zip(leaves, slopes, strict=True)}
        plain = grad(lambda p, task=batch[t]: network.query_loss(p, task)[0])(adapted)
        expected = {name: expected[name] + plain[name] / 4 for name in params}
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    second = meta_gradient(network, {"model": params}, inner.Rule(0.5, 3), batch)["model"]
    assert (second["encoder.convolutions.0.weight"] - gradient["encoder.convolutions.0.weight"]).norm() > 1e-3


def test_meta_sgd_s_step_sizes_receive_their_gradient():
    """Central differences in float64, for a number of every parameter."""
    network, params = classifier(backbone="mlp")
    config = meta_sgd.Config()
    batch = tasks(2)
    rule = inner.Rule(0.0, config.inner_steps)
    sizes = {name: 0.1 + torch.rand(value.shape, generator=Key(3).torch()).double() for name, value in params.items()}
    gradient = meta_gradient(network, {"model": params, "rule": sizes}, rule, batch)["rule"]
    goal, h = maml.objective(network, rule), 1e-6
    for name, value in sizes.items():
        at = int(gradient[name].abs().argmax())
        ends = []
        for sign in (1, -1):
            shifted = value.flatten().clone()
            shifted[at] += sign * h
            meta = {"model": params, "rule": {**sizes, name: shifted.view_as(value)}}
            ends.append(outer.meta_gradient(goal, meta, maml.pairs(batch)).loss)
        numeric = (ends[0] - ends[1]) / (2 * h)
        torch.testing.assert_close(gradient[name].flatten()[at], numeric, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("lean", [False, True])
def test_a_step_size_for_every_layer_and_step_receives_its_gradient(lean):
    """Central differences in float64; and adaptation by hand, each step with its own sizes."""
    network, params = classifier(backbone="mlp")
    config, batch = maml.Config(step_sizes="layers", inner_steps=2, inner_step_size=0.2), tasks(2)
    meta = maml.first_parameters(config, network, Key(0), "cpu")
    assert len(meta["rule"]) == 2
    assert {name for step in meta["rule"] for name in step} == set(params)
    assert all(value.shape == () and float(value) == 0.2 for step in meta["rule"] for value in step.values())
    assert {"rule/0/head.bias", "rule/1/head.bias"} <= maml.named(meta).keys()
    sizes = tuple({name: value + 0.1 * k for name, value in step.items()} for k, step in enumerate(meta["rule"]))
    goal, h = maml.objective(network, inner.Rule(0.0, 2), lean=lean), 1e-6
    pair = maml.pairs(batch)
    gradient = outer.meta_gradient(goal, {"model": params, "rule": sizes}, pair).gradient["rule"]
    for k, name in ((0, "head.weight"), (1, "head.weight"), (0, "head.bias")):
        ends = []
        for sign in (1, -1):
            shifted = [dict(step) for step in sizes]
            shifted[k][name] = shifted[k][name] + sign * h
            ends.append(outer.meta_gradient(goal, {"model": params, "rule": tuple(shifted)}, pair).loss)
        torch.testing.assert_close(gradient[k][name], (ends[0] - ends[1]) / (2 * h), rtol=1e-5, atol=1e-9)


def test_step_sizes_of_layers_and_steps_are_trained_and_loaded(tmp_path):
    from metarl.runs.run import Run

    source = Glyphs(ways=3, queries=2)
    changes = {"iterations": 2, "tasks": 2, "width": 4, "strategy": "loop", "inner_steps": 2}
    config = replace(maml.DEFAULTS["glyphs"], step_sizes="layers", **changes)
    run = Run.create(tmp_path / "run", learner="maml", config=config, source=source, seed=0)
    maml.train(config, source, run)
    saved, learner = run.restore()[1]["params"], maml.load(run, source)
    first, second = learner.rule.step_size
    assert float(first["head.bias"]) == float(saved["rule/0/head.bias"])
    assert len({float(value) for value in (*first.values(), *second.values())}) > 2  # trained from one number
    assert learner.rule.size(7) == second
    assert learner.curve(source.fixed("test", 2), Budget(3), 0).values.shape == (2, 4)


def test_meta_sgd_has_a_step_size_for_every_number_and_trains_it(tmp_path):
    from metarl.runs.run import Run

    source = Glyphs(ways=3, queries=2)
    config = replace(meta_sgd.DEFAULTS["glyphs"], iterations=2, tasks=2, width=4, strategy="loop")
    assert config.inner_steps == 1
    run = Run.create(tmp_path / "run", learner="meta-sgd", config=config, source=source, seed=0)
    meta_sgd.train(config, source, run)
    held = run.restore()[1]["params"]
    rule = inner.Rule(0.0, moves=config.moves)
    moving = rule.moving([name for name in held if not name.startswith("rule/")])
    assert {name for name in held if name.startswith("rule/")} == {f"rule/{name}" for name in moving}
    network = make_network(config, source, Key(0)("maml"))
    first = maml.first_parameters(config, network, Key(0)("maml"), "cpu")["rule"]
    low, high = maml.FIRST_SIZES
    for name in moving:
        assert low <= first[name].min() <= first[name].max() <= high
        if not name.startswith("encoder.convolutions.") or name.endswith(".weight"):
            # (a convolution's bias has no gradient: normalisation takes it away)
            assert not torch.equal(held[f"rule/{name}"], first[name])
    loaded = meta_sgd.load(run, source)
    assert torch.equal(loaded.rule.step_size["head.bias"], held["rule/head.bias"])


@pytest.mark.parametrize("backbone", ["conv4-strided", "mlp"])
@pytest.mark.parametrize("plan", [outer.Plan("vmap"), outer.Plan("vmap", chunk=3), outer.Plan("threads", threads=2)])
def test_every_strategy_gives_the_same_meta_gradient_through_batch_norm(backbone, plan):
    """Differentiated through vmap, torch's batch normalisation has a wrong second derivative if its scale moves."""
    network, params = classifier(backbone=backbone, scale=True)
    goal, batch = maml.objective(network, inner.Rule(0.5, 2)), maml.pairs(tasks())
    loop, other = (
        outer.meta_gradient(goal, {"model": params}, batch, p).gradient["model"] for p in (outer.Plan(), plan)
    )
    torch.testing.assert_close(other, loop, rtol=1e-9, atol=1e-12)


# ---- identities


def test_permuting_the_classes_permutes_the_probabilities():
    network, params = classifier()
    batch, order = tasks(), torch.tensor([2, 0, 1])  # class c becomes class order[c]
    back = order.argsort()
    permuted = params | {name: params[name][back] for name in ("head.weight", "head.bias")}
    other = replace(batch, support_y=order[batch.support_y], query_y=order[batch.query_y])
    rule = inner.Rule(0.5, 3)
    plain = TrainedInitialisation(network, params, rule, Glyphs(ways=WAYS)).log_probabilities(batch, WAYS)
    other_order = TrainedInitialisation(network, permuted, rule, Glyphs(ways=WAYS)).log_probabilities(other, WAYS)
    torch.testing.assert_close(other_order, plain[..., back])


@pytest.mark.parametrize("mode", ["transductive", "support"])
def test_support_images_given_twice_change_nothing(mode):
    network, params = classifier(mode)
    batch = tasks()
    twice = replace(batch, support_x=batch.support_x.repeat(1, 2, 1, 1, 1), support_y=batch.support_y.repeat(1, 2))
    learner = TrainedInitialisation(network, params, inner.Rule(0.5, 3), Glyphs(ways=WAYS))
    torch.testing.assert_close(learner.log_probabilities(twice, WAYS), learner.log_probabilities(batch, WAYS))


def test_tasks_do_not_see_one_another():
    network, params = classifier()
    learner = TrainedInitialisation(network, params, inner.Rule(0.5, 2), Glyphs(ways=WAYS))
    batch = tasks()
    torch.testing.assert_close(
        learner.log_probabilities(batch, WAYS)[1:2], learner.log_probabilities(batch[1:2], WAYS), rtol=1e-12, atol=0
    )


# ---- batch norm, unbalanced support, fewer ways


@pytest.mark.parametrize(("mode", "independent"), [("transductive", False), ("support", True)])
def test_other_queries_matter_in_transductive_mode_alone(mode, independent):
    network, params = classifier(mode)
    learner = TrainedInitialisation(network, params, inner.Rule(0.5, 2), Glyphs(ways=WAYS))
    batch = tasks()
    changed = batch.query_x.clone()
    changed[:, 1:] = 1 - changed[:, 1:] ** 2
    before = learner.log_probabilities(batch, WAYS)[:, 0]
    after = learner.log_probabilities(replace(batch, query_x=changed), WAYS)[:, 0]
    assert torch.allclose(before, after, atol=1e-9) == independent


def test_query_labels_are_not_used():
    network, params = classifier()
    learner = TrainedInitialisation(network, params, inner.Rule(0.5, 2), Glyphs(ways=WAYS))
    batch = tasks()
    other = replace(batch, query_y=(batch.query_y + 1) % WAYS)
    assert torch.equal(learner.log_probabilities(batch, WAYS), learner.log_probabilities(other, WAYS))


def test_a_head_takes_fewer_ways_but_not_more():
    network, params = classifier(ways=5)
    learner = TrainedInitialisation(network, params, inner.Rule(0.5, 2), Glyphs(ways=5))
    log_probabilities = learner.log_probabilities(tasks(ways=3), 3)
    assert log_probabilities.shape == (4, 9, 3)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(4, 9, dtype=torch.float64))
    with pytest.raises(
        UserError, match="head tells 5 classes apart and was given 6: give at most 5, train one with --w"
    ):
        learner.log_probabilities(tasks(ways=6), 6)


def test_unbalanced_support_gives_a_curve_that_names_its_protocol():
    source = Glyphs(ways=4, shots=3, queries=2, unbalanced=True)
    config = replace(maml.DEFAULTS["glyphs"], width=4)
    network = make_network(config, source, Key(0))
    learner = TrainedInitialisation(network, network.init(Key(1).torch()), inner.Rule(0.4, 10, config.moves, 1), source)
    scores = learner.curve(source.fixed("test", 3), Budget(steps=2), 0)
    assert scores.values.shape == (3, 3)
    assert scores.gradient_steps == (0, 1, 2)
    assert scores.shots == (0, 3, 3)
    assert scores.protocol == "4-way 3-shot, gradient steps of 0.4 on 12 support images; batch norm: transductive"


def test_a_curve_scores_every_iterate():
    source = Glyphs(ways=3, queries=4)
    config = replace(maml.DEFAULTS["glyphs"], width=4)
    network = make_network(config, source, Key(0))
    learner = TrainedInitialisation(network, network.init(Key(1).torch()), inner.Rule(0.4, 10, config.moves, 1), source)
    fixed = source.fixed("test", 5)
    scores = learner.curve(fixed, Budget(steps=3), 0).values
    batch = source.batch(fixed)
    for k in range(4):
        log_probabilities = replace(learner, rule=replace(learner.rule, steps=k)).log_probabilities(batch, 3)
        accuracy = (log_probabilities.argmax(-1) == batch.query_y).double().mean(1)
        torch.testing.assert_close(torch.from_numpy(scores[:, k]), accuracy)


# ---- networks


def test_buffers_of_a_foreign_encoder_stay_as_they_are():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6)).eval()
    encoder[2].running_mean += 3
    network = Classifier(encoder, SHAPE, WAYS)
    params = network.init(Key(0).torch())
    batch = tasks()[0]
    x = batch.query_x.float()
    before = network.logits(params, x)
    torch.testing.assert_close(
        before, torch.nn.functional.linear(encoder(x), params["head.weight"], params["head.bias"])
    )
    inner.step(params, network.support_loss, (batch.support_x.float(), batch.support_y), inner.Rule(0.5))
    assert torch.equal(network.logits(params, x), before)
    assert torch.equal(encoder[2].running_mean, torch.full((6,), 3.0))


def test_a_pretrained_encoder_is_where_training_starts():
    encoder = make_backbone("mlp", SHAPE, Key(5).torch())
    source = replace(Glyphs(ways=3), queries=2)
    network = Classifier(encoder, SHAPE, 3)
    params = network.init(Key(0).torch())
    for name, value in encoder.named_parameters():
        assert torch.equal(params[f"encoder.{name}"], value)
        assert params[f"encoder.{name}"].data_ptr() != value.data_ptr()
    made = make_network(maml.DEFAULTS["glyphs"], source, Key(0), nn.Sequential(nn.Flatten(), nn.Linear(784, 5)))
    assert set(made.init(Key(0).torch())) == {"encoder.1.weight", "encoder.1.bias", "head.weight", "head.bias"}


def test_regression_has_no_probabilities():
    from metarl.fewshot.datasets.sinusoid import Sinusoid

    config = maml.Config(hidden=(3,))
    network = make_network(config, Sinusoid(), Key(0))
    assert isinstance(network, Regressor)
    learner = TrainedInitialisation(network, network.init(Key(0).torch()), inner.Rule(0.1), Sinusoid())
    with pytest.raises(ValueError, match="does regression"):
        learner.log_probabilities(Sinusoid().batch(Sinusoid().fixed("test", 2)), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 0}, "--tasks is 0; it must be at least 1"),
        ({"inner_steps": 0}, "--inner-steps is 0; it must be at least 1"),
        ({"inner_step_size": -1.0}, "--inner-step-size is -1.0; it must be above 0"),
        ({"inner_step_size": float("nan")}, "--inner-step-size is nan; it must be above 0"),
        ({"clip": 0.0}, "--clip is 0.0; it must be above 0"),
        ({"width": -3}, "--width is -3; it must be at least 1"),
    ],
)
@pytest.mark.parametrize("learner", [maml, fomaml, anil, meta_sgd])
def test_wrong_options(learner, options, message):
    with pytest.raises(UserError, match=message):
        learner.Config(**options)
