from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents import maml_trpo
from metarl.agents.maml_trpo import Config, Objective
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.learning import meta_policy_gradient, policy_gradient
from metarl.learning.contract import Budget
from metarl.learning.meta_batch import MetaBatch, adapt_to_tasks
from metarl.meta import inner
from metarl.nets.params import flatten, unflatten
from metarl.nets.policies import mlp_policy
from metarl.ops import returns, trust_region
from metarl.runs.run import Run
from metarl.seeding import Key

FAMILY = make_family("metarl/Navigation2D-v0")
SMALL = Config(iterations=3, tasks=3, episodes=4, hidden=(5,), checkpoint_every=2, threads=1)


def test_promps_step_size_in_units_of_the_bound(gathered):
    """A step of .1 on actions in tenths of the bound is one of .001 on the last layer here, of .1 on all else."""
    policy, params, _, data = gathered(FAMILY, SMALL)
    batch, last = data.support[0], "1."
    tenths = {n: v * 10 if n.startswith(last) else v for n, v in params.items()}
    tenths["log_std"] = params["log_std"] + np.log(10)

    def stepped(values, scale, step):
        episodes = replace(batch.episodes, actions=scale * batch.episodes.actions)
        leaves = {n: v.clone().requires_grad_() for n, v in values.items()}
        loss = policy_gradient.loss(policy, inner.stack(leaves, SMALL.tasks), replace(batch, episodes=episodes)).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        return {n: v.detach() - step(n) * g for (n, v), g in zip(leaves.items(), gradients, strict=True)}

    theirs = stepped(tenths, 10, lambda n: 0.1)
    ours = stepped(params, 1, lambda n: 0.001 if n.startswith(last) else 0.1)
    for name, value in ours.items():
        there = theirs[name] / 10 if name.startswith(last) else theirs[name]
        there = there - np.log(10) if name == "log_std" else there
        assert (value - params[name]).abs().max() > 1e-6, name
        assert torch.allclose(value, there, rtol=0, atol=1e-12), name


def test_the_surrogate_starts_at_minus_the_mean_advantage_with_zero_kl(gathered):
    policy, params, rule, data = gathered(FAMILY, SMALL)
    query = replace(
        data.query, advantages=data.query.advantages + 0.5 * data.query.episodes.valid
    )  # normalised: mean 0
    data = replace(data, query=query)
    loss, kl = map(float, Objective(policy, rule, data, params, SMALL.tasks).evaluate(flatten(params)))
    assert kl == pytest.approx(0, abs=1e-12)
    assert loss == pytest.approx(-0.5, abs=1e-5)
    assert loss == pytest.approx(-float((data.query.advantages * data.query.weights).sum()) / SMALL.tasks, abs=1e-9)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("credit", ["none", "ratio"])
def test_meta_gradient_through_the_adaptation_agrees_with_finite_differences(gathered, steps, credit):
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, inner_steps=steps))
    objective = Objective(policy, rule, data, params, SMALL.tasks, credit)
    theta = flatten(params).requires_grad_()
    (gradient,) = torch.autograd.grad(objective.surrogate(objective.adapted(theta)), theta)
    theta, h = theta.detach(), 1e-5
    numeric = torch.stack(
        [
            (
                objective.surrogate(objective.adapted(theta + h * e))
                - objective.surrogate(objective.adapted(theta - h * e))
            )
            / (2 * h)
            for e in torch.eye(len(theta), dtype=theta.dtype)
        ]
    )
    assert (numeric - gradient).norm() / gradient.norm() < 1e-6


