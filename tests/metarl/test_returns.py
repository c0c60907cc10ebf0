import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.ops import baselines, returns


def test_discount_literal():
    assert returns.discount(torch.tensor([1.0, 2.0, 4.0]), 0.5).tolist() == [3.0, 4.0, 4.0]


def test_returns_stop_at_the_end_of_the_episode():
    r_t = torch.tensor([[1.0, 1.0, 99.0]])
    valid = torch.tensor([[True, True, False]])
    assert returns.discounted_returns(r_t, valid, 0.9).tolist() == [[pytest.approx(1.9), 1.0, 0.0]]


def test_gae_literal():
    # delta = [1 + .5*2 - 1, 2 + .5*0 - 2] = [1, 0]; A = [1 + .25*0, 0]
    r_t, v_t = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])
    assert returns.gae(r_t, v_t, torch.ones(2, dtype=torch.bool), 0.5, 0.5).tolist() == [1.0, 0.0]
    # and with a wrong value at the end: delta = [1, 1], A = [1 + .25, 1]
    v_t = torch.tensor([1.0, 1.0])
    r_t = torch.tensor([1.5, 2.0])
    assert returns.gae(r_t, v_t, torch.ones(2, dtype=torch.bool), 0.5, 0.5).tolist() == [1.25, 1.0]


@given(seed=st.integers(0, 1000), length=st.integers(1, 7))
def test_lambda_one_is_return_minus_value(seed, length):
    generator = torch.Generator().manual_seed(seed)
    r_t, v_t = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64).unbind(0)
    valid = (torch.arange(7) < length).expand(3, 7)
    expected = (returns.discounted_returns(r_t, valid, 0.97) - v_t) * valid
    torch.testing.assert_close(returns.gae(r_t, v_t, valid, 0.97, 1.0), expected)


def test_lambda_zero_is_the_temporal_difference():
    r_t, v_t = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])
    found = returns.gae(r_t, v_t, torch.ones(3, dtype=torch.bool), 0.9, 0.0)
    torch.testing.assert_close(found, torch.tensor([1 + 0.9 * 1 - 0.5, 2 + 0.9 * 2 - 1, 3 - 2.0]))


def test_normalise_counts_only_valid_entries():
    x = torch.tensor([[[1.0, 3.0, 1e6]]])
    found = returns.normalise(x, torch.tensor([[[True, True, False]]]), (1, 2))
    torch.testing.assert_close(found, torch.tensor([[[-1.0, 1.0, 0.0]]]))


def test_normalise_leaves_nothing_of_what_is_all_the_same():
    x = torch.full((1, 1, 4), 7.0)
    assert returns.normalise(x, torch.ones(1, 1, 4, dtype=torch.bool), (1, 2)).tolist() == [[[0.0] * 4]]


def test_linear_features_literal():
    """Of the third step: the observation, clipped to +-10, its square, t / 100 to the third power, and 1."""
    obs = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, -250.0]])
    assert baselines.linear_features(obs)[2].tolist() == pytest.approx([3, -10, 9, 100, 0.02, 0.0004, 0.000008, 1])


def test_the_ridge_makes_sense_of_features_that_say_nothing():
    """Observations of 0 for ever: without the ridge the equations have no solution; with it returns are by time."""
    obs, valid = torch.zeros(1, 3, 4, 2), torch.ones(1, 3, 4, dtype=torch.bool)
    target = torch.tensor([4.0, 3.0, 2.0, 1.0]).expand(1, 3, 4)
    assert float((baselines.fit_linear_baseline(obs, target, valid) - target).abs().max()) < 0.05


def test_baseline_recovers_what_its_features_can_say():
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(2, 5, 30, 2, generator=generator)
    t = torch.arange(30) / 100
    target = 3 * obs[..., 0] - obs[..., 1] ** 2 + 7 * t**2 + 1
    valid = torch.ones(2, 5, 30, dtype=torch.bool)
    found = baselines.fit_linear_baseline(obs, target, valid, ridge=1e-9)
    torch.testing.assert_close(found, target.double(), atol=1e-4, rtol=1e-4)
    assert returns.explained_variance(*returns.residuals(found, target, valid)) == pytest.approx(1, abs=1e-6)


def test_baseline_ignores_padding():
    generator = torch.Generator().manual_seed(0)
    obs, target = torch.randn(1, 4, 10, 2, generator=generator), torch.randn(1, 4, 10, generator=generator)
    valid = (torch.arange(10) < 6).expand(1, 4, 10)
    clean = baselines.fit_linear_baseline(obs, target, valid)[valid]
    dirty = baselines.fit_linear_baseline(obs, torch.where(valid, target, 1e6), valid)[valid]
    torch.testing.assert_close(clean, dirty)


def test_explained_variance_of_a_constant_is_zero():
    target, valid = torch.arange(4.0), torch.ones(4, dtype=torch.bool)
    assert returns.explained_variance(*returns.residuals(torch.full((4,), 9.0), target, valid)) == pytest.approx(0)
