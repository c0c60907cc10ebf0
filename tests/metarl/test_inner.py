import pytest
import torch

from metarl.meta.inner import Rule, adapt, stack, step, transformed


def quadratic(params, target):
    """Half the squared distance: the gradient is w - target."""
    return 0.5 * ((params["w"] - target) ** 2).sum(-1)


W = torch.tensor([4.0, 8.0])
GOAL = torch.tensor([0.0, 2.0])


def test_step_literal():
    found = step({"w": W}, quadratic, GOAL, Rule(0.5))
    assert found["w"].tolist() == [2.0, 5.0]
    assert W.tolist() == [4.0, 8.0]  # nothing mutated


def test_adapt_returns_every_iterate():
    iterates = adapt({"w": W}, quadratic, GOAL, Rule(0.5, steps=2))
    assert [x["w"].tolist() for x in iterates] == [[4, 8], [2, 5], [1, 3.5]]


def test_zero_steps_is_no_adaptation():
    params = {"w": W}
    assert adapt(params, quadratic, GOAL, Rule(0.5, steps=0)) == [params]


def test_collect_is_called_with_the_current_iterate():
    seen = []

    def collect(params, k):
        seen.append((k, params["w"].tolist()))
        return GOAL

    adapt({"w": W}, quadratic, collect, Rule(0.5, steps=2))
    assert seen == [(0, [4.0, 8.0]), (1, [2.0, 5.0])]


def test_step_sizes_a_step_and_the_last_one_stays():
    iterates = adapt({"w": W}, quadratic, GOAL, Rule((0.5, 0.25), steps=3))
    assert [x["w"][0].item() for x in iterates] == [4, 2, 1.5, 1.125]


def at_least_five(params):
    return {"w": params["w"].clamp(min=5.0)}


@pytest.mark.parametrize("order", [1, 2])
def test_every_step_is_put_back_within_bounds_and_leaves_them_when_the_gradient_says_so(order):
    """Towards 0 and 2 with size .5: (4, 8) -> (2, 5), put back to (5, 5); then towards 9 and 9: (7, 7)."""
    rule = Rule(0.5, steps=2, order=order, project=at_least_five)
    iterates = adapt({"w": W}, quadratic, lambda _, k: (GOAL, torch.tensor([9.0, 9.0]))[k], rule)
    assert [x["w"].tolist() for x in iterates] == [[4, 8], [5, 5], [7, 7]]


def test_step_sizes_a_parameter():
    rule = Rule({"w": torch.tensor([1.0, 0.0])})
    assert step({"w": W}, quadratic, GOAL, rule)["w"].tolist() == [0.0, 8.0]


def two_layers(params, batch):
    return ((params["body.w"] * batch + params["head.w"]) ** 2).sum(-1)


@pytest.mark.parametrize(
    ("pattern", "moved"), [("*", {"body.w", "head.w"}), ("head.*", {"head.w"}), ("body.* x.*", {"body.w"})]
)
def test_only_what_the_pattern_names_moves(pattern, moved):
    params = {"body.w": torch.ones(2), "head.w": torch.ones(2)}
    found = step(params, two_layers, torch.ones(2), Rule(0.1, moves=pattern))
    assert {name for name in params if not torch.equal(found[name], params[name])} == moved
    assert all(found[name] is params[name] for name in params if name not in moved)


def test_a_pattern_that_matches_nothing_says_so():
    with pytest.raises(ValueError, match=r"no parameter matches 'tail\.\*'; there are w"):
        step({"w": W}, quadratic, GOAL, Rule(0.1, moves="tail.*"))


def test_stacked_parameters_adapt_as_single_ones():
    goals = torch.tensor([[0.0, 2.0], [1.0, 1.0], [-3.0, 5.0]])
    together = adapt(stack({"w": W}, 3), quadratic, goals, Rule(0.3, steps=3))[-1]["w"]
    for t, goal in enumerate(goals):
        torch.testing.assert_close(together[t], adapt({"w": W}, quadratic, goal, Rule(0.3, steps=3))[-1]["w"])


