"""Every learner computes where it is told to and nowhere else: on a device that refuses the CPU's tensors, on CUDA."""

import dataclasses

import numpy as np
import pytest
import torch
from pretend_device import DEVICE, Pretended, pretended_device
from torch.optim import optimizer

from metarl import registry
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.fewshot.classifier import FewShotClassifier
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.datasets.sinusoid import Sinusoid
from metarl.learning.contract import Budget
from metarl.parallel import choose_device, has_device
from metarl.runs.run import Run

TINY = {  # where a learner has such an option
    "iterations": 2,
    "checkpoint_every": 2,
    "log_every": 1,
    "width": 2,
    "tasks": 2,
    "strategy": "loop",
    "inner_step_size": 0.1,
    "inner_steps": 2,
    "gradient_steps": 2,
    "train_shots": 2,
    "train_ways": 3,
    "train_queries": 2,
    "minibatch": 6,
    "epochs": 2,
    "minibatches": 2,
    "hidden": (4,),
    "episodes": 2,
    "envs": 2,
    "trials": 4,
    "validation_tasks": 2,
    "adaptation_episodes": 2,
    "threads": 1,
}
BANDIT = make_family("metarl/BernoulliBandit-v0", arms=3, pulls=4)
FEW_SHOT = [name for name, entry in registry.agents().items() if entry.source == "dataset"]
AGENTS = [name for name, entry in registry.agents().items() if entry.source == "family"]
DRAWN_THERE = ["ppo-pretrained", "ppo-oracle"]  # Stable-Baselines3 draws its actions with the device's own generator


def source_of(name):
    if name == "pearl":  # which acts in a Box
        return make_family("metarl/Navigation2D-v0", preset="pearl")
    return Glyphs(ways=3, shots=2, queries=2, rotations=True) if name in FEW_SHOT else BANDIT


def tiny(name, **changes):
    kind = registry.learner(name).Config
    fields = {field.name: field for field in dataclasses.fields(kind)}
    options = {key: value for key, value in {**TINY, **changes}.items() if key in fields}
    if name in ("rl2", "varibad"):
        options["hidden"] = 4
    if name == "ppo-scratch":
        options.pop("iterations")
    if name in ("ppo-scratch", "ppo-pretrained"):
        options["step_sizes"] = (0.1,)
    return kind(**options)


def trained(folder, name, device, source=None, **changes):
    """A run trained and judged on a device, its scores, and what was waited for in training."""
    learner, source = registry.learner(name), source or source_of(name)
    config = tiny(name, **changes)
    run = Run.create(folder, learner=name, config=config, source=source, seed=1, device=device)
    learner.train(config, source, run)
    loaded = learner.load(Run.open(folder, type(config), device), source)
    return loaded, loaded.curve(source.fixed("test", 3), Budget(steps=1, episodes=2), seed=0)


def saved(folder):
    return Run.open(folder).restore()[1]


def assert_close(a, b, where="state", **tolerance):
    """Nested dicts and lists of tensors and numbers."""
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, msg=lambda text: f"{where}: {text}", **tolerance)
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_close(a[key], b[key], f"{where}/{key}", **tolerance)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_close(*pair, f"{where}/{i}", **tolerance)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5), where
    else:
        assert a == b, where


@pytest.fixture
def device(monkeypatch):
    """The pretended device; its tensors may be given to Adam's fused step."""
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["cpu", DEVICE])
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # a module that moves keeps its parameters, as to a GPU
    with pretended_device() as seen:
        yield seen
    torch.__future__.set_swap_module_params_on_conversion(before)


@pytest.mark.parametrize("name", [*FEW_SHOT, *AGENTS])
def test_training_and_judging_happen_on_the_device(name, device, tmp_path):
    loaded, scores = trained(tmp_path / "there", name, DEVICE)
    assert device.waits  # there was something to read back
    here = trained(tmp_path / "here", name, "cpu")[1]
    np.testing.assert_allclose(scores.values, here.values, rtol=1e-4, atol=1e-4)
    assert_close(saved(tmp_path / "there"), saved(tmp_path / "here"), rtol=1e-4, atol=1e-5)
    lies_there(loaded)


def lies_there(loaded):
    tensors = loaded.network.state_dict() if hasattr(getattr(loaded, "network", None), "state_dict") else loaded.params
    assert tensors
    assert all(isinstance(value, Pretended) for value in tensors.values())


@pytest.mark.parametrize("name", ["maml", "meta-sgd", "reptile"])
def test_regression_happens_on_the_device(name, device, tmp_path):
    loaded, scores = trained(tmp_path / "there", name, DEVICE, Sinusoid(shots=4, queries=3), moves="*")
    here = trained(tmp_path / "here", name, "cpu", Sinusoid(shots=4, queries=3), moves="*")[1]
    np.testing.assert_allclose(scores.values, here.values, rtol=1e-4, atol=1e-4)
    lies_there(loaded)


def test_continuous_actions_are_chosen_on_the_device(device, tmp_path):
    source = make_family("metarl/Navigation2D-v0")
    loaded, scores = trained(tmp_path / "there", "maml-trpo", DEVICE, source, iterations=1)
    here = trained(tmp_path / "here", "maml-trpo", "cpu", source, iterations=1)[1]
    np.testing.assert_allclose(scores.values, here.values, rtol=1e-4, atol=1e-4)
    lies_there(loaded)


