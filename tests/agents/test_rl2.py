import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import metarl
from metarl.agents import rl2
from metarl.agents.rl2 import Config
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.evaluation.measure import measure_run
from metarl.evaluation.merging import labels
from metarl.learning import memory_adaptation, recurrent_ppo
from metarl.learning.contract import Budget
from metarl.nets.policies import MIN_STD
from metarl.ops.reward_scale import RewardScale
from metarl.registry import agent_name
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.tasks import Tasks

BANDIT = make_family("metarl/BernoulliBandit-v0", arms=3, pulls=4)
MIN_STD_LOG = float(np.log(MIN_STD))
SMALL = Config(iterations=3, halve_every=0, trials=6, hidden=5, epochs=2, minibatches=2, checkpoint_every=2, threads=1)


def trained(folder, config=SMALL, family=BANDIT):
    run = Run.create(folder, learner="rl2", config=config, source=family, seed=3)
    rl2.train(config, family, run)
    return run


def test_a_checkpoint_with_smaller_deviations_than_the_least_is_put_back(tmp_path):
    family = make_family("metarl/Navigation2D-v0")
    config = replace(SMALL, iterations=1, trials=2, trial_episodes=1)
    run = trained(tmp_path / "run", config, family)
    step, state = run.restore()
    state["params"]["log_std"].fill_(-20.0)
    agent = rl2.load(
        SimpleNamespace(device="cpu", folder=run.folder, config=config, restore=lambda: (step, state)), family
    )
    assert agent.params["log_std"].tolist() == [pytest.approx(MIN_STD_LOG)] * 2


def test_training_scales_rewards_by_all_updates_so_far_at_its_own_discount(tmp_path, monkeypatch):
    seen, honest = [], recurrent_ppo.prepare

    def spy(experience, settings, scale, *rest):
        episodes = experience.episodes
        seen.append((episodes.rewards.flatten(0, 1).double(), episodes.valid.flatten(0, 1), scale))
        return honest(experience, settings, scale, *rest)

    monkeypatch.setattr(recurrent_ppo, "prepare", spy)
    run = trained(tmp_path / "run", replace(SMALL, gamma=0.5, normalise_rewards=True))
    assert len(seen) == SMALL.iterations
    expected = RewardScale()
    for rewards, valid, scale in seen:
        expected = expected.update(rewards, valid, 0.5)
        assert scale == expected
    assert run.restore()[1]["reward_scale"] == vars(expected)


def test_a_decayed_step_size_moves_less(tmp_path):
    """After ten half-lives next to nothing happens."""
    moved = []
    for every in (0, 1):
        run = trained(tmp_path / f"{every}", replace(SMALL, iterations=11, halve_every=every, checkpoint_every=10))
        metrics = run.metrics()
        moved.append(metrics[-1]["policy/approximate_kl"])
    assert moved[1] < 0.01 * moved[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"memory": "transformer", "hidden": 4, "heads": 2, "layers": 2, "chunk": 3},
        {"normalise_rewards": True, "chunk": 3, "memory": "lstm", "layer_norm": True},
        {"memory": "mingru", "layers": 2, "token": "transition", "chunk": 3, "actor": "hypernetwork", "latent": 3},
    ],
)
def test_a_run_repeats_bit_for_bit_and_resumes_so(tmp_path, options):
    config = replace(SMALL, **options)
    once, again = trained(tmp_path / "a", config), trained(tmp_path / "b", config)
    metrics = (tmp_path / "a/metrics.jsonl").read_bytes()
    assert metrics == (tmp_path / "b/metrics.jsonl").read_bytes()
    trained(tmp_path / "c", replace(config, iterations=2))
    resumed = Run.resume(tmp_path / "c", learner="rl2", config=config, source=BANDIT, seed=3)
    rl2.train(config, BANDIT, resumed)
    assert metrics == (tmp_path / "c/metrics.jsonl").read_bytes()
    states = [run.restore()[1] for run in (once, again, resumed)]
    for state in states[1:]:
        assert all(torch.equal(state["params"][n], value) for n, value in states[0]["params"].items())
        assert state["reward_scale"] == states[0]["reward_scale"]
    moments = [state["optimiser"]["state"][0]["exp_avg"] for state in states]
    assert moments[0].any()
    assert torch.equal(moments[0], moments[2])


