"""`metarl predict` as typed, by somebody else's encoder: labelled pictures, what to expect, the unknown, the cache."""

import json

import pytest
import torch
from command_line import metarl, refused
from PIL import Image
from torch import nn

SHADES = {"dark": 40, "light": 200}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Pictures of two shades, and a file of weights for `shades:make`."""
    (tmp_path / "shades.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 2))\n"
    )
    layer = nn.Linear(3 * 224 * 224, 2)
    nn.init.constant_(layer.weight, 1e-5)
    torch.save({"1.weight": layer.weight.data, "1.bias": torch.zeros(2)}, tmp_path / "w.pth")
    for part, n in (("new", 3), ("asked", 2)):
        for label, shade in SHADES.items():
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(n):
                noise = Image.effect_noise((12, 10), 8).point(lambda v, s=shade: max(0, min(255, v - 128 + s)))
                noise.save(tmp_path / part / label / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    return tmp_path


WORDS = ["--encoder", "file:w.pth", "--arch", "shades:make", "--support", "new"]


def test_labelled_pictures_are_counted(place):
    words = [*WORDS, "--query", "asked", "--estimate", "--unknown", "0.1", "--json", "said.json"]
    said = metarl("predict", *words)
    assert said.code == 0, said
    told = json.loads((place / "said.json").read_text())
    assert told["judged"]["accuracy"] >= 0.5
    assert told["judged"]["confusion"]["dark"]["light"] == 0
    assert (told["estimate"]["accuracy"], told["estimate"]["judged"]) == (1, 6)
    assert told["unknown"]["known"] <= 0.1
    assert (place / "cache" / "features.sqlite").exists()
    again = metarl("predict", *words)
    assert again.out == said.out
    alone = metarl("predict", *WORDS, "--query", "asked/dark/0.png", "--no-cache", "--rule", "logistic")
    assert alone.code == 0
    assert "dark" in alone.out


def test_what_does_not_go_together_is_one_line(place):
    one = "asked/dark/0.png"
    assert "not both" in refused(metarl("predict", "run", *WORDS, "--query", one))
    assert "go with --encoder" in refused(metarl("predict", "run", "--support", "new", "--query", one, "--arch", "x"))
    assert "in (0, 1)" in refused(metarl("predict", *WORDS, "--query", one, "--unknown", "2"))
    assert "no file or folder" in refused(metarl("predict", "--encoder", "file:x", "--support", "new", "--query", one))
    (place / "asked" / "other").mkdir()
    Image.effect_noise((9, 9), 9).save(place / "asked" / "other" / "0.png")
    assert "--support has not (other)" in refused(metarl("predict", *WORDS, "--query", "asked"))
    (place / "w.pth").write_bytes(b"x" * 99)
    assert "no file of tensors alone" in refused(metarl("predict", *WORDS, "--query", one))


def test_a_class_called_unknown_is_one_class(place):
    (place / "new" / "dark").rename(place / "new" / "unknown")
    (place / "asked" / "dark").rename(place / "asked" / "unknown")
    words = [*WORDS, "--query", "asked"]
    assert "rename its folder" in refused(metarl("predict", *words, "--unknown", "0.1"))
    said = metarl("predict", *words, "--json", "said.json")
    assert said.code == 0, said
    assert json.loads((place / "said.json").read_text())["judged"]["accuracy"] <= 1
    assert said.out.count("\nunknown ") == 1


@pytest.mark.parametrize("settings", ['"abc"', "[1]"])
def test_a_folder_with_settings_that_are_none_is_one_line(place, settings):
    (place / "model").mkdir()
    (place / "model" / "config.json").write_text(f'{{"architecture": "x", "pretrained_cfg": {settings}}}')
    (place / "w.pth").rename(place / "model" / "pytorch_model.bin")
    asked = ["--support", "new", "--query", "asked/dark/0.png"]
    assert "config.json of timm's" in refused(metarl("predict", "--encoder", "file:model", *asked))


def test_arch_without_an_encoder_is_refused_by_evaluate_too():
    assert "--arch goes with --encoder" in refused(metarl("evaluate", "pixels", "--dataset", "glyphs", "--arch", "x"))


def test_cl2n_without_training_images_is_one_line(place):
    for part in ("test", "validation"):
        (place / "data" / part).mkdir(parents=True)
        for label, shade in SHADES.items():
            (place / "data" / part / f"{part}-{label}").mkdir()
            for i in range(3):
                noise = Image.effect_noise((12, 12), 8).point(lambda v, s=shade: max(0, min(255, v - 128 + s)))
                noise.save(place / "data" / part / f"{part}-{label}" / f"{i}.png")
    words = [
        "hog-centroid",
        "--dataset",
        "folder",
        "--data-root",
        "data",
        "--ways",
        "2",
        "--shots",
        "1",
        "--queries",
        "1",
    ]
    assert "no training images" in refused(metarl("evaluate", *words, "--tasks", "2", "--feature-norm", "cl2n"))
