"""A module that a user brings, under every learner: parameters, buffers, mode, randomness, frozen parts and ties."""

import copy
import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn.utils import parametrizations

from metarl import cli, registry
from metarl.errors import UserError
from metarl.fewshot.classifier import FewShotClassifier
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.datasets.sinusoid import Sinusoid
from metarl.fewshot.learners import maml, strategy, training
from metarl.fewshot.networks.backbones import make_backbone
from metarl.fewshot.networks.classifier import Classifier
from metarl.fewshot.networks.encoders import named_tensors
from metarl.learning.contract import Budget
from metarl.meta.outer import Plan
from metarl.runs.run import Run
from metarl.seeding import Key

LEARNERS = [name for name, entry in registry.agents().items() if entry.source == "dataset"]
ADAPTING = ("maml", "fomaml", "anil", "meta-sgd", "reptile")
SOURCE = Glyphs(ways=3, shots=2, queries=2)
TINY = {  # where a learner has such an option
    "iterations": 3,
    "checkpoint_every": 1,
    "log_every": 1,
    "tasks": 2,
    "strategy": "loop",
    "inner_steps": 2,
    "inner_step_size": 0.1,
    "train_shots": 3,
    "train_ways": 3,
    "train_queries": 2,
    "minibatch": 6,
    "epochs": 2,
}


class Brought(nn.Module):
    """An encoder with any of what a module may have; `seen` counts its calls in training."""

    def __init__(self, seed=0, norm=True, dropout=True, frozen=False, tied=True, counted=True, still=False):
        super().__init__()
        self.parts = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 6))
        self.norm = nn.BatchNorm1d(6) if norm else nn.Identity()
        self.drop = nn.Dropout(0.3) if dropout else nn.Identity()
        self.up, self.down = nn.Linear(6, 6), nn.Linear(6, 6)
        if tied:
            self.down.weight = self.up.weight
        if counted:
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
            self.register_buffer("level", torch.full((), 0.5), persistent=False)
            self.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))
        generator = Key(seed).torch()
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
        if frozen:
            self.parts.requires_grad_(False)
            self.up.bias.requires_grad_(False)
        if still:
            self.norm.eval()

    def forward(self, x):
        if hasattr(self, "seen") and self.training:
            self.seen += 1
            self.level = 0.5 * self.level + x.mean().detach()  # replaced, not changed in place
        return self.down(torch.relu(self.up(self.drop(self.norm(self.parts(x))))))


def config_of(name, **changes):
    kind = registry.learner(name).Config
    options = {**TINY, "moves": "head.*" if name == "anil" else "*", **changes}
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{option: value for option, value in options.items() if option in names})


def train(folder, name, encoder, source=SOURCE, **changes):
    learner, config = registry.learner(name), config_of(name, **changes)
    run = Run.create(folder, learner=name, config=config, source=source, seed=1)
    learner.train(config, source, run, encoder=encoder)
    return run


def load(run, encoder, source=SOURCE):
    saved = Run.open(run.folder, type(run.config))
    return registry.learner(run.learner).load(saved, source, encoder=encoder)


def held(run):
    """The encoder's tensors in the checkpoint, by its own names."""
    params = run.restore()[1]["params"]
    return {n.removeprefix("encoder."): v for n, v in params.items() if n.startswith("encoder.")}


def everything(module):
    """All that a caller can see of a module."""
    values = {name: value.clone() for name, value in named_tensors(module).items()}
    needs = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    modes = {name: part.training for name, part in module.named_modules()}
    formats = {name: value.stride() for name, value in named_tensors(module).items()}
    return values, needs, modes, formats


def assert_untouched(module, before):
    values, *rest = everything(module)
    assert tuple(rest) == before[1:]
    assert all(torch.equal(value, before[0][name]) for name, value in values.items())


kinds = st.fixed_dictionaries(
    {name: st.booleans() for name in ("norm", "dropout", "frozen", "tied", "counted", "still")}
)