@pytest.mark.parametrize(
    ("family", "teacher"),
    [
        (BANDIT, "gittins"),
        (make_family("metarl/TabularMDP-v0", states=3, actions=2, steps=2, episodes=2), "online-beb"),
    ],
)
def test_lessons_come_first_and_a_run_that_stops_between_resumes_bit_for_bit(tmp_path, family, teacher):
    config = replace(SMALL, teacher=teacher, teacher_iterations=2, iterations=4, halve_every=1)
    whole = trained(tmp_path / "whole", config, family)
    lines = whole.metrics()
    assert ["teacher/log_probability" in line for line in lines] == [True, True, False, False]
    assert ["policy/surrogate" in line for line in lines] == [False, False, True, True]
    for stop in (1, 2, 3):
        trained(tmp_path / f"{stop}", replace(config, iterations=stop), family)
        resumed = Run.resume(tmp_path / f"{stop}", learner="rl2", config=config, source=family, seed=3)
        rl2.train(config, family, resumed)
        assert (tmp_path / f"{stop}/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
        state, expected = resumed.restore()[1], whole.restore()[1]
        assert all(torch.equal(state["params"][n], value) for n, value in expected["params"].items())


def test_step_size_and_bonus_halve_from_the_last_lesson_on_and_lessons_fit_whole_returns(tmp_path, monkeypatch):
    config = replace(SMALL, teacher="gittins", teacher_iterations=2, iterations=4, halve_every=1, step_size=8e-3)
    sizes, lambdas, honest_update, honest_prepare = [], [], recurrent_ppo.update, recurrent_ppo.prepare

    def updated(policy, params, optimiser, batch, now, *rest):
        sizes.append(now.step_size)
        return honest_update(policy, params, optimiser, batch, now, *rest)

    def prepared(experience, settings, *rest):
        lambdas.append(settings.gae_lambda)
        return honest_prepare(experience, settings, *rest)

    monkeypatch.setattr(recurrent_ppo, "update", updated)
    monkeypatch.setattr(recurrent_ppo, "prepare", prepared)
    trained(tmp_path / "run", config)
    assert sizes == [8e-3, 8e-3, 8e-3, 4e-3]
    assert lambdas == [1.0, 1.0, 0.3, 0.3]


def test_a_teacher_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match="--teacher is random, which gives no advice"):
        trained(tmp_path / "a", replace(SMALL, teacher="random", teacher_iterations=1))
    with pytest.raises(UserError, match="beb plays tabular MDPs, and metarl/BernoulliBandit-v0 is none"):
        trained(tmp_path / "b", replace(SMALL, teacher="beb", teacher_iterations=1))
    with pytest.raises(UserError, match="gittins plays trials of 1 episodes, not 2"):
        trained(tmp_path / "c", replace(SMALL, teacher="gittins", teacher_iterations=1, trial_episodes=2))


def test_a_hypernetwork_has_a_name_of_its_own_beside_others(tmp_path):
    """In tables and pictures; it is an option of the same learner, and its policy sees the observation alone."""
    family = make_family("metarl/Navigation2D-v0", preset="pearl")
    config = replace(SMALL, iterations=1, trials=2, trial_episodes=2)
    runs = [trained(tmp_path / "head", config, family)]
    runs += [trained(tmp_path / "made", replace(config, actor="hypernetwork", latent=3, base=(4,)), family)]
    curves = [measure_run(run.folder, tasks=2, budget=Budget(0, 1)) for run in runs]
    assert [curve.agent for curve in curves] == labels(curves) == ["rl2", "rl2-hypernetwork"]
    agent = metarl.load(runs[1].folder)
    assert agent.policy.hypernetwork.policy.sizes == (2, 4, 2)
    assert metarl.measure(agent, tasks=2, steps=0, episodes=1).agent == "rl2-hypernetwork"
    assert Run.open(runs[1].folder).learner == "rl2"
    assert [agent_name(Run.open(run.folder)) for run in runs] == ["rl2", "rl2-hypernetwork"]


def test_runs_of_old_load_and_go_on(tmp_path):
    """A config of before memories had names of their own: its layer was its `cell`, and nothing had heads."""
    config = replace(SMALL, memory="lstm")
    whole = trained(tmp_path / "whole", config)
    old = trained(tmp_path / "old", replace(config, iterations=2))
    record = json.loads((old.folder / "config.json").read_text())
    record["config"]["cell"] = record["config"].pop("memory")
    for name in ("heads", "layers", "teacher", "teacher_iterations", "inputs", "token", "actor", "latent", "base"):
        del record["config"][name]
    (old.folder / "config.json").write_text(json.dumps(record))
    assert Run.open(old.folder, Config).config == replace(config, iterations=2)
    with pytest.raises(UserError, match=r"config\.memory is 'lstm' there and 'gru' here"):
        Run.resume(old.folder, learner="rl2", config=SMALL, source=BANDIT, seed=3)
    rl2.train(config, BANDIT, Run.resume(old.folder, learner="rl2", config=config, source=BANDIT, seed=3))
    assert (old.folder / "metrics.jsonl").read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()


