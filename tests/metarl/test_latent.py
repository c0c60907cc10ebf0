"""What the parts of PEARL compute: literals, identities and finite differences."""

import math

import numpy as np
import pytest
import torch

from metarl.envs import make_family
from metarl.errors import NonFiniteError, UserError
from metarl.learning.replay import ROOM, Batch, Replay, replay_bytes
from metarl.learning.soft_actor_critic import (
    PENALTY,
    SoftActorCritic,
    SoftSettings,
    bellman_target,
    critic_loss,
    follow,
    value_target,
)
from metarl.nets.context_encoder import ContextEncoder, Posterior
from metarl.nets.distributions import TanhGaussian
from metarl.nets.latent_actor_critic import LatentActorCritic
from metarl.nets.mlp import MLP
from metarl.nets.params import below
from metarl.runs.tensor_file import LARGEST
from metarl.sampling.latent_episodes import latent_noise, latent_rollout, transitions
from metarl.seeding import Key
from metarl.tasks import Tasks

NETWORKS = LatentActorCritic(2, 2, 3, (6,), (5,))
SETTINGS = SoftSettings(
    gamma=0.99, reward_scale=5.0, step_size=3e-4, target_rate=0.005, meta_batch=2, batch=4, context=5, gradient_steps=2
)


def generator(seed=0):
    return Key(seed)("test").torch()


def normals(*shape, seed=1):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def encoder():
    made = ContextEncoder(MLP((4, 6, 6), "relu"))
    return made, {name: value.double() for name, value in made.network.init(generator()).items()}


def learner(double=True, settings=SETTINGS):
    params = {name: value * 2 for name, value in NETWORKS.init(generator()).items()}
    return SoftActorCritic(NETWORKS, {n: v.double() if double else v for n, v in params.items()}, settings)


def batch(double=True):
    """Two tasks, four transitions each."""
    values = Batch(
        normals(2, 4, 2), normals(2, 4, 2).tanh(), normals(2, 4), normals(2, 4, 2, seed=2), torch.zeros(2, 4)
    )
    values.terminated[0, 1] = 1.0
    return values if double else Batch(**{name: value.float() for name, value in vars(values).items()})


# ---- the product of Gaussians


def test_a_product_of_gaussians_is_the_hand_computed_one():
    """N(1, 1/2) N(-2, 1/4) N(0, 1): precision 2 + 4 + 1, mean (2 - 8 + 0) / 7."""
    factors = [(1.0, 2.0), (-2.0, 4.0), (0.0, 1.0)]
    product = Posterior.empty((1,))
    for mean, precision in factors:
        product = product.times(Posterior(torch.tensor([precision]), torch.tensor([precision * mean])))
    assert product.variance.item() == pytest.approx(1 / 7)
    assert product.mean.item() == pytest.approx(-6 / 7)
    kl = 0.5 * (1 / 7 + 36 / 49 - 1 + math.log(7))
    assert product.kl_from_prior().item() == pytest.approx(kl)
    assert product.sample(torch.tensor([2.0])).item() == pytest.approx(-6 / 7 + 2 / math.sqrt(7))


def test_nothing_seen_is_the_prior():
    empty = Posterior.empty((2, 3))
    assert empty.mean.tolist() == [[0.0] * 3] * 2
    assert empty.variance.tolist() == [[1.0] * 3] * 2
    assert empty.kl_from_prior().tolist() == [0.0, 0.0]
    made, params = encoder()
    unseen = made(params, normals(2, 5, 4), torch.zeros(2, 5, dtype=torch.bool))
    assert unseen.mean.eq(0).all()
    assert unseen.variance.eq(1).all()


def test_an_encoding_is_the_product_of_its_networks_outputs():
    made, params = encoder()
    context = normals(2, 5, 4)
    mean, spread = made.network(params, context).chunk(2, -1)
    variance = torch.log1p(torch.exp(spread))  # softplus
    precision = (1 / variance).sum(1)
    posterior = made(params, context)
    torch.testing.assert_close(posterior.variance, 1 / precision)
    torch.testing.assert_close(posterior.mean, (mean / variance).sum(1) / precision)
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean, posterior.variance.sqrt()),
        torch.distributions.Normal(torch.zeros(2, 3).double(), 1.0),
    )
    torch.testing.assert_close(posterior.kl_from_prior(), reference.sum(-1))