@pytest.mark.parametrize("steps", [1, 2])
def test_meta_gradient_through_projected_steps_agrees_with_finite_differences(gathered, steps):
    """With the least deviation where the policy starts: some tasks are put back to it, others rise."""
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, tasks=4, inner_steps=steps, min_std=1.0))
    adapted, floor = data.iterates[-1]["log_std"], np.log(policy.min_std)
    assert (adapted == floor).any()
    assert (adapted > floor + 1e-3).any()
    objective = Objective(policy, rule, data, params, 4)
    # Shared parameters a little above, so that no difference crosses the bound; the adapted ones are generic.
    params["log_std"] = params["log_std"] + 1e-3
    theta = flatten(params).requires_grad_()
    (gradient,) = torch.autograd.grad(objective.surrogate(objective.adapted(theta)), theta)
    theta, h = theta.detach(), 1e-5

    def surrogate(vector):
        return objective.surrogate(objective.adapted(vector))

    eye = torch.eye(len(theta), dtype=theta.dtype)
    numeric = torch.stack([(surrogate(theta + h * e) - surrogate(theta - h * e)) / (2 * h) for e in eye])
    assert (numeric - gradient).norm() / gradient.norm() < 1e-6


def test_what_acted_is_what_is_differentiated_where_steps_are_put_back():
    config = replace(SMALL, tasks=4, inner_steps=2, min_std=1.0)
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, config.hidden, min_std=1.0)
    params, rule = policy.init(Key(0).torch()), inner.Rule(0.1, 2, project=policy.project)
    data = adapt_to_tasks(
        FAMILY.make_vec(FAMILY.fixed("train", 4), config.episodes), policy, params, rule, Key(1), 0.99, 1.0
    )
    at_least = data.iterates[-1]["log_std"] == 0
    assert at_least.any()
    assert not at_least.all()
    objective = Objective(policy, rule, data, params, 4)
    _, log_std = objective.adapted(flatten(params)).description()
    torch.testing.assert_close(log_std[:, 0, 0], data.iterates[-1]["log_std"], atol=1e-6, rtol=1e-5)
    _, kl = map(float, objective.evaluate(flatten(params)))
    assert kl == pytest.approx(0, abs=1e-6)


def gathered_for(policy, params, rule, config, sign):
    """A meta-batch whose query data ask for larger (+1) or smaller (-1) deviations, its support data for nothing."""
    env = FAMILY.make_vec(FAMILY.fixed("train", config.tasks), config.episodes)
    data = adapt_to_tasks(env, policy, params, replace(rule, step_size=0.0), Key(1), 0.99, 1.0)
    episodes = data.query.episodes
    unlikely = -sign * policy.distribution(data.iterates[-1], episodes.obs).log_prob(episodes.actions)
    advantages = returns.normalise(unlikely, episodes.valid, (1, 2))
    support = [replace(batch, advantages=torch.zeros_like(batch.advantages)) for batch in data.support]
    return replace(data, support=support, query=replace(data.query, advantages=advantages))


def test_a_deviation_driven_to_its_least_stays_there_and_rises_again():
    config = replace(SMALL, init_std=0.5, min_std=0.45)
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (5,), init_std=0.5, min_std=0.45)
    params, rule = policy.init(Key(0).torch()), inner.Rule(0.1, project=policy.project)
    log_stds = [params["log_std"]]
    for sign in (-1, -1, 1):
        data = gathered_for(policy, params, rule, config, sign)
        params, metrics = maml_trpo.meta_step(policy, params, data, config)
        log_stds.append(params["log_std"])
        _, kl = Objective(policy, rule, data, params, config.tasks).evaluate(flatten(params))
        assert metrics["trust_region/kl"] == pytest.approx(float(kl), rel=1e-3)  # of what was taken
    floor = torch.tensor(0.45).log()
    torch.testing.assert_close(log_stds[2], floor.expand(2), atol=1e-6, rtol=0)
    assert (log_stds[1] < log_stds[0]).all()
    assert (log_stds[3] > floor + 0.01).all()


def test_what_cannot_move_takes_nothing_of_the_trust_region():
    """At the least deviation, data that ask for less of it and for another mean: the step uses the KL for the mean."""
    config = replace(SMALL, init_std=0.45, min_std=0.45)
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, (5,), init_std=0.45, min_std=0.45)
    params, rule = policy.init(Key(0).torch()), inner.Rule(0.1, project=policy.project)
    data = gathered_for(policy, params, rule, config, -1)
    drift = data.query.episodes.actions[..., 0]
    advantages = data.query.advantages + 0.2 * returns.normalise(drift, data.query.episodes.valid, (1, 2))
    data = replace(data, query=replace(data.query, advantages=advantages))
    after, metrics = maml_trpo.meta_step(policy, params, data, config)
    assert torch.equal(after["log_std"], params["log_std"])
    assert metrics["trust_region/kl"] > 0.5 * config.max_kl