def test_training_takes_fresh_tasks_and_the_settings_of_each_iteration(tmp_path, monkeypatch):
    config = replace(SMALL, step_size=8e-3, entropy_weight=0.4, halve_every=1)
    tasks, settings, honest_run, honest_update = [], [], rl2.run_trials, recurrent_ppo.update

    def acted(env, *rest, **options):
        tasks.append(env.tasks.arrays["mean"].tolist())
        return honest_run(env, *rest, **options)

    def updated(policy, params, optimiser, batch, now, *rest):
        group = optimiser.param_groups[0]
        settings.append((group["lr"], now.entropy_weight, group["eps"]))
        return honest_update(policy, params, optimiser, batch, now, *rest)

    monkeypatch.setattr(rl2, "run_trials", acted)
    monkeypatch.setattr(recurrent_ppo, "update", updated)
    trained(tmp_path / "run", config)
    assert len({tuple(map(tuple, means)) for means in tasks}) == 3
    assert settings == [pytest.approx((8e-3 / 2**i, 0.4 / 2**i, 1e-5)) for i in range(3)]


def test_training_changes_every_parameter_and_logs_its_diagnostics(tmp_path):
    config = replace(SMALL, validate_every=1, validation_tasks=5, embedding=4, head=(3,), layer_norm=True)
    run = trained(tmp_path / "run", config)
    policy = rl2.load(run, BANDIT).policy
    start = policy.init(Key(3)("rl2", "init").torch())
    assert all(not torch.equal(start[n], value) for n, value in run.restore()[1]["params"].items())
    policy_metrics = {f"policy/{n}" for n in ("approximate_kl", "clip_fraction", "entropy", "gradient_norm")}
    for line in run.metrics():
        assert {"value/explained_variance", "return/trial", "return/validation_trial"} | policy_metrics <= set(line)
        assert line["episodes/unstable"] == 0
        assert line["episodes/steps"] == SMALL.trials * BANDIT.pulls
        assert 0 <= line["return/trial"] <= BANDIT.pulls