def test_a_variance_is_at_least_1e_7():
    """A network that says softplus(-100): its factor would have no width."""
    made, params = encoder()
    params = {name: torch.zeros_like(value) for name, value in params.items()}
    params["1.bias"][3:] = -100.0
    assert made(params, normals(1, 1, 4)).variance.tolist() == [[pytest.approx(1e-7)] * 3]


def test_the_order_of_transitions_and_their_parts_do_not_matter():
    made, params = encoder()
    context, order = normals(2, 7, 4), torch.randperm(7, generator=generator())
    whole, mixed = made(params, context), made(params, context[:, order])
    parts = made(params, context[:, :3]).times(made(params, context[:, 3:]))
    seen = torch.ones(2, 7, dtype=torch.bool)
    seen[:, 4:] = False
    for other in (mixed, parts):
        torch.testing.assert_close(other.mean, whole.mean)
        torch.testing.assert_close(other.variance, whole.variance)
    torch.testing.assert_close(made(params, context, seen).mean, made(params, context[:, :4]).mean)


# ---- the policy


def test_log_densities_of_squashed_actions_are_those_of_torch():
    mean, log_std, noise = normals(4, 2), normals(4, 2, seed=2), normals(4, 2, seed=3)
    actions, log_prob = TanhGaussian(mean, log_std).sample_with_log_prob(noise)
    squash = [torch.distributions.TanhTransform()]
    theirs = torch.distributions.TransformedDistribution(torch.distributions.Normal(mean, log_std.exp()), squash)
    torch.testing.assert_close(log_prob, theirs.log_prob(actions).sum(-1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(actions, TanhGaussian(mean, log_std).sample(noise))
    assert TanhGaussian(mean, log_std).mode().equal(mean.tanh())


def test_log_densities_stay_finite_where_the_tangent_is_one():
    _, log_prob = TanhGaussian(torch.tensor([[50.0]]), torch.zeros(1, 1)).sample_with_log_prob(torch.zeros(1, 1))
    assert log_prob.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 50))


# ---- soft actor-critic