def narrowing(data: MetaBatch, sign: int = 1) -> MetaBatch:
    """The same data where small actions pay, so that every deviation wants to fall; -1: to rise."""
    episodes = data.query.episodes
    advantages = returns.normalise(-sign * episodes.actions.square().sum(-1), episodes.valid, (1, 2))
    return replace(data, query=replace(data.query, advantages=advantages))


@pytest.mark.parametrize(("sign", "blocked"), [(1, True), (-1, False)])
def test_the_natural_direction_leaves_out_what_cannot_move(gathered, monkeypatch, sign, blocked):
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, min_std=1.0))
    data = narrowing(data, sign)
    products, solutions, solve = [], [], trust_region.conjugate_gradient

    def spy(product, b, iterations):
        products.append(product(b))
        solutions.append(solve(product, b, iterations))
        return solutions[-1]

    monkeypatch.setattr(trust_region, "conjugate_gradient", spy)
    maml_trpo.meta_step(policy, params, data, SMALL)
    gradient = Objective(policy, rule, data, params, SMALL.tasks).local(flatten(params)).gradient
    assert ((unflatten(gradient, params)["log_std"] > 0) == blocked).all()
    for vector in (products[0], solutions[0].x):
        assert ((unflatten(vector, params)["log_std"] == 0) == blocked).all()


def test_candidates_are_judged_as_they_are_taken(gathered):
    """A step across the least deviation: its KL and its loss are those of the policy that is put back."""
    config = replace(SMALL, init_std=1.0, min_std=0.999, max_kl=0.05)
    policy, params, rule, data = gathered(FAMILY, config)
    data = narrowing(data)
    after, metrics = maml_trpo.meta_step(policy, params, data, config)
    assert (after["log_std"] == np.log(0.999)).any()
    objective = Objective(policy, rule, data, params, config.tasks)
    (start, _), (loss, kl) = (map(float, objective.evaluate(flatten(values))) for values in (params, after))
    assert metrics["trust_region/kl"] == pytest.approx(kl, rel=1e-9)
    assert metrics["trust_region/improvement"] == pytest.approx(start - loss, rel=1e-9)


def test_a_checkpoint_with_smaller_deviations_than_its_least_is_put_back(tmp_path, monkeypatch):
    """What was saved before steps were put back: adapting moves such deviations again."""
    config = replace(SMALL, iterations=1, min_std=0.5, init_std=0.5)
    run = Run.create(tmp_path / "run", learner="maml-trpo", config=config, source=FAMILY, seed=0)
    params = config.policy(FAMILY).init(Key(0).torch()) | {"log_std": torch.tensor([-3.0, 0.25])}
    with run.loop(1, checkpoint_every=1, state=lambda: {"params": params}) as loop:
        for _ in loop:
            loop.log({}, {})
    agent = maml_trpo.load(run, FAMILY)
    assert agent.params["log_std"].tolist() == [pytest.approx(np.log(0.5)), 0.25]
    iterates = agent._adapt(FAMILY.fixed("test", 8), Budget(3, 3), Key(0)).iterates
    path = torch.stack([iterate["log_std"][:, 0] for iterate in iterates])
    assert (path >= np.log(0.5) - 1e-6).all()
    assert ((path[:-1] == path[0]) & (path[1:] > path[0])).any()  # from the bound upwards
    longer = replace(config, iterations=2)
    acted, honest = [], meta_policy_gradient.adapt_to_tasks

    def spy(env, policy, params, *rest):
        acted.append(params["log_std"].exp().min())
        return honest(env, policy, params, *rest)

    monkeypatch.setattr(meta_policy_gradient, "adapt_to_tasks", spy)
    resumed = Run.resume(run.folder, learner="maml-trpo", config=longer, source=FAMILY, seed=0)
    maml_trpo.train(longer, FAMILY, resumed)
    assert min(acted) >= 0.5 - 1e-6
    assert resumed.restore()[1]["params"]["log_std"].exp().min() >= 0.5 - 1e-6


