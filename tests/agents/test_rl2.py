from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metarl.agents import rl2
from metarl.agents.rl2 import Batch, Config, Play, RewardScale, play, ppo_loss, prepare, update
from metarl.envs import make_family
from metarl.envs.wrappers.trials import Trials
from metarl.errors import UserError
from metarl.learning.contract import Budget
from metarl.nets.actor_critic import Decision, RecurrentPolicy, recurrent_policy
from metarl.nets.distributions import Categorical
from metarl.nets.policies import MIN_STD
from metarl.runs.run import Run
from metarl.sampling.episodes import Episodes
from metarl.seeding import Key
from metarl.tasks import Tasks

BANDIT = make_family("metarl/BernoulliBandit-v0", arms=3, pulls=4)
MIN_STD_LOG = float(np.log(MIN_STD))
SMALL = Config(iterations=3, halve_every=0, trials=6, hidden=5, epochs=2, minibatches=2, checkpoint_every=2, threads=1)


def vivid(policy, seed=0, scale=1.0):
    """Parameters with which everything seen shows in everything said."""
    params, generator = policy.init(Key(seed).torch()), Key(seed)("noise").torch()
    return {n: v + scale * torch.randn(v.shape, generator=generator) for n, v in params.items()}


def acting(family=BANDIT, episodes=3, tasks=4, trials=2, **options):
    """A vector of trials with a policy for it."""
    joined = Trials(family=family, episodes=episodes)
    policy = recurrent_policy(joined.observation_space, joined.action_space, hidden=8, **options)
    return joined.make_vec(joined.fixed("train", tasks), trials), policy, vivid(policy)


def synthetic(rewards, values, valid=None, inner=1, **flags):
    """A play with given rewards and values `(N, H)`; one number seen, two actions."""
    rewards, values = torch.tensor(rewards), torch.tensor(values)
    n, h = rewards.shape
    valid = torch.ones(n, h, dtype=torch.bool) if valid is None else torch.tensor(valid)
    ends = {name: torch.tensor(flags.get(name, [[False] * h] * n))[:, None] for name in ("terminated", "truncated")}
    episodes = Episodes(
        obs=torch.zeros(n, 1, h, 1),
        actions=torch.zeros(n, 1, h, dtype=torch.int64),
        rewards=rewards[:, None],
        valid=valid[:, None],
        unstable=torch.zeros(n, 1, dtype=torch.bool),
        **ends,
    )
    return Play(episodes, inner, torch.zeros(h, n), values.T, torch.zeros(1, n, 1))


# The memory


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_memory_lasts_over_episodes_of_a_trial_and_not_into_the_next(cell, monkeypatch):
    """By intervention: other rewards in the first episode change what is done in the third, but not the next trial."""
    env, policy, params = acting(cell=cell, tasks=20)
    reference, next_reference = (play(env, policy, params, Key(i)) for i in (1, 2))
    honest, intervening = env.inner.step, [True]

    def step(actions):
        obs, rewards, *rest = honest(actions)
        return obs, rewards + 5.0 * (intervening[0] and env.episode[0] == 0), *rest

    monkeypatch.setattr(env.inner, "step", step)
    changed = play(env, policy, params, Key(1))
    intervening[0] = False
    next_changed = play(env, policy, params, Key(2))
    assert torch.equal(changed.values[0], reference.values[0])  # nothing was paid before the first action
    assert (changed.values[8:] != reference.values[8:]).all()
    assert not torch.equal(changed.episodes.actions[..., 8:], reference.episodes.actions[..., 8:])
    assert torch.equal(next_changed.episodes.obs, next_reference.episodes.obs)
    assert torch.equal(next_changed.values, next_reference.values)


def test_memory_is_zero_at_the_start_of_every_trial():
    env, policy, params = acting()
    first, second = (play(env, policy, params, Key(i), chunk=4) for i in (1, 2))
    for played in (first, second):
        assert not played.states[0].any()
        assert played.states[1].abs().min() > 0
        empty = policy.step(params, played.episodes.obs[..., 0, :].flatten(0, 1), torch.zeros(8, 8))
        assert torch.equal(played.values[0], empty.value)


