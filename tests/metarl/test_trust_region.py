import pytest
import torch

from metarl.nets.distributions import Categorical, Gaussian
from metarl.nets.mlp import MLP
from metarl.nets.policies import CategoricalPolicy, GaussianPolicy
from metarl.ops import trust_region


def spd(n, seed=0):
    a = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return a @ a.T + torch.eye(n, dtype=torch.float64)


def test_conjugate_gradient_solves_in_n_steps():
    a, b = spd(6), torch.arange(1.0, 7.0, dtype=torch.float64)
    found = trust_region.conjugate_gradient(lambda v: a @ v, b, iterations=6, tolerance=0)
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b))
    assert found.residual < 1e-8
    assert found.iterations == 6


def test_conjugate_gradient_reports_its_residual():
    a, b = spd(8), torch.ones(8, dtype=torch.float64)
    found = trust_region.conjugate_gradient(lambda v: a @ v, b, iterations=2)
    assert found.residual == pytest.approx(float((b - a @ found.x).norm() / b.norm()))
    assert found.curvature == pytest.approx(float(found.x @ a @ found.x))
    assert found.iterations == 2


def test_conjugate_gradient_of_zero_is_zero():
    assert not trust_region.conjugate_gradient(lambda v: v, torch.zeros(3)).x.any()


def flat_policy(policy, seed=0):
    params = {n: v.double() for n, v in policy.init(torch.Generator().manual_seed(seed)).items()}
    theta = torch.cat([v.reshape(-1) for v in params.values()])

    def unflatten(vector):
        parts = vector.split([v.numel() for v in params.values()])
        return {n: p.view(params[n].shape) for n, p in zip(params, parts, strict=True)}

    return theta, unflatten


@pytest.mark.parametrize("policy", [GaussianPolicy(MLP((3, 4, 2))), CategoricalPolicy(MLP((3, 4, 3)))])
def test_product_equals_the_explicit_hessian_of_the_kl(policy):
    theta, unflatten = flat_policy(policy)
    obs = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    old = policy.distribution(unflatten(theta), obs)

    def mean_kl(vector):
        return old.kl(policy.distribution(unflatten(vector), obs)).mean()

    hessian = torch.func.hessian(mean_kl)(theta)
    theta = theta.requires_grad_()
    description = policy.distribution(unflatten(theta), obs).description()
    product = trust_region.gauss_newton_product(
        description, theta, lambda u: tuple(part / len(obs) for part in old.fisher(u))
    )
    explicit = torch.stack([product(row) for row in torch.eye(len(theta), dtype=torch.float64)])
    torch.testing.assert_close(explicit, hessian, atol=1e-10, rtol=1e-8)


def test_fisher_is_the_expected_outer_product_of_scores():
    logits = torch.log_softmax(torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64), -1)
    p = logits.exp()
    scores = torch.eye(3, dtype=torch.float64) - p  # gradient of log p_a in the logits, a row an action
    expected = torch.einsum("a,ai,aj->ij", p, scores, scores)
    found = torch.stack([Categorical(logits).fisher((row,))[0] for row in torch.eye(3, dtype=torch.float64)])
    torch.testing.assert_close(found, expected)
    mean, log_std = Gaussian(torch.zeros(1), torch.tensor([0.7])).fisher((torch.ones(1), torch.ones(1)))
    assert float(mean) == pytest.approx(2.718281828**-1.4)
    assert float(log_std) == 2


def test_line_search_accepts_the_first_step_within_the_bound():
    # loss (x - 1)^2, KL x^2: the full step to 4 is too far, .8 * 4 = 3.2 and so on until x^2 <= 1.7
    found = trust_region.line_search(
        lambda x: (float((x - 1) ** 2), float(x**2)), torch.zeros(1), torch.tensor([4.0]), 1.0, max_kl=1.7
    )
    assert found.accepted
    assert float(found.theta) == pytest.approx(4 * 0.8**6, rel=1e-5)  # 1.049; 4 * .8^5 = 1.31 has KL 1.72
    assert found.steps == 7
    assert found.kl <= 1.7


def test_line_search_stays_where_nothing_improves():
    found = trust_region.line_search(lambda x: (2.0, 0.0), torch.zeros(1), torch.ones(1), 1.0, 1.0, attempts=3)
    assert not found.accepted
    assert float(found.theta) == 0
    assert (found.steps, found.loss, found.kl) == (3, 1.0, 0.0)
    assert trust_region.line_search(lambda x: (2.0, 0.0), torch.zeros(1), torch.ones(1), 1.0, 1.0).steps == 15