def test_training_adapts_within_the_bounds(tmp_path, monkeypatch):
    seen, honest = [], meta_policy_gradient.adapt_to_tasks

    def spy(*args):
        seen.append(honest(*args).iterates[-1]["log_std"])
        return honest(*args)

    monkeypatch.setattr(meta_policy_gradient, "adapt_to_tasks", spy)
    trained(tmp_path / "run", replace(SMALL, min_std=1.0, init_std=1.0, iterations=2))
    assert (torch.stack(seen) >= 0).all()
    assert (torch.stack(seen) == 0).any()
    assert (torch.stack(seen) > 0).any()


def test_a_policy_does_not_start_below_its_least_deviation():
    with pytest.raises(UserError, match=r"--init-std is 0.2; it must be at least --min-std, 0.45"):
        Config(init_std=0.2)


def test_fisher_vector_product_is_the_hessian_of_the_kl_through_the_adaptation(gathered):
    policy, params, rule, data = gathered(FAMILY, SMALL)
    objective = Objective(policy, rule, data, params, SMALL.tasks)
    theta = flatten(params).requires_grad_()
    description = objective.adapted(theta).description()
    product = trust_region.gauss_newton_product(description, theta, objective.fisher)

    def mean_kl(vector):
        kl = objective.old.kl(objective.adapted(vector))
        return (kl * data.query.weights).sum() / SMALL.tasks

    gradient = torch.autograd.grad(mean_kl(theta), theta, create_graph=True)[0]
    v = torch.randn(len(theta), dtype=theta.dtype, generator=Key(2).torch())
    (double_backward,) = torch.autograd.grad(gradient @ v, theta)
    torch.testing.assert_close(product(v), double_backward, rtol=1e-7, atol=1e-12)


def test_accepted_steps_keep_the_measured_kl_within_the_bound_and_improve():
    config = replace(SMALL, tasks=5, episodes=10)
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, config.hidden)
    params, rule = policy.init(Key(0).torch()), inner.Rule(config.inner_step_size)
    env = FAMILY.make_vec(FAMILY.fixed("train", config.tasks), config.episodes)
    accepted = 0
    for i in range(4):
        data = adapt_to_tasks(env, policy, params, rule, Key(i), 0.99, 1.0)
        before = flatten(params)
        params, metrics = maml_trpo.meta_step(policy, params, data, config)
        accepted += metrics["trust_region/accepted"]
        if metrics["trust_region/accepted"]:
            _, kl = Objective(policy, rule, data, unflatten(before, params), config.tasks).evaluate(flatten(params))
            assert kl <= config.max_kl + 1e-9
            assert metrics["trust_region/kl"] == pytest.approx(float(kl), rel=1e-4)
            assert metrics["trust_region/improvement"] > 0
    assert accepted >= 3


def test_damping_is_added_to_the_diagonal_of_the_curvature(gathered, monkeypatch):
    policy, params, _rule, data = gathered(FAMILY, SMALL)
    products, solve = [], trust_region.conjugate_gradient

    def spy(product, b, iterations):
        products.append(product(torch.arange(1.0, len(b) + 1, dtype=b.dtype)))
        return solve(product, b, iterations)

    monkeypatch.setattr(trust_region, "conjugate_gradient", spy)
    for damping in (0.0, 0.5):
        maml_trpo.meta_step(policy, params, data, replace(SMALL, cg_damping=damping))
    v = torch.arange(1.0, len(products[0]) + 1, dtype=torch.float64)
    torch.testing.assert_close(products[1] - products[0], 0.5 * v)


def test_the_full_step_has_the_kl_it_may_have(gathered):
    """Near the start the KL is half the squared length of the step in the Fisher metric; at worst one backtrack."""
    policy, params, _rule, data = gathered(FAMILY, SMALL)
    config = replace(SMALL, max_kl=1e-8)
    _, metrics = maml_trpo.meta_step(policy, params, data, config)
    assert metrics["trust_region/line_search_steps"] <= 2
    assert 0.8**2 * 0.99 < metrics["trust_region/kl"] / config.max_kl <= 1


