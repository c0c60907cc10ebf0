from dataclasses import replace

import numpy as np
import pytest
import torch

import metarl
from metarl.agents import pearl
from metarl.agents.pearl import Config
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.learning import latent_adaptation
from metarl.learning.contract import Budget
from metarl.learning.latent_adaptation import LatentAgent
from metarl.learning.latent_collection import collect
from metarl.runs.run import Run
from metarl.seeding import Key

FAMILY = make_family("metarl/Navigation2D-v0", preset="pearl")  # 20 steps, luck in the start
STILL = make_family("metarl/Navigation2D-v0")  # begins at 0, ends at the goal; 100 steps
SMALL = Config(
    iterations=3,
    tasks=4,
    collect_tasks=2,
    initial_episodes=1,
    gradient_steps=2,
    meta_batch=2,
    capacity=90,
    hidden=(6,),
    encoder_hidden=(5,),
    checkpoint_every=2,
)


def trained(folder, config=SMALL, family=FAMILY):
    run = Run.create(folder, learner="pearl", config=config, source=family, seed=3)
    pearl.train(config, family, run)
    return run


def agent_of(family, config=SMALL, scale=3.0):
    networks = config.networks(family)
    return LatentAgent(networks, {n: v * scale for n, v in networks.init(Key(0).torch()).items()}, family)


@pytest.mark.parametrize("options", [{}, {"posterior_context": True, "posterior_episodes": 1, "validate_every": 2}])
def test_a_run_repeats_bit_for_bit_and_resumes_so(tmp_path, options):
    """The rings are full and have gone round by the end."""
    config = replace(SMALL, validation_tasks=2, **options)
    whole, again = trained(tmp_path / "a", config), trained(tmp_path / "b", config)
    metrics = (tmp_path / "a/metrics.jsonl").read_bytes()
    assert metrics == (tmp_path / "b/metrics.jsonl").read_bytes()
    for stop in (1, 2):
        trained(tmp_path / f"{stop}", replace(config, iterations=stop))
        resumed = Run.resume(tmp_path / f"{stop}", learner="pearl", config=config, source=FAMILY, seed=3)
        pearl.train(config, FAMILY, resumed)
        assert metrics == (tmp_path / f"{stop}/metrics.jsonl").read_bytes()
        state, expected = resumed.restore()[1], whole.restore()[1]
        assert all(state["params"][name].equal(value) for name, value in expected["params"].items())
        assert all(state["replay"][name].equal(value) for name, value in expected["replay"].items())
        moments = [each["optimisers"]["critic"]["state"][0]["exp_avg"] for each in (state, expected)]
        assert moments[0].any()
        assert moments[0].equal(moments[1])
    assert again.restore()[1]["replay"]["added"].max() > config.capacity


def test_every_step_is_counted_and_checkpoints_of_small_runs_are_small(tmp_path):
    run = trained(tmp_path / "run", replace(SMALL, capacity=10_000))
    steps = [line["episodes/steps"] for line in run.metrics()]
    each = 2 * (2 + 2) * 20
    assert steps == [4 * 20 + each, each, each]
    state = run.restore()[1]
    assert state["replay"]["added"].sum() == sum(steps) * 19 / 20  # the last steps led nowhere that was recorded
    [*_, last] = sorted((run.folder / "checkpoints").glob("*.pt"))
    assert last.stat().st_size < 100_000


def test_what_broke_in_the_first_collection_is_counted(tmp_path, monkeypatch):
    """It is the largest: every task is visited once, then some again."""

    def broken(*args, **options):
        return collect(*args, **options) | {"episodes/unstable": 1}

    monkeypatch.setattr(pearl, "collect", broken)
    run = trained(tmp_path / "run", replace(SMALL, iterations=2))
    assert [line["episodes/unstable"] for line in run.metrics()] == [2, 1]


def test_what_nobody_asks_for_is_not_inferred(monkeypatch):
    agent, inferred = agent_of(FAMILY), []
    infer = LatentAgent.infer
    monkeypatch.setattr(LatentAgent, "infer", lambda self, episodes: inferred.append(1) or infer(self, episodes))
    tasks = FAMILY.sample(2, Key(1).numpy())
    for episodes, passes in (((1, 0), 0), ((1, 1), 1)):
        inferred.clear()
        collect(agent, SMALL.replay(FAMILY), tasks, np.arange(2), episodes, Key(2))
        assert len(inferred) == passes
    inferred.clear()
    agent.curve(tasks, Budget(2, 1), 0)
    assert len(inferred) == 2


def test_collecting_renews_the_context_of_the_visited_tasks_alone():
    config = replace(SMALL, capacity=200)
    agent, replay, tasks = agent_of(FAMILY), config.replay(FAMILY), FAMILY.sample(4, np.random.default_rng(0))
    collect(agent, replay, tasks, np.arange(4), (1, 0), Key(1))
    first = replay.state()
    assert first["context"].tolist() == [[0, 19]] * 4
    metrics = collect(agent, replay, tasks, np.array([2, 0]), (2, 3), Key(2))
    state = replay.state()
    assert state["added"].tolist() == [19 + 5 * 19, 19, 19 + 5 * 19, 19]
    assert state["context"].tolist() == [[19, 57], [0, 19], [19, 57], [0, 19]]  # the two of the prior
    assert metrics["episodes/steps"] == 2 * 5 * 20
    collect(agent, replay, tasks, np.array([1]), (2, 3), Key(3), posterior_context=True)
    assert replay.state()["context"][1].tolist() == [19, 19 + 5 * 19]
    collect(agent, replay, tasks, np.array([3]), (1, 1), Key(4))
    own = replay._rows[3, 19:57, :2]
    assert not own[:19].equal(own[19:])  # other luck


