"""A checkpoint is one of the policy that it is loaded into, or it is refused."""

import math
from dataclasses import dataclass

import pytest
import torch

from metarl.envs import make_family
from metarl.errors import UserError
from metarl.learning.loading import load_params
from metarl.nets.mlp import MLP
from metarl.nets.policies import GaussianPolicy
from metarl.runs.run import Run
from metarl.seeding import Key

FAMILY = make_family("metarl/Navigation2D-v0")
POLICY = GaussianPolicy(MLP((2, 3, 2)), min_std=0.5)


@dataclass(frozen=True)
class Config:
    iterations: int = 1


def run_with(folder, state):
    run = Run.create(folder, learner="test", config=Config(), source=FAMILY, seed=0)
    run.checkpoint(1, state)
    return Run.open(folder, Config)


def test_parameters_come_back_within_their_bounds(tmp_path):
    params = POLICY.init(Key(1).torch()) | {"log_std": torch.tensor([-3.0, 0.25])}
    loaded = load_params(run_with(tmp_path / "run", {"params": params}), POLICY, FAMILY.name)
    assert list(loaded) == list(params)
    assert all(torch.equal(loaded[name], params[name]) for name in params if name != "log_std")
    torch.testing.assert_close(loaded["log_std"], torch.tensor([math.log(0.5), 0.25]))


def test_they_may_be_anywhere_in_the_state(tmp_path):
    run = run_with(tmp_path / "run", {"policy": {"net": POLICY.init(Key(1).torch())}})
    assert set(load_params(run, POLICY, FAMILY.name, lambda state: state["policy"]["net"])) == set(
        POLICY.init(Key(0).torch())
    )


def test_a_run_without_a_checkpoint_says_what_to_do(tmp_path):
    run = Run.create(tmp_path / "run", learner="test", config=Config(), source=FAMILY, seed=0)
    with pytest.raises(UserError, match="has no checkpoint yet: train it first"):
        load_params(run, POLICY, FAMILY.name)


@pytest.mark.parametrize(
    "state",
    [
        {"params": GaussianPolicy(MLP((2, 4, 2))).init(Key(0).torch())},
        {"params": GaussianPolicy(MLP((2, 3, 3, 2))).init(Key(0).torch())},
        {"params": {name: value for name, value in POLICY.init(Key(0).torch()).items() if name != "log_std"}},
        {"params": POLICY.init(Key(0).torch()) | {"more": torch.zeros(1)}},
        torch.zeros(3),
        [1, 2],
        {"params": dict.fromkeys(POLICY.init(Key(0).torch()), 1.0)},
        {"params": [1.0]},
        {"encoder": {}},
        {},
    ],
    ids=["widths", "layers", "fewer", "more", "tensor", "bare list", "numbers", "list", "another learner's", "empty"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(tmp_path, state):
    run = run_with(tmp_path / "run", state)
    with pytest.raises(UserError, match=r"does not fit metarl/Navigation2D-v0 and its config") as error:
        load_params(run, POLICY, FAMILY.name)
    assert "\n" not in str(error.value)
