"""An encoder of a user's own, named on the command line: trained, resumed, judged and used by its name alone."""

import json
import sys

import numpy as np
import pytest
from command_line import metarl, refused
from PIL import Image

from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.runs.run import Run

MODULE = """
from torch import nn

def small(image_shape):
    channels, height, width = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 4), nn.ReLU())

class Broken(nn.Module):
    def __init__(self, image_shape):
        raise RuntimeError("no weights here")

def number(image_shape):
    return 3
"""
DATA = ["--dataset", "glyphs", "--ways", "3", "--shots", "2", "--queries", "2"]
LEARNERS = {
    "maml": ["--tasks", "2", "--strategy", "loop"],
    "reptile": ["--tasks", "2", "--strategy", "loop", "--train-shots", "3"],
    "protonet": ["--train-ways", "3"],
    "matchingnet": [],
    "meta-baseline": [],
    "r2d2": ["--train-ways", "3"],
    "centroid": ["--minibatch", "6"],
}


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "named_encoders.py").write_text(MODULE)
    yield "named_encoders"
    sys.modules.pop("named_encoders", None)
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path)]


@pytest.mark.parametrize("name", LEARNERS)
def test_its_name_is_all_that_a_run_needs(name, module, tmp_path):
    words = ["train", name, *DATA, "--out", "run", *LEARNERS[name], "--encoder", f"{module}:small"]
    said = metarl(*words, "--iterations", "1")
    assert (said.code, said.err) == (0, "")
    tensors = Run.open("run").restore()[1]["params"]
    assert any(value.shape == (4, 784) for value in tensors.values())
    assert Run.open("run").record["config"]["encoder"] == f"{module}:small"
    if name != "reptile":  # whose schedule depends on the iterations
        assert metarl(*words, "--iterations", "2", "--resume").code == 0
    assert metarl("evaluate", "run", "--tasks", "2", "--steps", "1").code == 0
    batch = Glyphs(ways=3, shots=2, queries=1).batch(Glyphs(ways=3, shots=2, queries=1).fixed("test", 1))
    for i, (pixels, label) in enumerate(zip(batch.support_x[0], batch.support_y[0].tolist(), strict=True)):
        folder = tmp_path / "support" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.uint8(255 * pixels[0])).save(folder / f"{i}.png")
    one = next((tmp_path / "support").rglob("*.png"))
    said = metarl("predict", "run", "--support", "support", "--query", one, "--json", "said.json")
    assert said.code == 0, said
    assert json.loads((tmp_path / "said.json").read_text())["predictions"]


def test_what_is_no_encoder_is_refused_in_one_line(module):
    wrong = {
        "conv9": "--encoder is 'conv9'; name your own as mypackage.module:Name, or leave it out",
        f"{module}:absent": "has no absent",
        f"{module}:Broken": "calling it with image_shape failed: RuntimeError: no weights here",
        f"{module}:number": "it must give a torch.nn.Module, and gives a int",
        "no.such.module:thing": "there is no module no",
    }
    for name, message in wrong.items():
        line = refused(metarl("train", "protonet", *DATA, "--out", "wrong", "--encoder", name, "--iterations", "1"))
        assert message in line
    line = refused(metarl("train", "maml", "--dataset", "sinusoid", "--out", "wrong", "--encoder", f"{module}:small"))
    assert "sinusoid has no images, so nothing for an encoder: leave it out" in line