@pytest.mark.parametrize("name", LEARNERS)
@settings(max_examples=3, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # every example trains: no shrinking
@example(kind=dict.fromkeys(("norm", "dropout", "frozen", "tied", "counted"), True) | {"still": False})
@given(kind=kinds)
def test_everything_of_an_encoder_is_honoured(name, kind, tmp_path_factory):
    """Saved whole, the caller's untouched, frozen parts still, ties kept, no global generator asked or moved."""
    encoder, folder = Brought(**kind), tmp_path_factory.mktemp("runs")
    before, state = everything(encoder), torch.get_rng_state()
    run = train(folder / "a", name, encoder)
    assert torch.equal(torch.get_rng_state(), state)
    assert_untouched(encoder, before)
    torch.rand(3)
    saved, again = held(run), held(train(folder / "b", name, encoder))
    assert all(torch.equal(saved[n], again[n]) for n in saved)
    first_names = set(dict(encoder.named_parameters()) | dict(encoder.named_buffers()))
    assert first_names <= set(saved)
    for parameter, value in encoder.named_parameters():
        if not value.requires_grad:
            assert torch.equal(saved[parameter], value)
    assert any(not torch.equal(saved[n], v) for n, v in encoder.named_parameters())
    if kind["norm"]:
        assert (saved["norm.num_batches_tracked"] > 0) == (not kind["still"])
    if kind["counted"]:
        assert saved["seen"] > 0
        assert saved["level"] != 0.5
        assert saved["mask"].tolist() == [-torch.inf, 0.0]

    other = Brought(**{**kind, "frozen": False, "still": False, "seed": 7})
    before, state = everything(other), torch.get_rng_state()
    tasks = SOURCE.fixed("test", 3)
    learned = load(run, other)
    curves = [learner.curve(tasks, Budget(2), 0).values for learner in (learned, learned, load(run, encoder))]
    assert (curves[0] == curves[1]).all()
    assert (curves[0] == curves[2]).all()
    assert_untouched(other, before)
    assert torch.equal(torch.get_rng_state(), state)
    if name in ADAPTING:
        batch = SOURCE.batch(tasks)[0]
        last = learned.adapt(batch, 2)[-1]
        adapting = {n.removeprefix("encoder.") for n in last if n.startswith("encoder.")}
        assert adapting == {n for n, value in encoder.named_parameters() if value.requires_grad}
        together, alone = (learned.network.logits(last, x) for x in (batch.query_x, batch.query_x[:2]))
        torch.testing.assert_close(together[:2], alone)  # judged in evaluation mode: by itself, nothing dropped
    else:
        module = learned.network.encoder
        assert (module.down.weight is module.up.weight) == kind["tied"]
        assert not any(part.training for part in module.modules())


@pytest.mark.parametrize("name", LEARNERS)
def test_a_resumed_run_equals_an_uninterrupted_one(name, tmp_path, monkeypatch):
    """Buffers, replaced ones too, and the streams of dropout go on where they were."""
    whole = train(tmp_path / "whole", name, Brought())
    fit = training.fit

    def failing(run, config, what, draw, step):
        def until(iteration):
            if iteration == 1:
                raise ZeroDivisionError
            return draw(iteration)

        fit(run, config, what, until, step)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", failing)
        with pytest.raises(ZeroDivisionError):
            train(tmp_path / "parts", name, Brought())
    learner, config = registry.learner(name), config_of(name)
    run = Run.resume(tmp_path / "parts", learner=name, config=config, source=SOURCE, seed=1)
    learner.train(config, SOURCE, run, encoder=Brought(seed=3))
    assert run.restore()[0] == 3
    a, b = whole.restore()[1]["params"], run.restore()[1]["params"]
    assert a.keys() == b.keys()
    assert all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("name", ADAPTING)
def test_buffers_are_the_same_whatever_the_strategy(name, tmp_path):
    runs = [
        train(tmp_path / strategy, name, Brought(dropout=False), strategy=strategy, iterations=1)
        for strategy in ("loop", "threads", "vmap")
    ]
    loop, threads, vmap = map(held, runs)
    assert all(torch.equal(loop[n], threads[n]) for n in loop)
    assert loop["seen"] == vmap["seen"] == loop["norm.num_batches_tracked"] == 2  # the query pass of each task
    for buffer in ("norm.running_mean", "norm.running_var", "level"):
        torch.testing.assert_close(vmap[buffer], loop[buffer], rtol=1e-4, atol=1e-5)


def test_buffers_take_the_mean_change_of_the_tasks():
    """By hand: two tasks whose batches have means 2 and 4 move a running mean of 1, momentum .1, by .1 and .3."""
    network = Classifier(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1)), (1, 1, 1), 2)
    network.buffers["encoder.1.running_mean"].fill_(1.0)
    each = {"encoder.1.running_mean": torch.tensor([[0.9 + 0.2], [0.9 + 0.4]]), "encoder.1.num_batches_tracked": [1, 1]}
    each["encoder.1.num_batches_tracked"] = torch.tensor([1, 1])
    network.follow(each)
    torch.testing.assert_close(network.buffers["encoder.1.running_mean"], torch.tensor([1.2]))
    assert network.buffers["encoder.1.num_batches_tracked"] == 2
    network.buffers = {"flag": torch.tensor([False, True]), "mask": torch.tensor([-torch.inf, torch.nan])}
    network.follow({"flag": torch.tensor([[True, True], [False, True]]), "mask": network.buffers["mask"].expand(2, 2)})
    assert network.buffers["flag"].tolist() == [True, True]
    assert network.buffers["mask"][0] == -torch.inf