def test_how_far_adapting_goes_is_the_kl_of_normals_written_out(gathered):
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, inner_steps=2))
    measured = sum(Objective(policy, rule, part, params, SMALL.tasks).adaptation_kl() for part in data.shards())
    (m0, s0), (m2, s2) = (
        policy.distribution(iterate, data.support[0].episodes.obs).description()
        for iterate in (data.iterates[0], data.iterates[2])
    )
    kl = (s2 - s0 + (torch.exp(2 * s0) + (m0 - m2) ** 2) / (2 * torch.exp(2 * s2)) - 0.5).sum(-1)
    assert measured > 1e-4
    torch.testing.assert_close(measured, (kl * data.support[0].weights).sum() / SMALL.tasks)


def test_shards_add_up_to_the_whole(gathered):
    policy, params, rule, data = gathered(FAMILY, SMALL)
    theta, v = flatten(params), torch.ones(len(flatten(params)), dtype=torch.float64)
    whole = Objective(policy, rule, data, params, SMALL.tasks)
    shards = [Objective(policy, rule, part, params, SMALL.tasks) for part in data.shards()]
    parts = [shard.local(theta) for shard in shards]
    assert len(parts) == 2
    torch.testing.assert_close(sum(part.loss for part in parts), whole.local(theta).loss)
    torch.testing.assert_close(sum(part.gradient for part in parts), whole.local(theta).gradient)
    torch.testing.assert_close(sum(shard.curvature(theta)(v) for shard in shards), whole.curvature(theta)(v))


def test_threads_of_the_update_change_nothing():
    config = replace(SMALL, tasks=5)
    policy = mlp_policy(FAMILY.observation_space, FAMILY.action_space, config.hidden)
    params, rule = policy.init(Key(0).torch()), inner.Rule(0.1)
    env = FAMILY.make_vec(FAMILY.fixed("train", 5), 4)
    data = adapt_to_tasks(env, policy, params, rule, Key(1), 0.99, 1.0)
    one, *others = (
        flatten(maml_trpo.meta_step(policy, params, data, replace(config, threads=n))[0]) for n in (1, 2, 3)
    )
    assert not torch.equal(one, flatten(params))
    assert all(torch.equal(one, other) for other in others)


def test_thinning_the_curvature_to_all_steps_changes_nothing_and_to_fewer_little(gathered):
    policy, params, rule, data = gathered(FAMILY, replace(SMALL, episodes=20))
    theta = flatten(params).requires_grad_()

    def curved(fraction):
        objective = Objective(policy, rule, data.thinned(fraction), params, SMALL.tasks)
        description = objective.adapted(theta).description()
        v = torch.ones_like(theta)
        return trust_region.gauss_newton_product(description, theta, objective.fisher)(v)

    whole, same, half = curved(1.0), Objective(policy, rule, data, params, SMALL.tasks), curved(0.5)
    reference = trust_region.gauss_newton_product(same.adapted(theta).description(), theta, same.fisher)(
        torch.ones_like(theta)
    )
    torch.testing.assert_close(whole, reference)
    assert 0 < (half - whole).norm() / whole.norm() < 0.5


@pytest.mark.parametrize(("fraction", "passes"), [(1.0, 1), (0.5, 2)])
def test_loss_gradient_and_curvature_share_a_pass_where_their_episodes_are_the_same(
    gathered, monkeypatch, fraction, passes
):
    policy, params, _, data = gathered(FAMILY, SMALL)
    differentiable, adapted = [], Objective.adapted

    def spy(self, theta):
        if torch.is_grad_enabled():
            differentiable.append(theta)
        return adapted(self, theta)

    monkeypatch.setattr(Objective, "adapted", spy)
    maml_trpo.meta_step(policy, params, data, replace(SMALL, curvature_fraction=fraction, threads=1))
    assert len(differentiable) == passes * len(list(data.shards()))