@pytest.mark.parametrize("changes", [{"full_context": True}, {"batch_norm": "support"}, {"batch_norm": "transductive"}])
def test_options_of_embeddings_work_on_the_device(changes, device, tmp_path):
    scores = trained(tmp_path / "there", "matchingnet", DEVICE, **changes)[1]
    here = trained(tmp_path / "here", "matchingnet", "cpu", **changes)[1]
    np.testing.assert_allclose(scores.values, here.values, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "lstm", "token": "transition"},
        {"memory": "mingru", "layers": 2, "actor": "hypernetwork"},
        {"memory": "transformer"},
    ],
    ids=str,
)
def test_memories_live_on_the_device(options, device, tmp_path):
    loaded, scores = trained(tmp_path / "there", "rl2", DEVICE, **options)
    here = trained(tmp_path / "here", "rl2", "cpu", **options)[1]
    np.testing.assert_allclose(scores.values, here.values, rtol=1e-4, atol=1e-4)
    lies_there(loaded)


@pytest.mark.parametrize("name", ["maml-trpo", "rl2", "ppo-oracle", "protonet", "maml"])
def test_a_run_of_one_device_is_judged_filmed_and_used_on_another(name, device, tmp_path):
    here, scores = trained(tmp_path / "run", name, "cpu")
    source = source_of(name)
    learner, tasks = registry.learner(name), source.fixed("test", 3)
    there = learner.load(Run.open(tmp_path / "run", tiny(name).__class__, DEVICE), source)
    again = there.curve(tasks, Budget(steps=1, episodes=2), seed=0)
    np.testing.assert_allclose(again.values, scores.values, rtol=1e-4, atol=1e-4)
    if name in FEW_SHOT:
        pictures = [np.uint8(255 * image[0]) for image in source.batch(tasks[:1]).support_x[0].numpy()]
        labels = source.batch(tasks[:1]).support_y[0].tolist()
        probabilities = [
            FewShotClassifier(each).fit(pictures, labels).predict_proba(pictures) for each in (here, there)
        ]
        np.testing.assert_allclose(*probabilities, rtol=1e-4, atol=1e-5)
    elif name != "ppo-oracle":  # it is not filmed
        films = [each.film(tasks[:1], Budget(1, 2), seed=0) for each in (here, there)]
        assert [film.title for film in films[0]] == [film.title for film in films[1]]


def test_what_mixes_devices_is_caught(device):
    there = torch.ones(2, device=DEVICE)
    with pytest.raises(RuntimeError, match="beside tensors of the device"):
        there + torch.ones(2)
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    assert (there + torch.ones(())).tolist() == [2.0, 2.0]  # a number is welcome anywhere
    assert sum(device.waits.values()) == 1


@pytest.mark.parametrize("name", ["maml", "reptile", "protonet", "baseline"])
def test_training_waits_a_fixed_number_of_times_an_iteration(name, device, tmp_path):
    """Numbers are read back once an iteration, not once a step or a task."""

    def waits(**changes):
        before = sum(device.waits.values())
        learner, source, config = registry.learner(name), source_of(name), tiny(name, **changes)
        folder = tmp_path / f"{before}"
        run = Run.create(folder, learner=name, config=config, source=source, seed=1, device=DEVICE)
        learner.train(config, source, run)
        return sum(device.waits.values()) - before

    first = waits()
    assert waits(inner_steps=4, tasks=3, train_ways=2) == first
    assert waits(iterations=4, checkpoint_every=4) - first == 2 * 3  # what is logged, the gradient's norm, the tensors


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", [name for name in [*FEW_SHOT, *AGENTS] if name not in DRAWN_THERE])
def test_cuda_computes_what_the_cpu_computes(name, tmp_path):
    scores = trained(tmp_path / "cuda", name, "cuda")[1]
    here = trained(tmp_path / "cpu", name, "cpu")[1]
    np.testing.assert_allclose(scores.values, here.values, rtol=1e-4, atol=1e-4)
    assert_close(saved(tmp_path / "cuda"), saved(tmp_path / "cpu"), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", DRAWN_THERE)
def test_cuda_judges_as_the_cpu_does(name, tmp_path):
    loaded, scores = trained(tmp_path / "cuda", name, "cuda")
    assert all(value.is_cuda for value in loaded.params.values())
    source = source_of(name)
    here = registry.learner(name).load(Run.open(tmp_path / "cuda", type(tiny(name))), source)
    again = here.curve(source.fixed("test", 3), Budget(steps=1, episodes=2), seed=0)
    np.testing.assert_allclose(again.values, scores.values, rtol=1e-4, atol=1e-4)


def test_a_device_is_chosen_by_name():
    assert choose_device("cpu") == choose_device("cpu:0") == choose_device(torch.device("cpu")) == "cpu"
    assert choose_device("auto") == next(each for each in ("cuda", "mps", "cpu") if has_device(each))
    for wrong in ("abacus", "meta", "cuda:99", "cpu:x", ""):
        with pytest.raises(UserError, match="this machine has no device") as error:
            choose_device(wrong)
        assert "\n" not in str(error.value)
