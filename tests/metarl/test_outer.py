import pytest
import torch

from metarl.meta import outer
from metarl.meta.inner import Rule
from metarl.meta.outer import Objective, Plan, batch_size, choose, maml, meta_gradient
from metarl.seeding import Key

PLANS = [Plan("loop"), Plan("loop", threads=2), Plan("threads", threads=2), Plan("vmap"), Plan("vmap", chunk=2)]
T, K, HIDDEN = 5, 6, 7


def network(params, x):
    return torch.tanh(x @ params["body.w"] + params["body.b"]) @ params["head.w"]


def loss(params, data):
    x, y = data
    return ((network(params, x) - y) ** 2).mean()


def query_loss(params, data):
    value = loss(params, data)
    return value, value.detach()


def problem(dtype=torch.float64):
    g = Key(0)("problem").torch()

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    params = {"body.w": normal(2, HIDDEN), "body.b": normal(HIDDEN), "head.w": normal(HIDDEN, 1)}
    support = (normal(T, K, 2), normal(T, K, 1))
    query = (normal(T, K, 2), normal(T, K, 1))
    return params, (support, query)


def by_hand(params, batch, alpha, steps, order=2):
    """A plain loop over tasks with torch.autograd, no code shared with the package."""
    leaves = {n: v.clone().requires_grad_() for n, v in params.items()}
    (sx, sy), (qx, qy) = batch
    total = 0.0
    for t in range(T):
        phi = dict(leaves)
        for _ in range(steps):
            grads = torch.autograd.grad(loss(phi, (sx[t], sy[t])), list(phi.values()), create_graph=order == 2)
            phi = {n: v - alpha * g for (n, v), g in zip(phi.items(), grads, strict=True)}
        total = total + loss(phi, (qx[t], qy[t])) / T
    grads = torch.autograd.grad(total, list(leaves.values()))
    return total.detach(), dict(zip(leaves, grads, strict=True))


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize(("steps", "order"), [(1, 2), (3, 2), (3, 1), (0, 2)])
def test_every_strategy_equals_a_hand_written_loop(plan, lean, steps, order):
    params, batch = problem()
    expected_loss, expected = by_hand(params, batch, 0.1, steps, order)
    objective = maml(loss, query_loss, Rule(0.1, steps, order=order), lean=lean)
    found = meta_gradient(objective, {"model": params}, batch, plan)
    torch.testing.assert_close(found.loss, expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.gradient["model"], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.aux.mean(), expected_loss)
    assert found.aux.shape == (T,)


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_meta_gradient_agrees_with_finite_differences(steps, lean):
    params, batch = problem()
    objective = maml(loss, query_loss, Rule(0.1, steps), lean=lean)
    found = meta_gradient(objective, {"model": params}, batch).gradient["model"]
    h = 1e-5
    for name, value in params.items():
        numeric = torch.empty_like(value).reshape(-1)
        for i in range(value.numel()):
            ends = []
            for sign in (1, -1):
                moved = value.clone().reshape(-1)
                moved[i] += sign * h
                shifted = {**params, name: moved.view_as(value)}
                ends.append(meta_gradient(objective, {"model": shifted}, batch).loss)
            numeric[i] = (ends[0] - ends[1]) / (2 * h)
        error = (numeric.view_as(value) - found[name]).norm() / found[name].norm()
        assert error < 1e-6, name


def test_first_order_equals_its_closed_form():
    # L_support = |w - a|^2 / 2, L_query = |w - b|^2 / 2: phi = w - alpha (w - a).
    # Second order (1 - alpha)(phi - b), first order phi - b.
    w, a, b, alpha = torch.tensor([[5.0]]), torch.tensor([[1.0]]), torch.tensor([[2.0]]), 0.25

    def half_square(params, target):
        return 0.5 * ((params["w"] - target) ** 2).sum()

    def judged(params, target):
        value = half_square(params, target)
        return value, {}

    found = {
        order: meta_gradient(maml(half_square, judged, Rule(alpha, order=order)), {"model": {"w": w[0]}}, (a, b))
        .gradient["model"]["w"]
        .item()
        for order in (1, 2)
    }
    assert found == {1: 2.0, 2: 1.5}