def test_the_curvature_is_that_of_the_thinned_episodes(gathered, monkeypatch):
    policy, params, rule, data = gathered(FAMILY, SMALL)
    products, solve = [], trust_region.conjugate_gradient

    def spy(product, b, iterations):
        products.append(product(b))
        return solve(product, b, iterations)

    monkeypatch.setattr(trust_region, "conjugate_gradient", spy)
    maml_trpo.meta_step(policy, params, data, replace(SMALL, curvature_fraction=0.5))
    theta = flatten(params)
    b = -Objective(policy, rule, data, params, SMALL.tasks).local(theta).gradient  # of all episodes
    thinned = Objective(policy, rule, data.thinned(0.5), params, SMALL.tasks).curvature(theta)
    torch.testing.assert_close(products[0], thinned(b) + SMALL.cg_damping * b)


def trained(folder, config=SMALL):
    run = Run.create(folder, learner="maml-trpo", config=config, source=FAMILY, seed=3)
    maml_trpo.train(config, FAMILY, run)
    return run


def test_a_run_repeats_bit_for_bit_and_resumes_so(tmp_path):
    once, again = trained(tmp_path / "a"), trained(tmp_path / "b")
    metrics = (tmp_path / "a/metrics.jsonl").read_bytes()
    assert metrics == (tmp_path / "b/metrics.jsonl").read_bytes()
    short = replace(SMALL, iterations=2)
    trained(tmp_path / "c", short)
    resumed = Run.resume(tmp_path / "c", learner="maml-trpo", config=SMALL, source=FAMILY, seed=3)
    maml_trpo.train(SMALL, FAMILY, resumed)
    assert metrics == (tmp_path / "c/metrics.jsonl").read_bytes()
    states = [run.restore()[1]["params"] for run in (once, again, resumed)]
    assert all(torch.equal(states[0][n], state[n]) for state in states[1:] for n in states[0])


def test_metrics_have_the_promised_diagnostics(tmp_path):
    line = trained(tmp_path / "run", replace(SMALL, iterations=1, validate_every=1, validation_tasks=2)).metrics()[0]
    for name in ("kl", "improvement", "line_search_steps", "cg_residual"):
        assert f"trust_region/{name}" in line
    assert {"return/before", "return/after", "return/validation_0", "return/validation_1"} <= set(line)
    assert {"policy/entropy", "policy/adaptation_kl"} <= set(line)
    assert "baseline/explained_variance_query" in line
    assert line["episodes/steps"] == 2 * SMALL.tasks * SMALL.episodes * FAMILY.horizon  # none ends at its goal yet


def test_training_counts_the_steps_really_taken(tmp_path):
    hopper = make_family("metarl/HopperRandomParams-v0")
    run = Run.create(tmp_path / "run", learner="maml-trpo", config=SMALL, source=hopper, seed=3)
    maml_trpo.train(replace(SMALL, iterations=1), hopper, run)
    (line,) = run.metrics()
    episodes = 2 * SMALL.tasks * SMALL.episodes
    assert episodes < line["episodes/steps"] < 0.5 * episodes * hopper.horizon


def test_bad_settings_say_what_is_allowed():
    with pytest.raises(UserError, match=r"--inner-step-size is -1; it must be above 0"):
        Config(inner_step_size=-1)
    with pytest.raises(UserError, match=r"--gamma is 2; it must be between 0 and 1"):
        Config(gamma=2)


def test_the_measured_kl_is_that_of_the_adapted_policies(gathered):
    policy, params, rule, data = gathered(FAMILY, SMALL)
    objective = Objective(policy, rule, data, params, SMALL.tasks)
    theta = flatten(params) + 0.05
    _, measured = objective.evaluate(theta)
    old = policy.distribution(data.iterates[-1], data.query.episodes.obs)
    new = objective.adapted(theta)
    normals = [torch.distributions.Normal(d.mean, d.log_std.exp().expand_as(d.mean)) for d in (old, new)]
    kl = torch.distributions.kl_divergence(*normals).sum(-1)
    valid = data.query.episodes.valid
    expected = torch.stack([kl[t][valid[t]].mean() for t in range(SMALL.tasks)]).mean()
    assert expected > 1e-4
    torch.testing.assert_close(measured, expected, rtol=1e-5, atol=0)