def test_the_posterior_acts_by_all_that_the_prior_has_seen():
    """Scores of the same episodes whatever the batch; after one, z is inferred from it."""
    agent, tasks = agent_of(STILL), STILL.fixed("test", 3)
    scores = agent.curve(tasks, Budget(2, 4), seed=1)
    assert scores.values.shape == (3, 3)
    assert (scores.gradient_steps, scores.shots) == (None, None)
    assert scores.env_steps == (0, 100, 200)
    assert len(np.unique(scores.values.round(6))) == 9
    part = agent.curve(tasks[1:2], Budget(1, 4), seed=1)
    np.testing.assert_allclose(part.values[0], scores.values[1, :2], rtol=1e-5)
    # By hand: the second episode from the first's context.
    env = STILL.make_vec(tasks, 4)
    key = Key(1)(latent_adaptation.STREAM, "evaluate")
    first = agent.episode(env, agent.nothing(3, 4), key(0))
    known = agent.infer(first)
    second = agent.episode(env, known, key(1))
    np.testing.assert_array_equal(second.returns().mean(1).numpy(), scores.values[:, 1])
    assert not known.mean.allclose(torch.zeros(()))


def test_chunks_give_the_same_curve(monkeypatch):
    agent, tasks = agent_of(FAMILY), FAMILY.fixed("test", 5)
    whole = agent.curve(tasks, Budget(2, 2), 0)
    monkeypatch.setattr(latent_adaptation, "EVALUATION_STEPS", 2 * 2 * 20)
    np.testing.assert_allclose(agent.curve(tasks, Budget(2, 2), 0).values, whole.values, rtol=1e-5)


def test_steps_of_episodes_that_end_early_are_counted_as_they_are():
    agent = replace(agent_of(STILL), likeliest=True)
    agent.params["policy.1.weight"].zero_()  # stands still, at the goal
    tasks = type(STILL.fixed("test", 1))({"goal": [[0.0, 0.0], [0.5, 0.5]]})
    assert agent.curve(tasks, Budget(2, 3), 0).env_steps == (0, 50, 101)  # means of 1 and 100, rounded


@pytest.mark.parametrize("where", ["task", "environment"])
def test_adapting_collects_episodes_and_acts_by_one_vector(where):
    agent, task = agent_of(FAMILY), FAMILY.fixed("test", 2)[1]
    adapted = agent.adapt(task if where == "task" else FAMILY.make(task), steps=3, seed=2)
    assert (adapted.steps, adapted.env_steps, len(adapted.returns)) == (3, 60, 3)
    assert agent.adapt(task, seed=2).steps == 2
    assert agent.adapt(task, steps=3, seed=2).z.equal(adapted.z)
    assert not agent.adapt(task, steps=0).z.equal(adapted.z)
    obs = np.array([[0.2, -0.4], [0.5, 0.1]])
    both, state = adapted.predict(obs, deterministic=True)
    assert state is None
    np.testing.assert_allclose(both[1], adapted.predict(obs[1], deterministic=True)[0], rtol=1e-5)
    assert FAMILY.action_space.contains(adapted.predict(obs[0])[0])
    assert not np.array_equal(adapted.predict(obs[0])[0], adapted.predict(obs[0])[0])
    before, _ = agent.predict(obs[0], deterministic=True)
    assert FAMILY.action_space.contains(before)


def test_it_is_filmed_before_and_after():
    first, last = agent_of(FAMILY).film(FAMILY.fixed("test", 1), Budget(2, 1), 0)
    assert first.title.startswith("by the prior")
    assert last.title.startswith("after 2 episodes")
    assert len(first.frames) == len(last.frames) == 21


def test_a_checkpoint_of_another_family_is_refused(tmp_path):
    run = trained(tmp_path / "run", replace(SMALL, iterations=1))
    assert isinstance(metarl.load(run.folder), LatentAgent)
    with pytest.raises(UserError, match="does not fit"):
        pearl.load(run, make_family("metarl/HalfCheetahVelocity-v0"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"collect_tasks": 0}, "--collect-tasks is 0; it must be at least 1"),
        ({"meta_batch": 0}, "--meta-batch is 0; it must be at least 1"),
        ({"gamma": 1.5}, "--gamma is 1.5; it must be between 0 and 1"),
        ({"target_rate": 0.0}, "--target-rate is 0.0; it must be above 0, at most 1"),
        ({"hidden": (3, 0)}, r"--hidden is \(3, 0\); it must be at least 1"),
        ({"kl_weight": float("nan")}, "--kl-weight is nan"),
    ],
)
def test_settings_out_of_range_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        replace(SMALL, **options)


def test_problems_that_it_is_not_made_for_are_refused(tmp_path):
    bandit = make_family("metarl/BernoulliBandit-v0", arms=3, pulls=4)
    with pytest.raises(UserError, match=r"pearl acts in a Box, and actions of .* are Discrete"):
        trained(tmp_path / "a", family=bandit)
    with pytest.raises(UserError, match="--capacity is 79; it must be at least 80, the steps of a visit to a task"):
        trained(tmp_path / "b", replace(SMALL, capacity=79))


def test_what_it_needs_is_the_rings(tmp_path):
    config = replace(SMALL, capacity=50_000)
    need = config.footprint(FAMILY)
    assert need.data > config.replay(FAMILY)._rows.nbytes
    assert need.data < config.replay(FAMILY)._rows.nbytes + 10_000
    assert need.parameters <= sum(value.numel() for value in agent_of(FAMILY).params.values())
