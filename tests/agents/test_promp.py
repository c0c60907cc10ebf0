from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim import Adam

from metarl.agents import maml_trpo, promp
from metarl.agents.promp import Config
from metarl.envs import make_family
from metarl.errors import NonFiniteError, UserError
from metarl.learning.contract import Budget
from metarl.learning.proximal import Objective, earnings
from metarl.meta import inner
from metarl.nets.params import flatten, unflatten
from metarl.ops.surrogates import clipped_surrogate
from metarl.runs.run import Run
from metarl.seeding import Key

FAMILY = make_family("metarl/Navigation2D-v0")
SMALL = Config(iterations=3, tasks=3, episodes=4, hidden=(5,), checkpoint_every=2, threads=1)


def away(params, size=0.03):
    """Shared parameters some way from those that gathered the data."""
    theta = flatten(params)
    return theta + size * torch.randn(len(theta), dtype=theta.dtype, generator=Key(5).torch())


@pytest.mark.parametrize("credit", ["ratio", "returns", "none"])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("size", [0.0, 0.03])
def test_the_gradient_through_the_adaptation_agrees_with_finite_differences(gathered, credit, steps, size):
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, tasks=2, episodes=2, hidden=(3,), inner_steps=steps))
    objective = Objective(policy, rule, data, params, 2, credit, torch.tensor([1.5, -0.7]).double())
    penalties = torch.tensor([0.7, 0.2])[:steps].double()
    theta, h = away(params, size), 1e-6
    _, gradient = objective.loss_and_gradient(theta, 0.3, penalties)

    def loss(vector):
        with torch.no_grad():
            terms = objective.terms(vector, 0.3)
            return -terms.surrogate - terms.exploration + (penalties * terms.inner_kl).mean()

    eye = torch.eye(len(theta), dtype=theta.dtype)
    numeric = torch.stack([(loss(theta + h * e) - loss(theta - h * e)) / (2 * h) for e in eye])
    assert gradient.norm() > 1e-3
    assert (numeric - gradient).norm() / gradient.norm() < 1e-5


def test_without_an_inner_step_it_is_ppo(gathered):
    """A step of size 0: the clipped surrogate of the shared policy on the query data."""
    policy, params, _, data = gathered(FAMILY, replace(SMALL, inner_step_size=1e-300))
    theta = away(params).requires_grad_()
    objective = Objective(policy, inner.Rule(0.0, 1), data, params, 3)
    terms = objective.terms(theta, 0.2)
    (gradient,) = torch.autograd.grad(terms.surrogate, theta)
    query = data.query
    log_prob = policy.distribution(unflatten(theta, params), query.episodes.obs).log_prob(query.episodes.actions)
    old = policy.distribution(params, query.episodes.obs).log_prob(query.episodes.actions)
    each = clipped_surrogate(log_prob, old, query.advantages, 0.2)
    expected = torch.stack([each[t][query.episodes.valid[t]].mean() for t in range(3)]).mean()
    torch.testing.assert_close(terms.surrogate, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, theta)[0], rtol=1e-5, atol=1e-9)