DRAWN = []


class Noisy(nn.Module):
    """Its draws in training are kept in `DRAWN`."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(49, 3)

    def forward(self, x):
        x = self.layer(nn.functional.avg_pool2d(x, 4).flatten(1))
        if self.training:
            noise = torch.rand(())
            DRAWN.append(float(noise))
            x = x + noise
        return x


@pytest.mark.parametrize("name", LEARNERS)
def test_every_call_in_training_draws_from_a_stream_of_its_own(name, tmp_path):
    DRAWN.clear()
    train(tmp_path / "run", name, Noisy(), iterations=2)
    drawn = DRAWN[1:] if name in ADAPTING else DRAWN  # the first looked whether it draws
    if name not in ADAPTING:
        assert len(set(drawn)) == len(drawn) == 2
        return
    steps = 2
    calls = np.array(drawn).reshape(2, 2, steps + 1)  # iterations, tasks, support steps and the query pass
    assert (calls[:, :, 0] == calls[:, :, 1]).all()  # the steps of a task draw alike: they descend one function
    assert len(np.unique(calls)) == 2 * 2 * 2


@pytest.mark.parametrize("strategy", ["vmap", "threads"])
def test_random_encoders_are_computed_task_by_task_or_refused(strategy, tmp_path):
    with pytest.raises(UserError, match=f"--strategy {strategy} is not for an encoder that draws random numbers"):
        train(tmp_path / "refused", "maml", Brought(), strategy=strategy)
    run = train(tmp_path / "auto", "maml", Brought(), strategy="auto")
    assert run.recall("meta_gradient")["strategy"] == "loop"
    assert all(
        torch.equal(a, b)
        for a, b in zip(held(run).values(), held(train(tmp_path / "b", "maml", Brought())).values(), strict=True)
    )


class Branching(nn.Module):
    """What vmap cannot compute: it looks at a number."""

    def forward(self, x):
        return x.flatten(1) if float(x.sum()) > 0 else -x.flatten(1)


def test_what_vmap_cannot_compute_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"--strategy vmap cannot compute this \(.*\); use loop or threads") as refused:
        train(tmp_path / "run", "maml", Branching(), strategy="vmap")
    assert "\n" not in str(refused.value)
    train(tmp_path / "loop", "maml", Branching(), iterations=1)


def test_the_protocol_says_what_images_are_normalised_with(tmp_path):
    itself = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.BatchNorm1d(49, track_running_stats=False))
    for encoder, norm in ((Brought(), "running"), (Brought(norm=False), "none"), (itself, "transductive")):
        for name in ("maml", "protonet"):
            mode = "transductive" if name == "maml" or encoder is itself else "running"
            run = train(tmp_path / f"{name}-{norm}", name, encoder, batch_norm=mode)
            curve = load(run, encoder).curve(SOURCE.fixed("test", 2), Budget(1), 0)
            assert curve.protocol.endswith(f"batch norm: {norm}")


# ---- what cannot be honoured


def sharing_memory():
    module = Brought(tied=False)
    module.down.weight = nn.Parameter(module.up.weight.data)
    return module


def weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(784, 3)))


class Always(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x.flatten(1))


class Extra(nn.Flatten):
    def get_extra_state(self):
        return {"count": 1}


REFUSED = {
    "half": (lambda: Brought().half(), "parameters of torch.float16 and images are float32: give encoder.float()"),
    "double": (lambda: Brought().double(), "parameters of torch.float64"),
    "memory": (sharing_memory, "up.weight and down.weight share memory but are two tensors: tie weights by one"),
    "hook": (weight_norm, "cannot be copied"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "lazy layers without shapes"),
    "always": (Always, "draws random numbers in evaluation mode too"),
    "extra": (Extra, "extra state"),
    "function": (lambda: torch.flatten, "an encoder is a torch.nn.Module, not a builtin_function"),
    "images": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 3)), r"does not take images of shape \(1, 28, 28\)"),
    "shape": (nn.Identity, "returns something else"),
    "batch": (
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784, track_running_stats=False)),
        "those beside them in evaluation mode too",
    ),
    "frozen": (lambda: nn.Flatten(), "every parameter of the encoder is frozen"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_honoured_is_one_line(case, tmp_path):
    make, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as refused:
        train(tmp_path / "run", "protonet", make())
    assert "\n" not in str(refused.value)
    if case not in ("batch", "frozen"):
        with pytest.raises(UserError, match=message):
            train(tmp_path / "maml", "maml", make())


def test_support_statistics_need_a_backbone_of_ours(tmp_path):
    for name in ("maml", "protonet"):
        with pytest.raises(UserError, match="batch norm 'support' needs a backbone of metarl"):
            train(tmp_path / name, name, Brought(), batch_norm="support")
    with pytest.raises(UserError, match="batch norm 'support' needs a backbone of metarl"):
        FewShotClassifier(Brought(), batch_norm="support").fit(np.zeros((2, 28, 28)), ["a", "b"])


def test_regression_takes_no_encoder(tmp_path):
    with pytest.raises(UserError, match="sinusoid has no images, so nothing for an encoder"):
        train(tmp_path / "run", "maml", Brought(), source=Sinusoid())


def test_nothing_that_moves_is_one_line(tmp_path):
    for moves in ("*up.bias", "nothing"):
        with pytest.raises(UserError, match="--moves: no parameter matches"):
            train(tmp_path / moves.strip("*"), "maml", Brought(frozen=True), moves=moves)


def test_parametrised_and_flattened_weights_work(tmp_path):
    layer = parametrizations.weight_norm(nn.Linear(49, 3))
    encoder = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), parametrizations.spectral_norm(nn.Linear(49, 49)), layer)
    for name in ("maml", "protonet"):
        run = train(tmp_path / name, name, encoder)
        assert load(run, encoder).curve(SOURCE.fixed("test", 2), Budget(1), 0).values.shape[0] == 2


def test_an_empty_sequence_is_an_encoder_too(tmp_path):
    """`nn.Sequential()` is false, and was taken for none."""
    with pytest.raises(UserError, match="returns something else"):
        train(tmp_path / "run", "protonet", nn.Sequential())


# ---- what the run says of it


def test_a_run_describes_its_encoder_and_wants_it_again(tmp_path):
    run = train(tmp_path / "run", "maml", Brought(frozen=True))
    described = json.loads((run.folder / "config.json").read_text())["choices"]["encoder"]
    assert described["class"].endswith("test_encoders.Brought")
    assert described["frozen"] == ["parts.2.weight", "parts.2.bias", "up.bias"]
    assert described["evaluating"] == []

    def resume(encoder):
        config = config_of("maml", iterations=4)
        again = Run.resume(run.folder, learner="maml", config=config, source=SOURCE, seed=1)
        maml.train(config, SOURCE, again, encoder=encoder)

    for other, what in (
        (Brought(), "frozen parameters differ"),
        (Brought(frozen=True, tied=False), "names, shapes and ties of parameters and buffers differ"),
        (Brought(frozen=True, dropout=False), "layers as printed differ"),
        (Brought(frozen=True, still=True), "parts in evaluation mode differ"),
        (None, "test_encoders.Brought): resume it in Python with the same `encoder=` in `train`"),
    ):
        with pytest.raises(UserError) as refused:
            resume(other)
        assert what in str(refused.value)
        assert "\n" not in str(refused.value)
    resume(Brought(seed=5, frozen=True))
    with pytest.raises(UserError, match="was trained with another encoder"):
        load(run, Brought(tied=False))
    with pytest.warns(UserWarning, match="prints other layers"):
        load(run, Brought(dropout=False))


def test_a_run_of_the_backbone_takes_no_other_encoder(tmp_path):
    for name in ("maml", "protonet", "centroid"):
        run = train(tmp_path / name, name, None, width=2)
        assert run.recall("encoder") is None
        with pytest.raises(
            UserError, match=r"does not fit: \S+ is .*nothing.* give the encoder and the config"
        ) as refused:
            load(run, Brought())
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["maml", "reptile", "protonet", "matchingnet", "centroid"])
def test_the_command_line_says_in_one_line_how_to_load_it(name, tmp_path, capsys):
    run = train(tmp_path / "run", name, Brought())
    for way in "ab":
        (tmp_path / "support" / way).mkdir(parents=True)
        drawn = Image.new("L", (28, 28))
        drawn.paste(255, (5, 5, 12, 20))
        drawn.save(tmp_path / "support" / way / "1.png")
    picture = str(tmp_path / "support" / "a" / "1.png")
    folder = str(run.folder)
    for words in (
        ["evaluate", folder],
        ["predict", folder, "--support", str(tmp_path / "support"), "--query", picture],
    ):
        capsys.readouterr()
        assert cli.main(words) == 2
        _, err = capsys.readouterr()
        assert err.count("\n") == 1
        module = registry.agents()[name].where if name != "centroid" else "metarl.fewshot.learners.centroid"
        assert f"load it in Python with {module}.load(run, source, encoder=...)" in err
        assert "test_encoders.Brought" in err
    with pytest.raises(UserError, match="load it in Python with"):
        FewShotClassifier(folder).fit([picture, picture], ["a", "b"])
    learned = load(run, Brought())
    assert FewShotClassifier(learned).fit([picture, picture], ["a", "b"]).predict([picture]).shape == (1,)


def test_our_own_backbone_brought_is_the_backbone(tmp_path):
    """Started from the weights that the config would have drawn, it is trained alike."""
    config = config_of("maml", width=2)
    key = Key(1)("maml")
    mine = make_backbone(
        config.backbone, SOURCE.image_shape, key("encoder").torch(), 2, "transductive", config.norm_scale
    )
    a, b = train(tmp_path / "a", "maml", None, width=2), train(tmp_path / "b", "maml", copy.deepcopy(mine), width=2)
    assert all(torch.equal(held(a)[n], held(b)[n]) for n in held(a))
    assert Plan(**a.recall("meta_gradient")).strategy == "loop"


@pytest.mark.parametrize("name", ["maml", "reptile"])
def test_threads_repeat_bit_for_bit_on_any_number_of_cores(name, tmp_path, monkeypatch):
    """The strategy that reproductions may name, with the config's own backbone."""
    runs, before = [], torch.get_num_threads()
    try:
        for cores in (1, 2, 3):
            monkeypatch.setattr(strategy, "cores", lambda cores=cores: cores)
            torch.set_num_threads(cores)
            runs.append(train(tmp_path / str(cores), name, None, strategy="threads", width=16, tasks=3))
            assert runs[-1].recall("meta_gradient")["threads"] == cores
    finally:
        torch.set_num_threads(before)
    first, *others = map(held, runs)
    for other in others:
        assert all(torch.equal(first[n], other[n]) for n in first)