@pytest.mark.parametrize(
    ("family", "options", "trial_episodes", "axis"),
    [
        (BANDIT, {}, 0, (0,)),
        (BANDIT, {}, 3, (0, 4, 8)),
        (make_family("metarl/TabularMDP-v0", states=3, actions=2, steps=4, episodes=3), {}, 0, (0, 4, 8)),
        (make_family("metarl/GridNavigation-v0"), {}, 2, (0, 15)),
        (make_family("metarl/Navigation2D-v0"), {"head": (4,), "normalise_rewards": True}, 0, (0, 100)),
        (make_family("metarl/WalkerRandomParams-v0"), {"embedding": 4, "chunk": 50}, 0, (0, 200)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_kind_of_family_trains_and_has_a_curve(tmp_path, family, options, trial_episodes, axis):
    config = replace(SMALL, iterations=1, trials=2, trial_episodes=trial_episodes, **options)
    agent = rl2.load(trained(tmp_path / "run", config, family), family)
    tasks = family.fixed("train", 3)
    scores = agent.curve(tasks, Budget(steps=1, episodes=2), seed=0)
    assert scores.values.shape == (3, len(axis))
    assert np.isfinite(scores.values).all()
    assert (scores.regret is None) == (family is not BANDIT)
    if scores.regret is not None:
        assert scores.regret.shape == (3, len(axis) * BANDIT.pulls)
        assert (scores.regret >= 0).all()
    assert (scores.gradient_steps, scores.shots, scores.kind) == (None, None, "return")
    assert scores.env_steps == axis or (family.name == "metarl/WalkerRandomParams-v0" and scores.env_steps < axis)
    assert np.array_equal(scores.values, agent.curve(tasks, Budget(1, 2), seed=0).values)
    assert not np.array_equal(scores.values, agent.curve(tasks, Budget(1, 2), seed=1).values)


def test_a_curve_counts_the_steps_of_the_episodes_before():
    """An episode of navigation ends at its goal: the second goal is where it begins, so it ends with every step."""
    family = make_family("metarl/Navigation2D-v0")
    config = replace(SMALL, trial_episodes=3)
    policy = rl2._policy(config, rl2._trials(config, family))
    params = {name: torch.zeros_like(value) for name, value in policy.init(Key(0).torch()).items()}
    agent = replace(rl2._agent(config, family, policy, params), likeliest=True)  # stands still
    tasks = Tasks({"goal": [[0.4, 0.4], [0.0, 0.0]]})
    scores = agent.curve(tasks, Budget(0, 2), seed=0)
    assert scores.env_steps == (0, 50, 101)  # means of 100 and 1 (50.5), and of 200 and 2
    assert agent.act(tasks, 2, Key(0)).steps().tolist() == [[[100] * 3] * 2, [[1] * 3] * 2]


def test_a_curve_does_not_depend_on_how_much_is_held_at_once(tmp_path, monkeypatch):
    agent = rl2.load(trained(tmp_path / "run"), BANDIT)
    tasks, budget = BANDIT.fixed("test", 6), Budget(0, 3)
    whole = agent.curve(tasks, budget, 0).values
    monkeypatch.setattr(memory_adaptation, "EVALUATION_STEPS", 2 * 3 * 4)
    parts = agent.curve(tasks, budget, 0).values
    assert np.array_equal(whole, parts)


def test_what_does_not_fit_is_refused(tmp_path):
    run = Run.create(tmp_path / "empty", learner="rl2", config=SMALL, source=BANDIT, seed=0)
    with pytest.raises(UserError, match="no checkpoint yet"):
        rl2.load(run, BANDIT)
    with pytest.raises(UserError, match="does not fit"):
        rl2.load(trained(tmp_path / "run"), make_family("metarl/BernoulliBandit-v0", arms=4, pulls=4))
    with pytest.raises(UserError, match=r"--gae-lambda is 1.5; it must be between 0 and 1"):
        Config(gae_lambda=1.5)
    with pytest.raises(UserError, match=r"--minibatches is 10; it must be at most --trials"):
        Config(trials=5)
    with pytest.raises(UserError, match=r"--memory is 'grue'; choose from gru, lstm, mingru, transformer"):
        Config(memory="grue")
    with pytest.raises(UserError, match=r"--layers is for transformer and mingru; --memory gru is one layer"):
        Config(layers=2)
    for memory in ("mingru", "mine:Memory"):
        with pytest.raises(UserError, match=rf"--heads is a transformer's; --memory {memory} has none"):
            Config(heads=8, memory=memory)
    with pytest.raises(UserError, match=r"--token is for memories of metarl; mine:Memory is yours"):
        Config(memory="mine:Memory", token="transition")
    for options in ({"latent": 5}, {"base": (8,)}):
        with pytest.raises(UserError, match=r"--latent and --base are a hypernetwork's; say --actor hypernetwork"):
            Config(**options)
    with pytest.raises(UserError, match=r"--encoder is mine:Net and --embedding is 0; say how wide"):
        Config(encoder="mine:Net")
    with pytest.raises(UserError, match=r"--encoder is 'net'; name your own as"):
        Config(encoder="net", embedding=4)
    with pytest.raises(UserError, match=r"--hidden is 65; a transformer's is a multiple of --heads, 4"):
        Config(memory="transformer", hidden=65)
    with pytest.raises(UserError, match=r"--trial-episodes is -1; it must be at least 0"):
        Config(trial_episodes=-1)


class Brought(torch.nn.Module):
    """A user's memory: a leaky sum."""

    def __init__(self, inputs, hidden, length):
        super().__init__()
        self.features = hidden
        self.enter = torch.nn.Linear(inputs, hidden)

    def start(self, n):
        return torch.zeros(n, self.features)

    def step(self, x, state):
        state = 0.5 * state + torch.tanh(self.enter(x))
        return state, state

    def sequence(self, x, state):
        out = []
        for moment in x:
            state = self.step(moment, state)[0]
            out.append(state)
        return torch.stack(out), state


def test_a_users_memory_and_encoder_train_and_are_loaded(tmp_path, monkeypatch):
    module = ModuleType("brought")
    module.Leaky, module.Encoder = (
        Brought,
        lambda inputs, outputs: torch.nn.Sequential(torch.nn.Linear(inputs, outputs)),
    )
    monkeypatch.setitem(sys.modules, "brought", module)
    config = replace(SMALL, memory="brought:Leaky", encoder="brought:Encoder", embedding=4, iterations=1, chunk=3)
    run = trained(tmp_path / "run", config)
    agent = rl2.load(Run.open(run.folder, Config), BANDIT)
    start, theirs = agent.policy.init(Key(3)("rl2", "init").torch()), {"cell.enter.weight", "embedding.0.weight"}
    assert start.keys() == agent.params.keys() >= theirs
    assert not any(torch.equal(start[name], agent.params[name]) for name in theirs)
    assert np.isfinite(agent.curve(BANDIT.fixed("test", 3), Budget(0, 2), 0).values).all()