def test_targets_and_losses_are_the_hand_computed_ones():
    settings = SoftSettings(gamma=0.9, reward_scale=2.0)
    target = bellman_target(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([10.0, 10.0]), settings)
    assert target.tolist() == [11.0, 2.0]
    q = torch.tensor([[10.0, 4.0], [12.0, 2.0]])
    assert critic_loss(q, target).item() == (1 + 4) / 2 + (1 + 0) / 2
    assert value_target(q, torch.tensor([-1.0, 0.5])).tolist() == [11.0, 1.5]
    slow, fast = {"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}
    follow(slow, fast, 0.25)
    assert (slow["w"].item(), fast["w"].item()) == (1.5, 3.0)


def test_objectives_are_what_the_docstring_says():
    of, data, context, noise = learner(), batch(), normals(2, 5, 5), normals(2, 3)
    loss, z, _ = of.critic_objective(data, context, noise)
    posterior = of.infer(context)
    each = posterior.sample(noise)
    assert z.equal(each.repeat_interleave(4, 0))
    expected = SETTINGS.kl_weight * posterior.kl_from_prior().sum()
    for i in range(2):
        critic = {name: value[i] for name, value in of.parts["critics"].items()}
        errors = []
        for m in range(2):
            for n in range(4):
                x = torch.cat([data.obs[m, n], data.actions[m, n], each[m]])
                following = NETWORKS.v(of.parts["target"], data.next_obs[m, n], each[m])
                target = 5 * data.rewards[m, n] + 0.99 * (1 - data.terminated[m, n]) * following
                errors.append((NETWORKS.critic(critic, x[None])[0, 0] - target) ** 2)
        expected = expected + torch.stack(errors).mean()
    torch.testing.assert_close(loss, expected)

    obs, noise = data.obs.flatten(0, 1), normals(8, 2)
    policy_loss, value_loss, _ = of.actor_objective(obs, z, noise)
    distribution = NETWORKS.act(of.parts["policy"], obs, z)
    actions, log_prob = distribution.sample_with_log_prob(noise)
    least = NETWORKS.q(of.parts["critics"], obs, actions, z).amin(0)
    penalty = PENALTY * ((distribution.mean**2).mean() + (distribution.log_std**2).mean())
    torch.testing.assert_close(policy_loss, (log_prob - least).mean() + penalty)
    torch.testing.assert_close(value_loss, ((NETWORKS.v(of.parts["value"], obs, z) - least + log_prob) ** 2).mean())


def gradient_norms(of, loss):
    leaves = {name: value for name, value in of.params.items() if value.requires_grad}
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    norms = dict.fromkeys(("policy", "critics", "value", "encoder"), 0.0)
    for name, gradient in zip(leaves, gradients, strict=True):
        norms[name.partition(".")[0]] += 0.0 if gradient is None else float(gradient.abs().sum())
    return {part for part, norm in norms.items() if norm}


def test_the_encoder_learns_from_q_and_kl_alone():
    of, data, context = learner(), batch(), normals(2, 5, 5)
    loss, z, _ = of.critic_objective(data, context, normals(2, 3))
    assert gradient_norms(of, loss) == {"critics", "encoder"}
    policy_loss, value_loss, _ = of.actor_objective(data.obs.flatten(0, 1), z, normals(8, 2))
    assert gradient_norms(of, value_loss) == {"value"}
    assert gradient_norms(of, policy_loss) == {"policy", "critics"}  # through Q to the action; the step leaves Q alone
    assert not any(value.requires_grad for value in of.parts["target"].values())


def test_the_gradient_of_the_encoder_agrees_with_finite_differences():
    """The target sees z as data, so here it is the same for all z: every next state is terminal."""
    of, data, context, noise = learner(), batch(), normals(2, 5, 5), normals(2, 3)
    data.terminated.fill_(1.0)
    loss, *_ = of.critic_objective(data, context, noise)
    h, leaves = 1e-6, of.parts["encoder"]
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    for (name, value), gradient in zip(leaves.items(), gradients, strict=True):
        numeric = torch.zeros_like(value)
        with torch.no_grad():
            for place in np.ndindex(*value.shape):
                old, sides = value[place].item(), []
                for shifted in (old + h, old - h):
                    value[place] = shifted
                    sides.append(of.critic_objective(data, context, noise)[0])
                value[place] = old
                numeric[place] = (sides[0] - sides[1]) / (2 * h)
        torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-6, msg=name)


def test_a_step_moves_every_network_once_and_the_target_by_its_share():
    of = learner(double=False)
    before = {name: value.detach().clone() for name, value in of.params.items()}
    of.step(batch(double=False), normals(2, 5, 5).float(), np.random.default_rng(0))
    for name, value in of.params.items():
        moved = (value.detach() - before[name]).abs().max().item()
        if name.startswith("target"):
            other = name.replace("target", "value")
            expected = before[name] + 0.005 * (of.params[other].detach() - before[name])
            torch.testing.assert_close(value, expected)
        else:
            assert 0 < moved < 1.01 * SETTINGS.step_size, name


def test_numbers_that_are_not_finite_stop_before_the_step():
    of, data = learner(double=False), batch(double=False)
    data.rewards[0, 0] = torch.inf
    before = of.params["critics.0.weight"].detach().clone()
    with pytest.raises(NonFiniteError, match="gradient"):
        of.step(data, normals(2, 5, 5).float(), np.random.default_rng(0))
    assert of.params["critics.0.weight"].equal(before)


# ---- replay


def rows(first, count):
    """Transitions of one observed number and no others, counted on."""
    return torch.arange(first, first + count, dtype=torch.float32)[:, None].expand(-1, 5).clone()


