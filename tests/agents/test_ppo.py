"""The three baselines by Stable-Baselines3's PPO: their maths, their files, and every family."""

import json
import math
import pickle
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import stable_baselines3.common.save_util
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from metarl.agents import ppo_oracle, ppo_pretrained, ppo_scratch
from metarl.envs import FAMILIES, make_family
from metarl.envs.wrappers.task_observed import TaskObserved
from metarl.errors import UserError
from metarl.integrations import sb3_ppo as ppo
from metarl.integrations.sb3_env import SB3VecEnv
from metarl.learning.contract import Budget
from metarl.learning.fine_tuning import fingerprint
from metarl.nets.distributions import Categorical
from metarl.runs.loop import Interrupted
from metarl.runs.run import Run
from metarl.seeding import Key

NAVIGATION = make_family("metarl/Navigation2D-v0", "pearl")
TINY_PPO = {"iterations": 1, "envs": 2, "epochs": 1, "minibatches": 1, "hidden": (8,), "checkpoint_every": 1}
TINY_CHOICE = {"step_sizes": (0.05, 0.5), "validation_tasks": 2, "adaptation_steps": 1, "adaptation_episodes": 2}
AGENTS = {
    "ppo-pretrained": (ppo_pretrained, TINY_PPO | TINY_CHOICE),
    "ppo-scratch": (ppo_scratch, {"hidden": (8,)} | TINY_CHOICE),
    "ppo-oracle": (ppo_oracle, TINY_PPO),
}


def trained(agent, folder, family=NAVIGATION, seed=0, **changes):
    """A run of an agent, trained."""
    module, settings = AGENTS[agent]
    config = module.Config(**(settings | changes))
    run = Run.create(folder, learner=agent, config=config, source=family, seed=seed)
    module.train(config, family, run)
    return Run.open(folder, module.Config)


def loaded(agent, folder, family=NAVIGATION):
    module, _ = AGENTS[agent]
    return module.load(Run.open(folder, module.Config), family)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_acts_in_every_family(agent, name, tmp_path):
    family = make_family(name)
    trained(agent, tmp_path / "run", family)
    scores = loaded(agent, tmp_path / "run", family).curve(family.fixed("test", 2), Budget(1, 2), seed=0)
    assert scores.values.shape == (2, 2)
    assert np.isfinite(scores.values).all()
    assert scores.kind == "return"
    if agent == "ppo-oracle":
        assert scores.env_steps is None
    else:
        assert scores.env_steps[0] < scores.env_steps[1] <= 2 * family.horizon  # robots fall


# Our policy is Stable-Baselines3's


@pytest.mark.parametrize(
    "name", ["metarl/Navigation2D-v0", "metarl/HalfCheetahVelocity-v0", "metarl/GridNavigation-v0"]
)
@pytest.mark.parametrize(("hidden", "activation"), [((8, 5), "tanh"), ((6,), "relu")])
def test_our_policy_is_the_actor_of_stable_baselines3(name, hidden, activation):
    family = make_family(name)
    config = ppo.Config(envs=2, minibatches=2, hidden=hidden, activation=activation, init_std=0.7)
    vec = VecNormalize(SB3VecEnv(family.make_vec(family.fixed("train", 2))), norm_obs=False)
    model = ppo.make_model(config, vec, family.horizon, "cpu")
    with torch.no_grad():
        for i, parameter in enumerate(model.policy.parameters()):  # the initial last layer is nearly 0
            parameter.add_(torch.from_numpy(0.3 * Key(0)(i).numpy().standard_normal(tuple(parameter.shape))))
    obs = Key(1).numpy().standard_normal((7, *family.observation_space.shape))
    policy, params = config.policy(family), config.params(model.policy.state_dict())
    ours = policy.distribution(params, torch.from_numpy(obs).float())
    theirs = model.policy.get_distribution(torch.from_numpy(obs))
    actions = theirs.sample()
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    chosen, _ = model.predict(obs, deterministic=True)
    mode = ours.mode().numpy()
    np.testing.assert_allclose(
        mode if isinstance(ours, Categorical) else mode.clip(-1, 1), chosen, rtol=1e-5, atol=1e-6
    )
    assert {name: value.shape for name, value in policy.init(torch.Generator()).items()} == {
        name: value.shape for name, value in params.items()
    }