def test_unclipped_and_of_first_order_its_first_gradient_is_mamls(gathered):
    policy, params, rule, data = gathered(FAMILY, SMALL)
    first = replace(rule, order=1)
    _, ours = Objective(policy, first, data, params, 3).loss_and_gradient(
        flatten(params), float("inf"), torch.zeros(1).double()
    )
    theirs = maml_trpo.Objective(policy, first, data, params, 3).local(flatten(params)).gradient
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    # Of second order it also credits the support data to the parameters that gathered them.
    _, ours = Objective(policy, rule, data, params, 3).loss_and_gradient(
        flatten(params), float("inf"), torch.zeros(1).double()
    )
    theirs = maml_trpo.Objective(policy, rule, data, params, 3).local(flatten(params)).gradient
    assert (ours - theirs).norm() / theirs.norm() > 1e-3
    # So does MAML's through a likelihood ratio.
    theirs = maml_trpo.Objective(policy, rule, data, params, 3, credit="ratio").local(flatten(params)).gradient
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_maml_ppo_unclipped_has_the_gradient_of_maml_trpo(gathered):
    policy, params, rule, data = gathered(FAMILY, SMALL)
    objective = Objective(policy, rule, data, params, 3, "none")
    _, ours = objective.loss_and_gradient(flatten(params), float("inf"), torch.zeros(1).double())
    theirs = maml_trpo.Objective(policy, rule, data, params, 3).local(flatten(params)).gradient
    assert theirs.norm() > 1e-2
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_e_maml_differs_from_maml_ppo_by_the_scores_of_the_support_data_alone(gathered):
    """At the parameters that gathered the data: the same value; in the gradient, mean_i R_i mean_t grad log pi."""
    policy, params, rule, data = gathered(FAMILY, SMALL)
    theta, penalties, earned = flatten(params), torch.zeros(1).double(), torch.tensor([0.8, -1.3, 0.1]).double()
    without = Objective(policy, rule, data, params, 3, "none").loss_and_gradient(theta, 0.3, penalties)
    credited = Objective(policy, rule, data, params, 3, "returns", earned).loss_and_gradient(theta, 0.3, penalties)
    assert float(credited[0]) == pytest.approx(float(without[0]), abs=1e-12)
    leaf, support = theta.clone().requires_grad_(), data.support[0].episodes
    log_prob = policy.distribution(unflatten(leaf, params), support.obs).log_prob(support.actions)
    mean = torch.stack([log_prob[t][support.valid[t]].mean() for t in range(3)])
    (scores,) = torch.autograd.grad((earned * mean).mean(), leaf)
    assert scores.norm() > 1e-2
    torch.testing.assert_close(without[1] - credited[1], scores, rtol=1e-5, atol=1e-8)


def test_e_maml_credits_the_data_of_every_inner_step_within_the_clip(gathered):
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, inner_steps=2))
    earned, theta = torch.tensor([0.8, -1.3, 0.1]).double(), away(params, 0.1)
    objective = Objective(policy, rule, data, params, 3, "returns", earned)
    iterates, expected = objective.readapt(theta, objective.inner_loss), 0.0
    for k in (0, 1):
        support = data.support[k].episodes
        now, then = (
            policy.distribution(values, support.obs).log_prob(support.actions)
            for values in (iterates[k], data.iterates[k])
        )
        ratio = (now - then).exp()
        each = [torch.minimum(r * (ratio - 1), r * (ratio.clamp(0.95, 1.05) - 1))[t] for t, r in enumerate(earned)]
        expected += torch.stack([each[t][support.valid[t]].mean() for t in range(3)]).mean()
    explored = objective.terms(theta, 0.05).exploration
    assert abs(expected) > 1e-4
    assert float(explored) == pytest.approx(float(expected), rel=1e-5)
    assert float(objective.terms(theta, 1e9).exploration) > float(explored)


def test_what_tasks_earn_is_standardised_over_all_their_steps(gathered):
    *_, data = gathered(FAMILY, SMALL)
    episodes = data.query.episodes
    rewards = torch.stack([episodes.rewards[t][episodes.valid[t]].double().mean() for t in range(3)])
    steps = episodes.rewards[episodes.valid].double()
    expected = (rewards - steps.mean()) / (steps.std(unbiased=False) + 1e-8)
    torch.testing.assert_close(earnings(data), expected, rtol=1e-9, atol=1e-12)
    alike = replace(episodes, rewards=torch.ones_like(episodes.rewards))
    assert earnings(replace(data, query=replace(data.query, episodes=alike))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("steps", [1, 2])
def test_where_the_data_were_gathered_ratios_are_one_and_kls_zero(gathered, steps):
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, inner_steps=steps))
    query = replace(data.query, advantages=data.query.advantages + 0.5 * data.query.episodes.valid)  # mean 0 before
    terms = Objective(policy, rule, replace(data, query=query), params, 3).terms(flatten(params), 0.3)
    assert float(terms.surrogate) == pytest.approx(0.5, abs=1e-5)
    assert float(terms.outer_kl) == pytest.approx(0, abs=1e-12)
    assert terms.inner_kl.tolist() == pytest.approx([0] * steps, abs=1e-12)
    assert float(terms.clipped) == 0