def test_what_was_recorded_when_acting_is_what_the_sequence_says():
    for family in (BANDIT, make_family("metarl/Navigation2D-v0")):
        env, policy, params = acting(family, episodes=2)
        played = play(env, policy, params, Key(0))
        batch, _ = prepare(played, Config(), RewardScale())
        decision = policy.sequence(params, batch.obs, batch.states)
        log_prob = decision.distribution.log_prob(batch.actions)
        torch.testing.assert_close(log_prob, played.log_prob, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(decision.value, played.values, atol=1e-4, rtol=1e-4)
        assert played.log_prob.std() > 0.1


def test_rows_do_not_depend_on_how_many_there_are():
    joined = Trials(family=BANDIT, episodes=2)
    policy = recurrent_policy(joined.observation_space, joined.action_space, hidden=8)
    params, tasks = vivid(policy), joined.fixed("train", 5)
    few, many = (play(joined.make_vec(tasks[:n]), policy, params, Key(3)) for n in (2, 5))
    assert torch.equal(few.episodes.actions, many.episodes.actions[:2])
    assert torch.equal(few.episodes.rewards, many.episodes.rewards[:2])


def test_the_likeliest_actions_are_taken_when_asked_for():
    for family in (BANDIT, make_family("metarl/Navigation2D-v0")):
        env, policy, params = acting(family, episodes=2)
        one, other = (play(env, policy, params, Key(i), likeliest=True) for i in (0, 1))
        decision = policy.sequence(params, one.episodes.obs.flatten(0, 1).transpose(0, 1), policy.start(8))
        best = decision.distribution.mode().transpose(0, 1).unflatten(0, (4, 2))
        valid = one.episodes.valid
        torch.testing.assert_close(one.episodes.actions[valid], best[valid], atol=1e-4, rtol=1e-4)
        assert torch.equal(one.episodes.actions[..., 0], other.episodes.actions[..., 0]) or family is not BANDIT


def test_permuting_arms_permutes_behaviour():
    """An agent whose arms are renamed, on the bandit with renamed arms, pulls the renamed arms and earns the same."""
    env, policy, params = acting(tasks=20, trials=3)
    order = [2, 0, 1]  # new arm i is old arm order[i]
    renamed = dict(params)
    renamed["actor.0.weight"] = 1e4 * params["actor.0.weight"]  # so sure that sampling has nothing to decide
    params = dict(renamed)
    renamed["actor.0.weight"] = renamed["actor.0.weight"][:, order]
    renamed["actor.0.bias"] = params["actor.0.bias"][order]
    arms = [1 + i for i in order]  # inputs: the constant, three arms, reward, done
    renamed["cell.weight_ih"] = params["cell.weight_ih"][:, [0, *arms, 4, 5]]
    one = play(env, policy, params, Key(4))
    env.reset(options={"tasks": Tasks({"mean": env.tasks.arrays["mean"][:, order]}, split=env.tasks.split)})
    other = play(env, policy, renamed, Key(4))
    assert torch.equal(torch.tensor(order)[other.episodes.actions], one.episodes.actions)
    assert torch.equal(other.episodes.rewards, one.episodes.rewards)
    assert len(one.episodes.actions.unique()) == 3


# Advantages


def test_advantages_flow_over_the_ends_of_episodes_and_stop_at_the_trials():
    config = Config(gamma=0.5, gae_lambda=1.0, normalise_advantages=False)
    ends = {"truncated": [[False, True, False, True]] * 2}
    batch, _ = prepare(
        synthetic([[0.0, 0, 0, 8], [0, 0, 0, 0]], [[0.0] * 4] * 2, inner=2, **ends), config, RewardScale()
    )
    assert batch.advantages.T.tolist() == [[1, 2, 4, 8], [0, 0, 0, 0]]
    ends = {"terminated": [[False, True, False, False]] * 2}
    again, _ = prepare(
        synthetic([[0.0, 0, 0, 8], [0, 0, 0, 0]], [[0.0] * 4] * 2, inner=2, **ends), config, RewardScale()
    )
    assert torch.equal(batch.advantages, again.advantages)


def test_advantages_by_hand():
    """With gamma .5, lambda .5: deltas 1 + .5*4 - 2 = 1, 0 + .5*6 - 4 = -1, 2 + 0 - 6 = -4; the fourth is padding."""
    config = Config(gamma=0.5, gae_lambda=0.5, normalise_advantages=False)
    played = synthetic([[1.0, 0, 2, 0]], [[2.0, 4, 6, 9]], valid=[[True, True, True, False]])
    batch, _ = prepare(played, config, RewardScale())
    assert batch.advantages.T.tolist() == [[0.5, -2, -4, 0]]
    assert batch.targets.T.tolist() == [[2.5, 2, 2, 0]]
    assert batch.valid.T.tolist() == [[1, 1, 1, 0]]


def test_advantages_are_normalised_over_the_whole_update_where_valid():
    played = synthetic([[1.0, 5, 2], [3, 3, 0]], [[0.0] * 3] * 2, valid=[[True] * 3, [True, True, False]])
    batch, _ = prepare(played, Config(), RewardScale())
    kept = batch.advantages[batch.valid.bool()]
    assert float(kept.mean()) == pytest.approx(0, abs=1e-6)
    assert float(kept.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    assert float(batch.advantages[2, 1]) == 0


@pytest.mark.parametrize("chunk", [1, 4, 5, 12])
def test_chunks_say_the_same_as_the_whole_trial_before_any_step(chunk):
    """The memories kept at their starts join them; gradients stop there, so they differ."""
    env, policy, params = acting()
    config = Config(chunk=chunk, gamma=0.9, gae_lambda=0.9)
    params = {n: v.requires_grad_() for n, v in params.items()}
    found = {}
    for name, settings in {"whole": replace(config, chunk=0), "chunks": config}.items():
        batch, _ = prepare(play(env, policy, params, Key(5), settings.chunk), settings, RewardScale())
        loss, diagnostics = ppo_loss(policy, params, batch, settings)
        gradient = torch.autograd.grad(loss, params["cell.weight_hh"])[0]
        found[name] = (loss.detach(), diagnostics["policy/entropy"], batch.valid.sum(), gradient)
    for whole, chunks in zip(found["whole"][:3], found["chunks"][:3], strict=True):
        torch.testing.assert_close(whole, chunks)
    assert torch.allclose(found["whole"][3], found["chunks"][3], atol=1e-6) == (chunk == 12)


# The loss


class Oblivious:
    """A policy that says what it was given."""

    def __init__(self, probability, value):
        self.said = Decision(Categorical(torch.tensor(probability).log()), torch.tensor(value), torch.zeros(1))

    def sequence(self, params, obs, state):
        return self.said


def test_ppo_loss_by_hand():
    """Two steps of one trial and one of padding; actions were drawn with probability .5 each."""
    policy = Oblivious([[[0.75, 0.25]], [[0.5, 0.5]], [[0.9, 0.1]]], [[1.0], [2.0], [100.0]])
    batch = Batch(
        obs=torch.zeros(3, 1, 1),
        actions=torch.tensor([[0], [1], [0]]),
        log_prob=torch.full((3, 1), 0.5).log(),
        advantages=torch.tensor([[1.0], [-2.0], [0.0]]),
        targets=torch.tensor([[4.0], [2.0], [0.0]]),
        valid=torch.tensor([[1.0], [1.0], [0.0]]),
        states=torch.zeros(1, 1),
    )
    loss, found = ppo_loss(policy, {}, batch, Config(clip=0.2, value_weight=0.5, entropy_weight=0.1))
    surrogate = (1.2 * 1 + 1.0 * -2) / 2  # the ratio 1.5 counts as 1.2
    value = 0.5 * (9 + 0) / 2
    entropy = (-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) + np.log(2)) / 2
    assert float(found["policy/surrogate"]) == pytest.approx(surrogate)
    assert float(found["value/loss"]) == pytest.approx(value)
    assert float(found["policy/entropy"]) == pytest.approx(entropy)
    assert float(loss) == pytest.approx(-surrogate + 0.5 * value - 0.1 * entropy)
    assert float(found["policy/clip_fraction"]) == pytest.approx(0.5)
    assert float(found["policy/approximate_kl"]) == pytest.approx((1.5 - 1 - np.log(1.5)) / 2, rel=1e-5)


def test_an_update_moves_towards_what_paid():
    """One step of one sort of trial: action 1 was better than expected, so it becomes likelier; the critic follows."""
    policy = RecurrentPolicy(1, 2, True, hidden=4)
    params = {n: v.requires_grad_() for n, v in policy.init(Key(0).torch()).items()}
    obs, state = torch.ones(1, 8, 1), policy.start(8)
    before = policy.sequence(params, obs, state)
    actions = torch.tensor([[0, 1] * 4])
    log_prob = before.distribution.log_prob(actions).detach()
    advantages = torch.where(actions == 1, 1.0, -1.0)
    batch = Batch(obs, actions, log_prob, advantages, torch.full((1, 8), 3.0), torch.ones(1, 8), state)
    optimiser = torch.optim.Adam(params.values(), 1e-2)
    metrics = update(policy, params, optimiser, batch, replace(SMALL, epochs=5), Key(1))
    after = policy.sequence(params, obs, state)
    assert (after.distribution.logits[..., 1] > before.distribution.logits[..., 1] + 0.03).all()
    assert (after.value > before.value + 0.05).all()
    assert metrics["policy/approximate_kl"] > 0
    assert metrics["policy/gradient_norm"] > 0


def test_an_update_is_plain_descent_over_shuffled_minibatches():
    """Against a loop by hand: every pass in another order, every minibatch from fresh gradients."""
    config = replace(SMALL, epochs=3, minibatches=2, max_gradient_norm=1e6)
    env, policy, start = acting()
    batch, _ = prepare(play(env, policy, start, Key(5)), config, RewardScale())
    params = {n: v.clone().requires_grad_() for n, v in start.items()}
    update(policy, params, torch.optim.SGD(params.values(), 0.1), batch, config, Key(1))
    expected, orders = {n: v.clone() for n, v in start.items()}, []
    for epoch in range(3):
        orders.append(torch.from_numpy(Key(1)("order", epoch).numpy().permutation(8)))
        for rows in (orders[-1][:4], orders[-1][4:]):
            leaves = {n: v.clone().requires_grad_() for n, v in expected.items()}
            loss, _ = ppo_loss(policy, leaves, batch.take(rows), config)
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            expected = {n: v - 0.1 * g for (n, v), g in zip(expected.items(), gradients, strict=True)}
    assert len({tuple(order.tolist()) for order in orders}) == 3
    for name, value in params.items():
        torch.testing.assert_close(value.detach(), expected[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("norm", [1e-3, 1e6])
def test_gradients_are_scaled_down_to_their_largest_norm(norm):
    """A step of plain descent of size 1 is as long as the gradient, or as it may be at most."""
    policy = RecurrentPolicy(1, 2, True, hidden=4)
    params = {n: v.requires_grad_() for n, v in vivid(policy).items()}
    obs, state = torch.ones(1, 8, 1), policy.start(8)
    said = policy.sequence(params, obs, state)
    actions = torch.tensor([[0, 1] * 4])
    log_prob = said.distribution.log_prob(actions).detach()
    batch = Batch(obs, actions, log_prob, torch.ones(1, 8), torch.full((1, 8), 3.0), torch.ones(1, 8), state)
    before = {n: v.detach().clone() for n, v in params.items()}
    config = replace(SMALL, epochs=1, minibatches=1, max_gradient_norm=norm)
    metrics = update(policy, params, torch.optim.SGD(params.values(), 1.0), batch, config, Key(1))
    moved = torch.cat([(params[n].detach() - before[n]).flatten() for n in params]).norm()
    assert metrics["policy/gradient_norm"] > 0.1  # what it was before
    assert float(moved) == pytest.approx(min(norm, metrics["policy/gradient_norm"]), rel=1e-3)


@pytest.mark.parametrize("start", [-14.0, MIN_STD_LOG])
def test_a_deviation_never_stays_below_its_least_and_rises_again(start):
    """Steps down, then up: actions at the mean want a smaller deviation, actions far from it a larger one."""
    policy = RecurrentPolicy(1, 2, False, hidden=4)
    params = policy.init(Key(0).torch()) | {"log_std": torch.full((2,), start)}
    rl2.project(policy, params)
    params = {n: v.requires_grad_() for n, v in params.items()}
    optimiser = torch.optim.SGD(params.values(), 1e-2)
    obs, state, log_stds = torch.ones(1, 8, 1), policy.start(8), []
    for z in (0.0, 3.0):
        with torch.no_grad():
            said = policy.sequence(params, obs, state)
            actions = said.distribution.mean + z * said.distribution.log_std.exp()
            log_prob = said.distribution.log_prob(actions)
        batch = Batch(obs, actions, log_prob, torch.ones(1, 8), said.value, torch.ones(1, 8), state)
        update(policy, params, optimiser, batch, replace(SMALL, epochs=1, minibatches=1, max_gradient_norm=1e9), Key(1))
        log_stds.append(params["log_std"].tolist())
    assert log_stds[0] == pytest.approx([MIN_STD_LOG] * 2)
    assert min(log_stds[1]) > MIN_STD_LOG + 0.01


def test_a_checkpoint_with_smaller_deviations_than_the_least_is_put_back(tmp_path):
    family = make_family("metarl/Navigation2D-v0")
    config = replace(SMALL, iterations=1, trials=2, trial_episodes=1)
    run = trained(tmp_path / "run", config, family)
    step, state = run.restore()
    state["params"]["log_std"].fill_(-20.0)
    agent = rl2.load(SimpleNamespace(folder=run.folder, config=config, restore=lambda: (step, state)), family)
    assert agent.params["log_std"].tolist() == [pytest.approx(MIN_STD_LOG)] * 2


# Rewards


def test_reward_scale_is_the_deviation_of_the_discounted_return_so_far():
    rewards, valid = torch.tensor([[1.0, 2.0, 9.0], [0.0, 4.0, 4.0]]).double(), torch.ones(2, 3, dtype=torch.bool)
    valid[0, 2] = False
    so_far = [1, 2.5, 0, 4, 6]
    scale = RewardScale().update(rewards, valid, 0.5)
    assert scale.deviation == pytest.approx(np.std(so_far))
    assert scale.mean == pytest.approx(np.mean(so_far))
    both = scale.update(2 * rewards, valid, 0.5)
    assert both.deviation == pytest.approx(np.std(so_far + [2 * x for x in so_far]))
    assert RewardScale().deviation == 1


def test_training_scales_rewards_by_all_updates_so_far_at_its_own_discount(tmp_path, monkeypatch):
    seen, honest = [], rl2.prepare

    def spy(played, config, scale):
        seen.append((played.episodes.rewards.flatten(0, 1).double(), played.episodes.valid.flatten(0, 1), scale))
        return honest(played, config, scale)

    monkeypatch.setattr(rl2, "prepare", spy)
    run = trained(tmp_path / "run", replace(SMALL, gamma=0.5, normalise_rewards=True))
    assert len(seen) == SMALL.iterations
    expected = RewardScale()
    for rewards, valid, scale in seen:
        expected = expected.update(rewards, valid, 0.5)
        assert scale == expected
    assert run.restore()[1]["reward_scale"] == vars(expected)


def test_normalised_rewards_are_what_is_learned_from_and_nothing_else():
    played, scale = synthetic([[2.0, 4.0]], [[0.0, 0.0]]), RewardScale(10, 0.0, 40.0)
    config = Config(gamma=1.0, gae_lambda=1.0, normalise_advantages=False)
    plain, _ = prepare(played, config, scale)
    scaled, _ = prepare(played, replace(config, normalise_rewards=True), scale)
    assert plain.targets.T.tolist() == [[6, 4]]
    assert scaled.targets.T.tolist() == [[3, 2]]
    assert played.returns().tolist() == [[[6]]]


def test_returns_go_to_the_episode_they_were_earned_in():
    played = synthetic([[1.0, 2, 4, 8, 16, 32]], [[0.0] * 6], valid=[[True] * 5 + [False]], inner=3)
    played.episodes.obs[0, 0, :, -1] = torch.tensor([0.0, 0, 1, 1, 0, 0])  # episodes of 2, 1 and 2 steps
    assert played.returns().tolist() == [[[3, 4, 24]]]


def test_regret_is_what_the_best_arm_would_have_paid_more():
    tasks = Tasks({"mean": np.array([[0.2, 0.9, 0.5]])})
    played = synthetic([[0.0, 1, 1]], [[0.0] * 3])
    played.episodes.actions[0, 0] = torch.tensor([0, 1, 2])
    np.testing.assert_allclose(played.regret(tasks), [[[0.7, 0, 0.4]]])
    with pytest.raises(UserError, match="regret is counted on bandits"):
        played.regret(Tasks({"goal": np.zeros((1, 2))}))


# Runs


def test_step_size_and_entropy_bonus_halve_smoothly():
    config = Config(step_size=8e-3, entropy_weight=0.4, halve_every=10)
    found = [rl2.annealed(config, i) for i in (0, 5, 10, 30)]
    assert [c.step_size for c in found] == pytest.approx([8e-3, 8e-3 / 2**0.5, 4e-3, 1e-3])
    assert [c.entropy_weight for c in found] == pytest.approx([0.4, 0.4 / 2**0.5, 0.2, 0.05])
    assert rl2.annealed(replace(config, halve_every=0), 1000) == replace(config, halve_every=0)


def test_a_decayed_step_size_moves_less(tmp_path):
    """After ten half-lives next to nothing happens."""
    moved = []
    for every in (0, 1):
        run = trained(tmp_path / f"{every}", replace(SMALL, iterations=11, halve_every=every, checkpoint_every=10))
        metrics = run.metrics()
        moved.append(metrics[-1]["policy/approximate_kl"])
    assert moved[1] < 0.01 * moved[0]


def trained(folder, config=SMALL, family=BANDIT):
    run = Run.create(folder, learner="rl2", config=config, source=family, seed=3)
    rl2.train(config, family, run)
    return run


@pytest.mark.parametrize("options", [{}, {"normalise_rewards": True, "chunk": 3, "cell": "lstm", "layer_norm": True}])
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


def test_training_takes_fresh_tasks_and_the_settings_of_each_iteration(tmp_path, monkeypatch):
    config = replace(SMALL, step_size=8e-3, entropy_weight=0.4, halve_every=1)
    tasks, settings, honest_play, honest_update = [], [], rl2.play, rl2.update

    def played(env, *rest):
        tasks.append(env.tasks.arrays["mean"].tolist())
        return honest_play(env, *rest)

    def updated(policy, params, optimiser, batch, now, key):
        group = optimiser.param_groups[0]
        settings.append((group["lr"], now.entropy_weight, group["eps"]))
        return honest_update(policy, params, optimiser, batch, now, key)

    monkeypatch.setattr(rl2, "play", played)
    monkeypatch.setattr(rl2, "update", updated)
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
    agent = rl2.Agent(policy, params, config, family, likeliest=True)  # stands still
    tasks = Tasks({"goal": [[0.4, 0.4], [0.0, 0.0]]})
    scores = agent.curve(tasks, Budget(0, 2), seed=0)
    assert scores.env_steps == (0, 50, 101)  # means of 100 and 1 (50.5), and of 200 and 2
    assert agent.play(tasks, 2, Key(0)).steps().tolist() == [[[100] * 3] * 2, [[1] * 3] * 2]


def test_a_curve_does_not_depend_on_how_much_is_held_at_once(tmp_path, monkeypatch):
    agent = rl2.load(trained(tmp_path / "run"), BANDIT)
    tasks, budget = BANDIT.fixed("test", 6), Budget(0, 3)
    whole = agent.curve(tasks, budget, 0).values
    monkeypatch.setattr(rl2, "EVALUATION_STEPS", 2 * 3 * 4)
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
    with pytest.raises(UserError, match=r"--trial-episodes is -1; it must be at least 0"):
        Config(trial_episodes=-1)
