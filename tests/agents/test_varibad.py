"""VariBAD as a learner: what an iteration does, runs that are resumed, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl import registry
from metarl.agents import varibad
from metarl.agents.varibad import DEFAULTS, Config
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.learning.contract import Budget
from metarl.learning.presets import preset_for
from metarl.runs.run import Run
from metarl.seeding import Key

GRID = make_family("metarl/GridNavigation-v0", cells=3, steps=4, episodes=2)
SMALL = Config(
    iterations=3,
    trials=6,
    hidden=5,
    latent=2,
    head=(4,),
    epochs=2,
    minibatches=2,
    belief_updates=2,
    belief_trials=4,
    buffer=8,
    buffer_added=3,
    checkpoint_every=2,
)


def trained(folder, config=SMALL, family=GRID):
    run = Run.create(folder, learner="varibad", config=config, source=family, seed=3)
    varibad.train(config, family, run)
    return run


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"critic": "task", "through": True, "chunk": 3, "cut": 3, "policy_embedding": 4},
        {"state_decoder": (3,), "moments": 3, "decoded": 2, "buffer": 0, "buffer_added": 0},
    ],
)
def test_a_run_repeats_bit_for_bit_and_resumes_so(tmp_path, options):
    config = replace(SMALL, **options)
    whole = trained(tmp_path / "whole", config)
    trained(tmp_path / "parts", replace(config, iterations=2))
    resumed = Run.resume(tmp_path / "parts", learner="varibad", config=config, source=GRID, seed=3)
    varibad.train(config, GRID, resumed)
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "parts/metrics.jsonl").read_bytes()
    state, expected = resumed.restore()[1], whole.restore()[1]
    for name in ("params", "decoders", "buffer", "shown", "reward_scale"):
        assert equal(state[name], expected[name]), name
    assert equal(state["belief_optimiser"]["state"], expected["belief_optimiser"]["state"])
    assert state["buffer"]["added"] == 3 * config.buffer_added


def test_belief_and_policy_are_moved_by_their_own_optimiser_alone(tmp_path):
    """Without steps on the bound the encoder stays as it was drawn, and the policy learns all the same."""
    still = trained(tmp_path / "a", replace(SMALL, belief_updates=0)).restore()[1]
    start = varibad._policy(SMALL, varibad.Trials(family=GRID)).init(Key(3)("varibad", "init").torch())
    encoder = {f"cell.{name}" for name in ("gru", "state", "reward", "mean", "log_variance")}
    for name, value in still["params"].items():
        assert torch.equal(value, start[name]) == (name.rsplit(".", 2 if name.count(".") > 2 else 1)[0] in encoder)
    moved = trained(tmp_path / "b").restore()[1]
    assert not any(torch.equal(value, start[name]) for name, value in moved["params"].items())
    counts = {float(each["step"]) for each in moved["belief_optimiser"]["state"].values()}
    assert counts == {SMALL.iterations * SMALL.belief_updates}
    through = trained(tmp_path / "c", replace(SMALL, belief_updates=0, through=True)).restore()[1]
    assert not any(torch.equal(value, start[name]) for name, value in through["params"].items())


def test_what_the_policy_sees_is_standardised_by_all_updates_so_far(tmp_path):
    run = trained(tmp_path / "run")
    state = run.restore()[1]
    shown, params = state["shown"], state["params"]
    steps = SMALL.trials * GRID.steps * GRID.episodes
    assert shown["count"] == SMALL.iterations * steps == sum(line["episodes/steps"] for line in run.metrics())
    torch.testing.assert_close(params["cell.norm.mean"], shown["mean"].float())
    torch.testing.assert_close(params["cell.norm.deviation"], (shown["square"] / shown["count"] + 1e-8).sqrt().float())
    assert 0 < shown["mean"][0] < 2  # the cell's x, of a grid of 3


def test_its_metrics_and_its_curve(tmp_path):
    config = replace(SMALL, validate_every=1, validation_tasks=5, state_decoder=(3,))
    run = trained(tmp_path / "run", config)
    named = {f"belief/{name}" for name in ("loss", "divergence", "reward_error", "state_error")}
    for line in run.metrics():
        assert {"return/first", "return/last", "return/validation_last", "policy/approximate_kl"} | named <= set(line)
        terms = line["belief/reward_error"] + line["belief/state_error"] + config.kl_weight * line["belief/divergence"]
        assert line["belief/loss"] == pytest.approx(terms, rel=1e-4)
    scores = varibad.load(run, GRID).curve(GRID.fixed("validation", 3), Budget(1, 2), seed=0)
    assert scores.values.shape == (3, 2)
    assert (scores.env_steps, scores.gradient_steps) == ((0, 4), None)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (make_family("metarl/BernoulliBandit-v0", arms=2, pulls=1), {}),
        (make_family("metarl/Navigation2D-v0"), {"init_std": 0.5}),  # ends where a goal is reached
        (make_family("metarl/WalkerRandomParams-v0"), {"state_decoder": (4,), "reward_weight": 0.0}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_every_kind_of_family_trains_and_has_a_curve(tmp_path, family, options):
    config = replace(SMALL, iterations=1, trials=2, moments=5, decoded=5, **options)
    agent = varibad.load(trained(tmp_path / "run", config, family), family)
    assert np.isfinite(agent.curve(family.fixed("train", 2), Budget(1, 1), seed=0).values).all()


def test_presets_fit_families_and_their_checkpoints_are_small():
    learner = registry.learner("varibad")
    fits = {name: preset_for(learner, registry.make_source(name, {})) for name in registry.families()}
    assert {name: preset for name, preset in fits.items() if preset != "mujoco"} == {
        "metarl/Navigation2D-v0": "navigation",
        **dict.fromkeys([name for name in fits if "Bandit" in name or "MDP" in name or "Grid" in name], "grid"),
    }
    grid = DEFAULTS["grid"]
    kept = grid.buffer * 60 * (2 + 5 + 2) * 4
    policy = varibad._policy(grid, varibad.Trials(family=make_family("metarl/GridNavigation-v0")))
    parameters = sum(value.numel() for value in policy.init(Key(0).torch()).values())
    assert kept + 3 * 4 * parameters < 2 << 20


def test_what_does_not_fit_is_refused(tmp_path):
    run = Run.create(tmp_path / "empty", learner="varibad", config=SMALL, source=GRID, seed=0)
    with pytest.raises(UserError, match="no checkpoint yet"):
        varibad.load(run, GRID)
    with pytest.raises(UserError, match="does not fit"):
        varibad.load(trained(tmp_path / "run"), make_family("metarl/BernoulliBandit-v0"))
    for options, said in (
        ({"latent": 0}, "--latent is 0; it must be at least 1"),
        ({"buffer": 5, "buffer_added": 6}, "--buffer is 5; it must be at least 6"),
        ({"kl_weight": -1.0}, "--kl-weight is -1.0; it must be at least 0"),
        ({"belief_step_size": 0.0}, "--belief-step-size is 0.0; it must be above 0"),
        ({"trials": 3}, "--minibatches is 4; it must be at most --trials, 3"),
        ({"gae_lambda": 2.0}, "--gae-lambda is 2.0; it must be between 0 and 1"),
    ):
        with pytest.raises(UserError, match=said):
            Config(**options)
