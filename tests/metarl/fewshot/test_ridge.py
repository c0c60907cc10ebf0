"""R2-D2: ridge regression in closed form by hand, both its forms, its gradients, and the rule made of it."""

import math

import pytest
import torch
from torch import nn

from metarl.errors import NonFiniteError, UserError
from metarl.fewshot.learners import r2d2
from metarl.fewshot.learners.r2d2 import R2D2
from metarl.fewshot.networks.ridge import ridge
from metarl.seeding import Key


def drawn(*shape, stream="x"):
    return torch.randn(*shape, generator=Key(0)("ridge", stream).torch(), dtype=torch.float64)


def test_ridge_by_hand():
    """Rows (1, 0) and (1, 2), targets 1 and 3, penalty 1/2, so c = 1: (X'X + I) = [[3, 2], [2, 5]], X'y = (4, 6),
    w = (8, 10) / 11."""
    x = torch.tensor([[1.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    half = torch.tensor(0.5, dtype=torch.float64)
    expected = torch.tensor([[8 / 11], [10 / 11]], dtype=torch.float64)
    torch.testing.assert_close(ridge(x, y, half), expected, rtol=1e-14, atol=0)
    # a column of zeros more, so that the other system is the smaller one: its weight is 0
    wide = torch.cat([x, torch.zeros(2, 1, dtype=torch.float64)], 1)
    torch.testing.assert_close(ridge(wide, y, half), torch.cat([expected, expected.new_zeros(1, 1)]))
    # each row twice is a column's system, and the same mean squared error
    torch.testing.assert_close(ridge(x.repeat(2, 1), y.repeat(2, 1), half), expected)


@pytest.mark.parametrize(("rows", "size"), [(3, 7), (7, 3), (5, 5)])
def test_it_is_the_minimum(rows, size):
    """Where the gradient of the mean squared error and the penalty is 0."""
    x, y, penalty = drawn(rows, size), drawn(rows, 2, stream="y"), torch.tensor(0.3, dtype=torch.float64)
    w = ridge(x, y, penalty).requires_grad_()
    (((x @ w - y) ** 2).sum() / rows + penalty * (w**2).sum()).backward()
    assert w.grad.abs().max() < 1e-12


@pytest.mark.parametrize(("rows", "size"), [(3, 5), (5, 3)])
def test_gradients_of_the_solution_are_finite_differences(rows, size):
    x, y = drawn(rows, size).requires_grad_(), drawn(rows, 2, stream="y").requires_grad_()
    penalty = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ridge, (x, y, penalty))


def test_the_rule_by_hand():
    """One feature: -1 is of class 0, 1 of class 1. With the column of ones X'X = 2 I, X'Y = [[-1, 1], [1, 1]]; penalty
    1 makes c = 2, so W = X'Y / 4, and a query at 3 has logits (-2, 4) / 4, times the scale."""
    support, labels = torch.tensor([[[-1.0], [1.0]]]), torch.tensor([[0, 1]])
    found = R2D2(nn.Identity(), "running", 1.0, 2.0).compare(support, labels, torch.tensor([[[3.0]]]), 2)
    z = math.log(math.exp(-1) + math.exp(2))
    torch.testing.assert_close(found, torch.tensor([[[-1 - z, 2 - z]]]))


def test_the_intercept_by_hand():
    """Features of zero say nothing: two images of class 0, one of class 1; penalty 1 makes c = 3, so W = (2, 1) / 6."""
    support, labels = torch.zeros(1, 3, 1), torch.tensor([[0, 0, 1]])
    found = R2D2(nn.Identity(), "running", 1.0, 6.0).compare(support, labels, torch.tensor([[[5.0]]]), 2)
    z = math.log(math.exp(2) + math.exp(1))
    torch.testing.assert_close(found, torch.tensor([[[2 - z, 1 - z]]]))


def test_penalty_and_scale_are_learned():
    network = R2D2(nn.Identity(), "running", 50.0, 10.0)
    assert network.log_penalty.exp().item() == pytest.approx(50)
    assert network.log_scale.exp().item() == pytest.approx(10)
    support, query = drawn(1, 4, 6).float(), drawn(1, 3, 6, stream="q").float()
    network.compare(support, torch.tensor([[0, 1, 0, 1]]), query, 2)[..., 0].sum().backward()
    assert network.log_penalty.grad.abs() > 0
    assert network.log_scale.grad.abs() > 0


def test_what_cannot_be_solved_is_an_error():
    """Equal rows, so long that the penalty is lost in rounding."""
    support = (drawn(1, 3).float() * 1e20).repeat(1, 8, 1)
    with pytest.raises(NonFiniteError, match="a class probability is nan"):
        R2D2(nn.Identity(), "running", 1.0, 1.0).judge(support, torch.tensor([[0, 1] * 4]), support, 2)


@pytest.mark.parametrize("name", ["penalty", "scale"])
def test_settings_are_above_zero(name):
    with pytest.raises(UserError, match=f"--{name} is 0.0; it must be above 0"):
        r2d2.Config(**{name: 0.0})