def after_k_steps(w, order, steps=2):
    return adapt({"w": w}, quadratic, GOAL, Rule(0.5, steps=steps, order=order))[-1]["w"]


@pytest.mark.parametrize(("order", "expected"), [(2, 0.25), (1, 1.0)])
def test_order_decides_what_the_outer_gradient_sees(order, expected):
    # w_K - goal = (1 - alpha)^K (w - goal): the Jacobian is .25 to second order, 1 to first.
    w = W.clone().requires_grad_()
    (plain,) = torch.autograd.grad(after_k_steps(w, order).sum(), w)
    assert plain.tolist() == [expected, expected]
    # and the same under torch.func transforms, forwards and backwards
    functional = torch.func.jacrev(lambda w: after_k_steps(w, order))(W)
    torch.testing.assert_close(functional, expected * torch.eye(2))
    torch.testing.assert_close(torch.func.jacfwd(lambda w: after_k_steps(w, order))(W), expected * torch.eye(2))


@pytest.mark.parametrize("order", [1, 2])
def test_learned_step_sizes_receive_their_gradient(order):
    # d/d alpha of w - alpha (w - goal) is -(w - goal).
    alpha = torch.tensor([0.5, 0.5], requires_grad=True)
    moved = step({"w": W}, quadratic, GOAL, Rule({"w": alpha}, order=order))["w"]
    (found,) = torch.autograd.grad(moved.sum(), alpha)
    torch.testing.assert_close(found, -(W - GOAL))


def test_a_tensor_that_the_loss_holds_receives_its_gradient():
    held, w = torch.tensor(3.0, requires_grad=True), torch.tensor([1.0, 2.0])
    moved = adapt({"w": w}, lambda params, _: held * (params["w"] ** 2).sum(), None, Rule(0.1))[-1]["w"]
    (found,) = torch.autograd.grad(moved.sum(), held)
    assert float(found) == pytest.approx(-0.1 * 2 * 3.0)  # of w - 0.1 * 2 * held * w


@pytest.mark.parametrize("order", [1, 2])
def test_parameters_that_want_no_gradient_come_back_without_a_graph(order):
    start = {"w": torch.tensor([1.0, 2.0])}
    moved = adapt(start, lambda params, _: (params["w"] ** 2).sum(), None, Rule(0.1, order=order))[-1]["w"]
    assert not moved.requires_grad
    assert not start["w"].requires_grad
    with torch.no_grad():
        wanted = {"w": start["w"].clone().requires_grad_()}
        assert not adapt(wanted, lambda p, _: (p["w"] ** 2).sum(), None, Rule(0.1, order=order))[-1]["w"].requires_grad


def test_transforms_are_noticed():
    seen = []
    torch.func.vmap(lambda x: (seen.append(transformed()), x)[1])(torch.ones(2))
    torch.func.grad(lambda x: (seen.append(transformed()), x.sum())[1])(torch.ones(2))
    assert seen == [True, True]
    assert not transformed()


def test_views_made_without_a_graph_are_adapted_like_any_other_values():
    """Parameters that are parts of one vector which wants gradients, adapted where nothing is recorded."""
    theta = torch.tensor([1.0, -2.0, 0.5, 3.0])
    data = torch.tensor([[1.0, 2.0], [0.5, -1.0], [2.0, 0.0]])

    def loss(params, x):
        return ((params["w"] * x).sum(-1) - params["b"].sum(-1)) ** 2

    def adapted(vector):
        with torch.no_grad():
            params = stack({"w": vector[:2], "b": vector[2:].view(2)}, 3)
            return adapt(params, loss, data, Rule(0.1))[-1]

    once, again = adapted(theta), adapted(theta.clone().requires_grad_())
    for name, value in once.items():
        assert torch.equal(value, again[name]), name
