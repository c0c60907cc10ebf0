"""What cannot fit into memory is refused before anything is made, and what the system refuses is said in one line."""

import dataclasses

import numpy as np
import pytest
import torch
from command_line import BANDIT, MDP, NAVIGATION, metarl, refused
from hypothesis import given
from hypothesis import strategies as st

import metarl as face
from metarl import allocator, registry
from metarl.allocator import most_memory, refusals_in_one_line
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.learning.footprint import NUMBER, check_training, dense
from metarl.nets.mlp import MLP
from metarl.nets.params import flatten
from metarl.sampling.episodes import episode_bytes
from metarl.seeding import Key

TRAIN = ["train", "maml-trpo", "--family", "metarl/Navigation2D-v0"]
HUGE = [
    [*TRAIN, "--hidden", "1000000", "1000000"],
    [*TRAIN, "--episodes", "10000000000000"],
    [*TRAIN, "--tasks", "1000000000000"],
    [*TRAIN, "--inner-steps", "1000000000"],
    ["train", "promp", "--family", NAVIGATION, "--hidden", "3000000", "3000000"],
    ["train", "rl2", "--family", BANDIT, "--pulls", "100000000"],
    ["train", "rl2", "--family", BANDIT, "--arms", "1000000000"],
    ["train", "rl2", "--family", BANDIT, "--trials", "1000000000000"],
    ["train", "rl2", "--family", MDP, "--states", "1000000"],
    ["train", "rl2", "--family", BANDIT, "--hidden", "1000000000"],
    ["train", "ppo-pretrained", "--family", NAVIGATION, "--envs", "1000000000000"],
    ["train", "ppo-scratch", "--family", NAVIGATION, "--hidden", "1000000", "1000000"],
    ["train", "maml", "--dataset", "sinusoid", "--hidden", "1000000", "1000000"],
    ["train", "maml", "--dataset", "sinusoid", "--shots", "1000000000000"],
    ["train", "protonet", "--dataset", "glyphs", "--width", "1000000000"],
    ["train", "logistic", "--dataset", "glyphs", "--minibatch", "1000000000000"],
    ["train", "reptile", "--dataset", "glyphs", "--inner-steps", "1000000000"],
]


@pytest.mark.parametrize("words", HUGE, ids=" ".join)
def test_a_number_that_cannot_fit_is_refused_before_a_folder_is_made(words, tmp_path):
    said = refused(metarl(*words, "--out", tmp_path / "run"))
    assert "memory" in said or " to 1" in said or "at most" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [2**63, -(2**63), 2**200])
def test_whole_numbers_have_64_bits(value, tmp_path):
    said = refused(metarl(*TRAIN, "--out", tmp_path / "run", f"--seed={value}"))
    assert "--seed is" in said
    with pytest.raises(UserError, match="seed is"):
        face.train("maml-trpo", NAVIGATION, out=tmp_path / "run", seed=value)
    assert list(tmp_path.iterdir()) == []


def test_python_refuses_as_the_command_line_does(tmp_path):
    with pytest.raises(UserError, match="memory"):
        face.train("maml-trpo", NAVIGATION, out=tmp_path / "run", hidden=(10**6, 10**6))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [n for n, entry in registry.agents().items() if entry.source == "family"])
def test_every_agents_estimate_is_from_below_and_grows_with_what_it_asks_for(name):
    """The committed presets fit into any machine's memory; ten thousand times wider, they fit into none's."""
    family = make_family(NAVIGATION)
    config = registry.learner(name).Config()
    small = config.footprint(family)
    wide = (64 * 10_000,) * 2 if isinstance(config.hidden, tuple) else 64 * 10_000
    large = dataclasses.replace(config, hidden=wide).footprint(family)
    assert 0 < small.bytes < 2**30 < 1000 * 2**30 < large.bytes
    check_training(config, family)


@pytest.mark.parametrize("name", [n for n, entry in registry.agents().items() if entry.source == "dataset"])
def test_every_few_shot_learner_has_an_estimate(name):
    config, glyphs = registry.learner(name).Config(), face.make_dataset("glyphs")
    assert 0 < config.footprint(glyphs).bytes < 2**30
    assert dataclasses.replace(config, width=10**6).footprint(glyphs).bytes > 1000 * 2**30


@given(st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_dense_counts_the_parameters_of_a_perceptron(widths):
    assert dense(widths) == flatten(MLP(tuple(widths)).init(Key(0).torch())).numel()


def test_episodes_take_what_is_said():
    from metarl.nets.policies import mlp_policy
    from metarl.sampling.rollout import rollout

    for family in (make_family(NAVIGATION), make_family(BANDIT, arms=3, pulls=4)):
        policy = mlp_policy(family.observation_space, family.action_space, (4,), "tanh", 1.0, 0.1)
        made = rollout(family.make_vec(family.fixed("test", 2), 3), policy, policy.init(Key(0).torch()), Key(0))
        fields = ("obs", "actions", "rewards", "terminated", "truncated", "valid")
        assert sum(getattr(made, name).nbytes for name in fields) == 6 * episode_bytes(family)


def test_a_limit_of_the_process_counts(monkeypatch):
    assert most_memory() > 2**28
    monkeypatch.setattr(allocator, "most_memory", lambda: 10 * NUMBER)
    with pytest.raises(UserError, match=r"training with [\d,]+ parameters .* there are 0\.0 GiB"):
        check_training(registry.learner("maml-trpo").Config(), make_family(NAVIGATION))


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: torch.empty(2**55),
        lambda: torch.empty(2**62, 2**62),
        lambda: torch.empty(2**70),
        lambda: np.empty(2**55),
        lambda: np.zeros((2**40, 2**40)),
        lambda: np.empty(2**70),
        lambda: bytearray(2**62),
        lambda: [0] * 2**62,
        lambda: list(range(2**65)),
        lambda: (_ for _ in ()).throw(RuntimeError("std::bad_alloc")),
        lambda: (_ for _ in ()).throw(RuntimeError("can't start new thread")),
    ],
)
def test_what_the_system_refuses_is_one_line(refuse):
    with pytest.raises(UserError, match=r"not enough memory: .+; give smaller numbers"), refusals_in_one_line():
        refuse()


@pytest.mark.parametrize("error", [UserError("mine"), ValueError("shapes"), RuntimeError("a bug"), TypeError("a bug")])
def test_other_errors_pass(error):
    with pytest.raises(type(error), match=str(error)), refusals_in_one_line():
        raise error


def test_a_family_has_no_data_to_be_elsewhere(trained, tmp_path):
    said = refused(metarl("evaluate", trained / "0", "--data-root", tmp_path))
    assert "has no data: leave --data-root out" in said


METRIC = ("protonet", "matchingnet", "r2d2", "meta-baseline")


@pytest.mark.parametrize("agent", [*METRIC, "logistic", "baseline", "baseline++", "centroid"])
def test_a_learner_of_images_wants_images(agent, tmp_path):
    said = refused(metarl("train", agent, "--dataset", "sinusoid", "--out", tmp_path / "run"))
    assert "learns from images, and sinusoid has none" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["x" * 300, "a\0b"])
def test_a_path_that_no_file_can_have_is_refused(path, tmp_path):
    for words in (["evaluate", path], ["compare", path, "--out", tmp_path / "x.svg"], [*TRAIN, "--out", path]):
        assert "is no path that can be used here" in refused(metarl(*words))