def learned_sizes(kind, params):
    g = Key(3).torch()
    if kind == "element":
        return {n: 0.1 * torch.rand(v.shape, generator=g, dtype=v.dtype) for n, v in params.items()}
    layer = {n: torch.tensor(0.05 * (i + 1), dtype=v.dtype) for i, (n, v) in enumerate(params.items())}
    if kind == "layer":
        return layer
    return tuple({n: v * (k + 1) for n, v in layer.items()} for k in range(3))  # a layer and a step


@pytest.mark.parametrize("kind", ["element", "layer", "layer and step"])
@pytest.mark.parametrize("plan", [PLANS[0], PLANS[3]], ids=str)
@pytest.mark.parametrize("order", [1, 2])
def test_lean_equals_double_backward_with_learned_step_sizes_and_a_frozen_body(kind, plan, order):
    params, batch = problem()
    for moves in ("*", "head.*"):
        meta = {"model": params, "rule": learned_sizes(kind, params)}
        rule = Rule(0.0, 3, moves=moves, order=order)
        plain, lean = (
            meta_gradient(maml(loss, query_loss, rule, lean=lean), meta, batch, plan) for lean in (False, True)
        )
        torch.testing.assert_close(lean.gradient, plain.gradient, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(lean.loss, plain.loss)


def test_equal_tasks_are_one_task():
    params, batch = problem()
    same = torch.utils._pytree.tree_map(lambda x: x[:1].expand(T, *x.shape[1:]), batch)
    one = torch.utils._pytree.tree_map(lambda x: x[:1], batch)
    objective = maml(loss, query_loss, Rule(0.1, 2))
    many, single = (meta_gradient(objective, {"model": params}, data) for data in (same, one))
    torch.testing.assert_close(many.gradient, single.gradient)


def test_intra_op_threads_change_only_rounding():
    params, batch = problem(torch.float32)
    objective = maml(loss, query_loss, Rule(0.1, 3))
    a, b = (meta_gradient(objective, {"model": params}, batch, Plan("loop", threads=n)).gradient for n in (1, 2))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_parameters_are_left_alone():
    params, batch = problem()
    leaves = {n: v.clone().requires_grad_() for n, v in params.items()}
    threads = torch.get_num_threads()
    for plan in PLANS:
        meta_gradient(maml(loss, query_loss, Rule(0.1)), {"model": leaves}, batch, plan)
    assert all(leaf.grad is None and torch.equal(leaf, params[n]) for n, leaf in leaves.items())
    assert torch.get_num_threads() == threads


def test_choose_returns_a_plan_and_avoids_one_that_fails():
    params, batch = problem()
    objective = maml(loss, query_loss, Rule(0.1))
    assert choose(objective, {"model": params}, batch, repeats=1).strategy in ("loop", "threads", "vmap")

    def only_one_task_at_a_time(values, task):
        value, aux = objective.loss(values, task)
        return (value if float(value) > -1 else 2 * value), aux  # reading a value is refused under vmap

    def gradient(values, task):
        found = objective.task_gradient(values, task)
        float(found[1][0])
        return found

    picky = Objective(only_one_task_at_a_time, gradient)
    with pytest.raises(RuntimeError, match="vmap"):
        meta_gradient(picky, {"model": params}, batch, Plan("vmap"))
    assert choose(picky, {"model": params}, batch, repeats=1).strategy in ("loop", "threads")


def test_choose_tries_a_failing_plan_once_and_drops_no_slow_starter(monkeypatch):
    params, batch = problem()
    times = {"loop": [9, 3, 3, 3, 3, 3], "vmap": [9, 2, 2, 1, 1, 1], "threads": [float("inf")]}  # in the order of calls
    monkeypatch.setattr(outer, "cores", lambda: 2)
    monkeypatch.setattr(outer, "_seconds", lambda objective, params, batch, plan: times[plan.strategy].pop(0))
    assert choose(maml(loss, query_loss, Rule(0.1)), {"model": params}, batch, repeats=3).strategy == "vmap"
    assert times["threads"] == times["vmap"] == []
    assert times["loop"] == [3, 3]  # as slow as thrice the best: measured no more


def test_a_ragged_batch_is_refused():
    with pytest.raises(ValueError, match=r"same first axis, got sizes \[2, 3\]"):
        batch_size((torch.zeros(2, 1), torch.zeros(3, 1)))