def test_kls_are_those_from_the_policies_that_gathered_the_data(gathered):
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, inner_steps=2))
    theta = away(params)
    terms = Objective(policy, rule, data, params, 3).terms(theta, 0.3)
    now = unflatten(theta, params)
    normals = [
        torch.distributions.Normal(said.mean, said.log_std.exp().expand_as(said.mean))
        for said in (policy.distribution(values, data.support[0].episodes.obs) for values in (params, now))
    ]
    kl, valid = torch.distributions.kl_divergence(*normals).sum(-1), data.support[0].episodes.valid
    expected = torch.stack([kl[t][valid[t]].mean() for t in range(3)]).mean()
    assert expected > 1e-5
    assert float(terms.inner_kl[0]) == pytest.approx(float(expected), rel=1e-5)
    assert terms.inner_kl[1] > 0
    assert terms.outer_kl > 0


def test_the_loss_weighs_the_kl_of_every_inner_step(gathered):
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, inner_steps=2))
    objective, theta = Objective(policy, rule, data, params, 3), away(params)
    terms = objective.terms(theta, 0.3)
    loss, _ = objective.loss_and_gradient(theta, 0.3, torch.tensor([2.0, 6.0]).double())
    torch.testing.assert_close(loss, -terms.surrogate + terms.inner_kl[0] + 3 * terms.inner_kl[1])


def test_shards_add_up_to_the_whole(gathered):
    policy, params, rule, data = gathered(FAMILY, SMALL)
    theta, weights = away(params), torch.ones(1).double()
    whole = Objective(policy, rule, data, params, 3)
    parts = [Objective(policy, rule, shard, params, 3) for shard in data.shards()]
    assert len(parts) == 2
    torch.testing.assert_close(sum(part.measure(theta, 0.3) for part in parts), whole.measure(theta, 0.3))
    for i in (0, 1):
        summed = sum(part.loss_and_gradient(theta, 0.3, weights)[i] for part in parts)
        torch.testing.assert_close(summed, whole.loss_and_gradient(theta, 0.3, weights)[i])


def updated(policy, params, data, config, penalties):
    theta = flatten(params).requires_grad_()
    penalties, metrics = promp.meta_update(
        policy, theta, params, Adam([theta], config.step_size), data, penalties, config
    )
    return theta.detach(), penalties, metrics


def test_threads_of_the_update_change_nothing(gathered):
    policy, params, _, data = gathered(FAMILY, replace(SMALL, tasks=5))
    one, *others = (updated(policy, params, data, replace(SMALL, threads=n), [5e-4])[0] for n in (1, 2, 3))
    assert not torch.equal(one, flatten(params))
    assert all(torch.equal(one, other) for other in others)


def test_steps_raise_the_surrogate_on_the_same_data_and_the_clip_holds_them_near(gathered):
    policy, params, _, data = gathered(FAMILY, SMALL)
    config = replace(SMALL, updates=30, step_size=1e-3)
    _, _, near = updated(policy, params, data, config, [5e-4])
    _, _, far = updated(policy, params, data, replace(config, clip=1e9), [5e-4])
    assert near["policy/surrogate"] > 0.005
    assert near["policy/outer_kl"] < far["policy/outer_kl"]
    assert far["policy/clip_fraction"] == 0


def test_a_penalty_keeps_the_policy_near_the_one_that_gathered_the_data(gathered):
    policy, params, _, data = gathered(FAMILY, SMALL)
    free, held = (updated(policy, params, data, replace(SMALL, updates=20), [eta])[2] for eta in (0.0, 100.0))
    assert held["policy/inner_kl"] < 0.3 * free["policy/inner_kl"]


@pytest.mark.parametrize(("target", "factor"), [(1e3, 0.5), (1e-9, 2.0), (0.0, 1.0)])
def test_the_penalty_is_adapted_unless_there_is_no_target(gathered, target, factor):
    policy, params, _, data = gathered(FAMILY, replace(SMALL, inner_steps=2))
    config = replace(SMALL, inner_steps=2, kl_target=target)
    assert updated(policy, params, data, config, [0.5, 3.0])[1] == [0.5 * factor, 3.0 * factor]