def test_rollouts_have_the_log_probabilities_of_our_policy_for_actions_beyond_the_bound_too():
    config = ppo.Config(envs=4, minibatches=4, init_std=2.0)
    vec = VecNormalize(SB3VecEnv(NAVIGATION.make_vec(NAVIGATION.fixed("train", 4))), norm_obs=False)
    model = ppo.make_model(config, vec, NAVIGATION.horizon, "cpu")
    params = config.params(model.policy.state_dict())
    ppo.iterate(model, vec, config, Key(0))
    kept = model.rollout_buffer  # of the policy before the update
    obs, actions = torch.from_numpy(kept.observations).float(), torch.from_numpy(kept.actions)
    assert (actions.abs() > 1).any()
    ours = config.policy(NAVIGATION).distribution(params, obs).log_prob(actions)
    torch.testing.assert_close(ours.flatten(), torch.from_numpy(kept.log_probs).flatten(), rtol=1e-4, atol=1e-5)


# Training


def test_training_repeats_and_goes_on_where_it_stopped(tmp_path):
    whole = trained("ppo-oracle", tmp_path / "whole", iterations=3)
    trained("ppo-oracle", tmp_path / "parts", iterations=1)
    np.random.random(7)  # noqa: NPY002 - what ran in between must not matter
    torch.rand(7)
    config = ppo_oracle.Config(**TINY_PPO | {"iterations": 3})
    resumed = Run.resume(tmp_path / "parts", learner="ppo-oracle", config=config, source=NAVIGATION, seed=0)
    ppo_oracle.train(config, NAVIGATION, resumed)
    assert resumed.metrics() == whole.metrics()
    one, other = whole.restore()[1], resumed.restore()[1]
    assert all(torch.equal(value, other["policy"][name]) for name, value in one["policy"].items())
    assert one["reward_scale"] == other["reward_scale"]
    assert trained("ppo-oracle", tmp_path / "other", seed=1).metrics() != whole.metrics()[:1]


def test_every_setting_reaches_stable_baselines3(tmp_path, monkeypatch):
    settings = {
        "gamma": 0.7,
        "gae_lambda": 0.6,
        "clip": 0.33,
        "entropy_weight": 0.02,
        "value_weight": 0.9,
        "max_gradient_norm": 0.25,
        "epochs": 3,
        "step_size": 7e-4,
        "init_std": 0.8,
        "minibatches": 2,
        "hidden": (8, 6),
    }
    made, plain = [], ppo.iterate

    def iterate(model, vec, *rest):
        made.append((model, vec))
        assert model.policy.log_std.exp().tolist() == pytest.approx([0.8, 0.8])
        return plain(model, vec, *rest)

    monkeypatch.setattr(ppo, "iterate", iterate)
    trained("ppo-oracle", tmp_path / "run", **settings)
    ((model, vec),) = made
    assert (model.gamma, model.gae_lambda, model.clip_range(1.0)) == (0.7, 0.6, 0.33)
    assert (model.ent_coef, model.vf_coef, model.max_grad_norm, model.n_epochs) == (0.02, 0.9, 0.25, 3)
    assert model.policy.optimizer.param_groups[0]["lr"] == 7e-4
    assert (model.n_steps, model.batch_size) == (20, 20)  # an episode of 20 steps in two environments, in halves
    assert (vec.gamma, vec.norm_reward, vec.norm_obs) == (0.7, True, False)