def test_a_ring_keeps_the_latest_and_context_is_what_was_added_last():
    replay, rng = Replay(2, 5, 1, 1), np.random.default_rng(0)
    replay.add(0, rows(0, 4))
    replay.renew_context(0, 4)
    replay.add(1, rows(50, 2))
    replay.renew_context(1, 2)
    seen = replay.sample(np.array([0, 1]), 200, rng).obs[..., 0]
    assert set(seen[0].tolist()) == {0, 1, 2, 3}
    assert set(seen[1].tolist()) == {50, 51}
    replay.add(0, rows(4, 3))  # 0 and 1 go
    replay.renew_context(0, 3)
    replay.add(0, rows(7, 1))  # and 2
    drawn = replay.sample(np.array([0]), 200, rng)
    assert set(drawn.obs.flatten().tolist()) == {3, 4, 5, 6, 7}
    assert drawn.obs.shape == drawn.next_obs.shape == (1, 200, 1)
    assert drawn.rewards.shape == (1, 200)
    context = replay.context(np.array([0, 1]), 100, rng)
    assert context.shape == (2, 100, 3)
    assert set(context[0].flatten().tolist()) == {4, 5, 6}
    assert set(context[1].flatten().tolist()) == {50, 51}


def test_a_checkpoint_holds_what_is_filled_and_goes_on_alike():
    replay = Replay(3, 1000, 1, 1)
    for task, count in ((0, 1003), (1, 7), (2, 1)):
        for start in range(0, count, 500):
            replay.add(task, rows(start, min(500, count - start)))
        replay.renew_context(task, 1)
    state = replay.state()
    assert state["rows"].shape == (1000 + 7 + 1, 5)
    other = Replay(3, 1000, 1, 1)
    other.load(state)
    for each in (replay, other):
        each.add(0, rows(5000, 2))
    which = np.array([0, 1, 2])
    ours, theirs = (each.sample(which, 50, np.random.default_rng(1)) for each in (replay, other))
    assert all(getattr(ours, name).equal(getattr(theirs, name)) for name in vars(ours))
    assert other.context(which, 9, np.random.default_rng(2)).equal(replay.context(which, 9, np.random.default_rng(2)))
    with pytest.raises(UserError, match="does not fit this run's config"):
        Replay(2, 1000, 1, 1).load(state)
    with pytest.raises(UserError, match="does not fit this run's config"):
        Replay(3, 100, 1, 1).load(state)


def test_rings_that_no_checkpoint_could_hold_are_refused():
    most = (LARGEST - ROOM) // replay_bytes(100, 1, 111, 8)
    Replay(100, 10, 111, 8)
    with pytest.raises(UserError, match=rf"--capacity is {most + 1}: .* give at most {most}, or fewer --tasks"):
        Replay(100, most + 1, 111, 8)
    with pytest.raises(ValueError, match="6 transitions at once do not fit into a ring of 5"):
        Replay(1, 5, 1, 1).add(0, rows(0, 6))


def test_transitions_are_the_steps_whose_next_state_is_known():
    """2D navigation that ends at the goal: the step there is terminal; one cut by the time limit is left out."""
    family = make_family("metarl/Navigation2D-v0")
    tasks = Tasks({"goal": [[0.0, 0.0], [0.5, 0.5]]})
    params = {name: torch.zeros_like(value) for name, value in NETWORKS.init(generator()).items()}
    env = family.make_vec(tasks, 2)
    z = latent_noise(tasks, 2, 3, Key(0))
    assert z.shape == (2, 2, 3)
    episodes = latent_rollout(env, NETWORKS, below(params, "policy"), z, Key(0), likeliest=True)
    at_goal, away = transitions(episodes)
    assert at_goal.shape == (2, 8)  # two episodes of one step, which stays at the goal
    assert at_goal[:, -1].tolist() == [1.0, 1.0]
    assert away.shape == (2 * 99, 8)
    assert away[:, -1].eq(0).all()
    moving = latent_rollout(env, NETWORKS, below(params, "policy"), z, Key(0))
    own = transitions(moving)[1]
    start = torch.cat([moving.obs[1, 0, 0], moving.actions[1, 0, 0], moving.rewards[1, 0, :1], moving.obs[1, 0, 1]])
    assert own[0, :7].equal(start)