def test_every_step_is_put_back_within_the_bounds(gathered):
    config = replace(SMALL, min_std=0.999, updates=20, step_size=0.01)
    policy, params, _, data = gathered(FAMILY, config)
    narrow = -data.query.episodes.actions.square().sum(-1)  # small actions pay: every deviation wants to fall
    data = replace(data, query=replace(data.query, advantages=narrow * data.query.episodes.valid))
    theta, _, _ = updated(policy, params, data, config, [0.0])
    log_std, floor = unflatten(theta, params)["log_std"], float(np.log(0.999))
    assert (log_std >= floor).all()
    assert (log_std == floor).any()


def test_a_loss_that_is_not_finite_names_its_tasks(gathered):
    policy, params, _, data = gathered(FAMILY, SMALL)
    advantages = data.query.advantages.clone()
    advantages[2] = torch.nan
    data = replace(data, query=replace(data.query, advantages=advantages))
    with pytest.raises(NonFiniteError, match="the proximal loss is not finite") as error:
        updated(policy, params, data, SMALL, [5e-4])
    assert error.value.tasks == [2]


@pytest.mark.parametrize(("preset", "credit"), [("e-maml", "returns"), ("maml-ppo", "none")])
def test_presets_of_the_other_credits_train_and_say_so(tmp_path, preset, credit):
    config = replace(promp.DEFAULTS[preset], iterations=1, tasks=3, episodes=4, hidden=(5,), threads=1)
    line = trained(tmp_path / "run", config).metrics()[0]
    assert config.credit == credit
    assert ("policy/exploration" in line) == (credit == "returns")
    assert line["policy/inner_kl_penalty"] == 0


def trained(folder, config=SMALL):
    run = Run.create(folder, learner="promp", config=config, source=FAMILY, seed=3)
    promp.train(config, FAMILY, run)
    return run


def test_a_run_repeats_bit_for_bit_and_resumes_so(tmp_path):
    once = trained(tmp_path / "a")
    metrics = (tmp_path / "a/metrics.jsonl").read_bytes()
    trained(tmp_path / "c", replace(SMALL, iterations=2))
    resumed = Run.resume(tmp_path / "c", learner="promp", config=SMALL, source=FAMILY, seed=3)
    promp.train(SMALL, FAMILY, resumed)
    assert metrics == (tmp_path / "c/metrics.jsonl").read_bytes()
    (_, first), (_, second) = once.restore(), resumed.restore()
    assert first["penalties"] == second["penalties"]
    assert all(torch.equal(value, second["params"][name]) for name, value in first["params"].items())
    moments = [state["optimiser"]["state"][0]["exp_avg_sq"] for state in (first, second)]
    assert torch.equal(*moments)


def test_metrics_have_the_promised_diagnostics(tmp_path):
    line = trained(tmp_path / "run", replace(SMALL, iterations=1, validate_every=1, validation_tasks=2)).metrics()[0]
    for name in ("surrogate", "outer_kl", "inner_kl", "inner_kl_penalty", "clip_fraction", "entropy"):
        assert f"policy/{name}" in line
    assert {"return/before", "return/after", "return/validation_0", "return/validation_1"} <= set(line)
    assert 0.9 < line["episodes/steps"] / (2 * SMALL.tasks * SMALL.episodes * FAMILY.horizon) <= 1


def test_a_trained_agent_adapts(tmp_path):
    agent = promp.load(trained(tmp_path / "run"), FAMILY)
    scores = agent.curve(FAMILY.fixed("test", 2), Budget(steps=2, episodes=3), seed=0)
    assert scores.values.shape == (2, 3)
    assert scores.gradient_steps == (0, 1, 2)


def test_bad_settings_say_what_is_allowed():
    with pytest.raises(UserError, match=r"--clip is 0; it must be above 0"):
        Config(clip=0)
    with pytest.raises(UserError, match=r"--kl-target is -1; it must be at least 0"):
        Config(kl_target=-1)
    with pytest.raises(UserError, match=r"--updates is 0; it must be at least 1"):
        Config(updates=0)