def test_training_leaves_the_global_generators_as_they_were(tmp_path):
    numpys, torchs = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 - what is tested
    trained("ppo-pretrained", tmp_path / "run")
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002 - what is tested
    assert torch.equal(torch.get_rng_state(), torchs)


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path, monkeypatch):
    config = ppo_pretrained.Config(**TINY_PPO | TINY_CHOICE | {"iterations": 3, "checkpoint_every": 100})
    run = Run.create(tmp_path / "run", learner="ppo-pretrained", config=config, source=NAVIGATION, seed=0)
    plain, calls = ppo.iterate, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return plain(*args)

    monkeypatch.setattr(ppo, "iterate", interrupted)
    with pytest.raises(Interrupted):
        ppo_pretrained.train(config, NAVIGATION, run)
    with pytest.raises(UserError, match="train it to its end"):
        loaded("ppo-pretrained", tmp_path / "run")
    again = Run.resume(tmp_path / "run", learner="ppo-pretrained", config=config, source=NAVIGATION, seed=0)
    ppo_pretrained.train(config, NAVIGATION, again)
    assert [row["iteration"] for row in again.metrics()] == [0, 1, 2]
    assert len(calls) == 3
    assert loaded("ppo-pretrained", tmp_path / "run").step_size in config.step_sizes


def test_diagnostics_are_logged(tmp_path):
    (row,) = trained("ppo-pretrained", tmp_path / "run").metrics()
    names = {"policy/approximate_kl", "policy/clip_fraction", "policy/entropy", "policy/std", "return/mean"}
    assert names | {"value/explained_variance", "value/loss"} <= row.keys()
    assert all(math.isfinite(value) for value in row.values())
    assert row["return/mean"] < 0
    assert row["episodes/steps"] == TINY_PPO["envs"] * NAVIGATION.horizon


def test_the_deviation_keeps_above_its_floor(tmp_path):
    settings = {"seed": 2, "init_std": 0.5, "iterations": 3, "step_size": 0.05}
    run = trained("ppo-oracle", tmp_path / "run", min_std=0.5, **settings)
    assert run.restore()[1]["policy"]["log_std"].exp().min() >= 0.5 - 1e-6
    free = trained("ppo-oracle", tmp_path / "free", **settings)  # which falls below it
    assert free.restore()[1]["policy"]["log_std"].exp().min() < 0.5 - 1e-6


def test_a_checkpoint_with_smaller_deviations_than_the_least_is_put_back(tmp_path):
    run = trained("ppo-oracle", tmp_path / "run", min_std=0.5)
    step, state = run.restore()
    state["policy"]["log_std"].fill_(-3.0)
    old = SimpleNamespace(device="cpu", folder=run.folder, restore=lambda: (step, state))
    params = ppo.load_actor(old, run.config, TaskObserved(family=NAVIGATION))
    assert params["log_std"].exp().tolist() == [pytest.approx(0.5)] * 2


def test_nothing_is_ever_pickled_by_stable_baselines3(tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a pickle was touched")

    plain_load = torch.load

    def careful_load(*args, **kwargs):
        assert kwargs["weights_only"] is True
        return plain_load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", careful_load)
    monkeypatch.setattr(PPO, "load", never)
    monkeypatch.setattr(PPO, "save", never)
    monkeypatch.setattr(stable_baselines3.common.save_util, "load_from_zip_file", never)
    for name in ("load", "loads", "dumps"):
        monkeypatch.setattr(pickle, name, never)
    for agent in AGENTS:
        trained(agent, tmp_path / agent)
        loaded(agent, tmp_path / agent).curve(NAVIGATION.fixed("test", 1), Budget(0, 1), 0)
        kinds = {type(value) for value in flat_values(Run.open(tmp_path / agent).restore()[1])}
        assert kinds <= {torch.Tensor, int, float, bool, type(None)}


def flat_values(state):
    if isinstance(state, dict):
        state = list(state.values())
    return [leaf for item in state for leaf in flat_values(item)] if isinstance(state, (list, tuple)) else [state]


# Fine-tuning


@pytest.mark.parametrize("agent", ["ppo-pretrained", "ppo-scratch"])
def test_the_step_size_is_the_best_on_validation_tasks(agent, tmp_path):
    run = trained(agent, tmp_path / "run", step_sizes=(0.001, 50.0, 1.0), validation_tasks=5, adaptation_episodes=10)
    choice = run.recall("fine_tuning")
    means = [row[1] for row in choice["validation"]]
    assert choice["step_size"] == choice["step_sizes"][int(np.argmax(means))]
    agent_ = loaded(agent, tmp_path / "run")
    assert agent_.step_size == choice["step_size"]
    assert choice["params"] == fingerprint(agent_.params)
    again = agent_.curve(NAVIGATION.fixed("validation", 5), Budget(1, 10), seed=0).values.mean(0)
    assert again == pytest.approx(choice["validation"][int(np.argmax(means))])


def test_scratch_starts_at_random_with_the_seed_of_the_run(tmp_path):
    one, two = (loaded("ppo-scratch", trained("ppo-scratch", tmp_path / f"{s}", seed=s).folder) for s in (0, 1))
    assert (one.params["0.weight"] != two.params["0.weight"]).any()
    assert one.params["1.weight"].abs().max() < 0.02
    assert one.params["log_std"].tolist() == [0.0, 0.0]


def test_a_run_without_its_step_size_is_not_measured(tmp_path):
    folder = trained("ppo-pretrained", tmp_path / "run").folder
    record = json.loads((folder / "config.json").read_text())
    record["choices"]["fine_tuning"]["params"] = "of an earlier checkpoint"
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="train it to its end"):
        loaded("ppo-pretrained", folder)


