"""Surrogates against literals, finite differences in float64, and one another."""

import math

import pytest
import torch

from metarl.ops.surrogates import adapted_penalty, clipped_surrogate, importance_ratio, reinforce


def test_reinforce_by_hand():
    surrogate = reinforce(torch.tensor([-1.0, -2.0, 0.5]), torch.tensor([2.0, -1.0, 3.0]))
    torch.testing.assert_close(surrogate, torch.tensor([-2.0, 2.0, 1.5]))


def test_importance_ratio_by_hand():
    log_prob, old = torch.tensor([math.log(0.5), -1.0, 0.3]), torch.tensor([math.log(0.25), -1.0, 0.3 + math.log(4)])
    surrogate = importance_ratio(log_prob, old, torch.tensor([3.0, -2.0, 8.0]))
    torch.testing.assert_close(surrogate, torch.tensor([6.0, -2.0, 2.0]))


def test_clipped_surrogate_by_hand():
    ratio, advantage = torch.tensor([1.5, 0.5, 0.5, 1.5, 1.1]), torch.tensor([2.0, 1.0, -1.0, -1.0, 3.0])
    surrogate = clipped_surrogate(ratio.log(), torch.zeros(5), advantage, 0.2)
    torch.testing.assert_close(surrogate, torch.tensor([2.4, 0.5, -0.8, -1.5, 3.3]))


def steps(seed=0, n=40):
    """Actions of a softmax over three logits, their advantages, and the logits they were taken under."""
    generator = torch.Generator().manual_seed(seed)
    old = torch.randn(3, dtype=torch.float64, generator=generator)
    actions = torch.randint(3, (n,), generator=generator)
    return old, actions, torch.randn(n, dtype=torch.float64, generator=generator)


def means(actions, advantages, old):
    """The mean surrogates as functions of the logits."""

    def log_prob(logits):
        return torch.log_softmax(logits, -1)[actions]

    return {
        "reinforce": lambda logits: reinforce(log_prob(logits), advantages).mean(),
        "importance_ratio": lambda logits: importance_ratio(log_prob(logits), log_prob(old), advantages).mean(),
        "clipped": lambda logits: clipped_surrogate(log_prob(logits), log_prob(old), advantages, 0.2).mean(),
        "unclipped": lambda logits: clipped_surrogate(log_prob(logits), log_prob(old), advantages, math.inf).mean(),
    }


@pytest.mark.parametrize("name", ["reinforce", "importance_ratio", "clipped", "unclipped"])
@pytest.mark.parametrize("distance", [0.02, 0.5])
def test_gradients_agree_with_finite_differences(name, distance):
    old, actions, advantages = steps()
    surrogate = means(actions, advantages, old)[name]
    logits = (old + distance * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(surrogate(logits), logits)
    h, eye, at = 1e-6, torch.eye(3, dtype=torch.float64), logits.detach()
    numeric = torch.stack([(surrogate(at + h * e) - surrogate(at - h * e)) / (2 * h) for e in eye])
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-9)


def test_where_the_policies_are_equal_all_have_the_policy_gradient():
    old, actions, advantages = steps()
    logits = old.clone().requires_grad_()
    gradients = {
        name: torch.autograd.grad(surrogate(logits), logits)[0]
        for name, surrogate in means(actions, advantages, old).items()
    }
    assert gradients["reinforce"].norm() > 0.01
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, gradients["reinforce"], msg=name)


def test_without_a_clip_the_clipped_surrogate_is_the_ratio():
    old, actions, advantages = steps()
    named = means(actions, advantages, old)
    assert torch.equal(named["unclipped"](old + 1.0), named["importance_ratio"](old + 1.0))
    far = old + torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    assert float(named["clipped"](far)) < float(named["importance_ratio"](far))  # a lower bound


def test_the_ratio_has_the_low_variance_curvature_and_reinforce_has_not():
    """With every action weighed by its probability the sum of surrogates is the expected advantage itself.

    Its Hessian is then that of sum_a pi(a) A(a): the ratio has it, `reinforce` lacks the outer product of the scores.
    """
    old, _, _ = steps()
    actions, advantage = torch.arange(3), torch.tensor([1.0, -2.0, 0.7], dtype=torch.float64)
    weights = 3 * old.softmax(-1) * advantage  # the mean over three actions becomes the expectation
    named = means(actions, weights, old)
    expected = torch.autograd.functional.hessian(lambda logits: (logits.softmax(-1) * advantage).sum(), old)
    assert expected.norm() > 0.1
    ratio = torch.autograd.functional.hessian(named["importance_ratio"], old)
    torch.testing.assert_close(ratio, expected)
    scores = torch.autograd.functional.jacobian(lambda logits: torch.log_softmax(logits, -1), old)
    outer = torch.einsum("a,ai,aj->ij", weights / 3, scores, scores)
    biased = torch.autograd.functional.hessian(named["reinforce"], old)
    torch.testing.assert_close(biased + outer, expected)
    assert outer.norm() > 0.1


@pytest.mark.parametrize(
    ("kl", "adapted"), [(0.0, 1.5), (0.0066, 1.5), (0.0067, 3.0), (0.01, 3.0), (0.0149, 3.0), (0.0151, 6.0)]
)
def test_a_penalty_follows_its_kl(kl, adapted):
    assert adapted_penalty(3.0, kl, 0.01) == adapted