def test_a_checkpoint_of_another_family_is_refused(tmp_path):
    trained("ppo-oracle", tmp_path / "run")
    with pytest.raises(UserError, match="does not fit metarl/TaskObserved"):
        loaded("ppo-oracle", tmp_path / "run", make_family("metarl/HalfCheetahVelocity-v0"))


def test_the_oracle_is_told_the_task(tmp_path):
    oracle = loaded("ppo-oracle", trained("ppo-oracle", tmp_path / "run").folder)
    size = NAVIGATION.observation_space.shape[0]
    assert oracle.params["0.weight"].shape[0] == size + 2
    scores = oracle.curve(NAVIGATION.fixed("test", 3), Budget(2, 2), seed=0)
    assert scores.gradient_steps is None
    assert len(np.unique(scores.values)) == 9, "every score is of fresh episodes"


@pytest.mark.parametrize("agent", AGENTS)
def test_the_robots_config_takes_4000_steps_a_gradient_step(agent):
    module, _ = AGENTS[agent]
    config = module.DEFAULTS["mujoco"]
    assert isinstance(config, module.Config)
    if agent != "ppo-oracle":
        assert config.adaptation_episodes * make_family("metarl/HalfCheetahVelocity-v0").horizon == 4000


@pytest.mark.parametrize(
    ("agent", "given", "message"),
    [
        ("ppo-oracle", {"envs": 0}, "--envs is 0; it must be at least 1"),
        ("ppo-oracle", {"gae_lambda": 2.0}, "--gae-lambda is 2.0; it must be between 0 and 1"),
        ("ppo-oracle", {"init_std": 0.0}, "--init-std is 0.0; it must be above 0"),
        ("ppo-oracle", {"init_std": 0.1, "min_std": 0.2}, "--init-std is 0.1; it must be at least --min-std, 0.2"),
        ("ppo-oracle", {"hidden": (0,)}, "--hidden"),
        ("ppo-pretrained", {"step_sizes": ()}, "--step-sizes is empty"),
        ("ppo-pretrained", {"step_sizes": (0.1, 0.0)}, "--step-sizes"),
        ("ppo-pretrained", {"adaptation_steps": 0}, "--adaptation-steps is 0; it must be at least 1"),
        ("ppo-pretrained", {"entropy_weight": -1.0}, "--entropy-weight is -1.0; it must be at least 0"),
        ("ppo-scratch", {"iterations": 2}, "--iterations is 2; it must be between 1 and 1"),
        ("ppo-scratch", {"adaptation_gamma": 1.5}, "--adaptation-gamma is 1.5; it must be between 0 and 1"),
    ],
)
def test_bad_options_are_refused(agent, given, message):
    with pytest.raises(UserError, match=message):
        AGENTS[agent][0].Config(**given)
