"""Reptile: its outer move, its minibatches, its schedule."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.glyphs import Glyphs
from metarl.fewshot.learners import reptile
from metarl.fewshot.learners.adaptation import make_network
from metarl.meta import inner, outer
from metarl.runs.run import Run
from metarl.seeding import Key


class Line:
    """w x with squared errors: one parameter, gradient mean of 2 x (w x - y)."""

    def support_loss(self, params, data):
        x, y = data
        return ((params["w"] * x - y) ** 2).mean()

    def judge(self, params, task, seed):
        loss = self.support_loss(params, (task.query_x, task.query_y))
        return loss, {"loss/query": loss}


def test_the_outer_move_by_hand():
    """From w = 1 with step size 0.25 and one point a step.

    Task 0, points (1, 3) then (2, 0): 1 - 0.25 * 2 (1 - 3) = 2, then 2 - 0.25 * 2 * 2 (4 - 0) = -2.
    Task 1, points (1, 1) then (1, 1): stays at 1. So the way back is 3 and 0, on average 1.5.
    """
    x = torch.tensor([[1.0, 2.0], [1.0, 1.0]])
    y = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    batch = Batch(x, y, x, y)
    index = torch.tensor([[[0], [1]], [[0], [1]]])
    goal = reptile.objective(Line(), inner.Rule(0.25, 2, order=1))
    meta = {"model": {"w": torch.ones(1)}}
    for plan in (outer.Plan("loop"), outer.Plan("threads", threads=2), outer.Plan("vmap")):
        found = outer.meta_gradient(goal, meta, (batch, index), plan)
        assert found.gradient["model"]["w"].tolist() == [1.5]
        assert found.aux["loss/query"].tolist() == [((-2 - 3) ** 2 + (-4 - 0) ** 2) / 2, 0.0]


def test_training_is_plain_descent_and_interpolation(tmp_path):
    """One iteration against torch.optim.SGD and the paper's formula."""
    source = Glyphs(ways=3, queries=2)
    config = reptile.Config(
        iterations=1, tasks=2, inner_steps=3, minibatch=4, train_shots=5, width=4, outer_step_size=0.7, strategy="loop"
    )
    run = Run.create(tmp_path / "run", learner="reptile", config=config, source=source, seed=3)
    reptile.train(config, source, run)
    key = Key(3)("reptile")
    network = make_network(config, source, key)
    start = network.init(key("init").torch())
    rng = key("tasks", 0).numpy()
    training = replace(source, shots=5, queries=1)
    batch = training.batch(training.sample(2, rng))
    index = reptile.minibatches(rng, 2, 15, 3, 4)
    ends = []
    for t in range(2):
        params = {name: value.clone().requires_grad_() for name, value in start.items()}
        sgd = torch.optim.SGD(params.values(), lr=0.5)
        for k in range(3):
            rows = index[t, k]
            sgd.zero_grad()
            network.support_loss(params, (batch.support_x[t, rows], batch.support_y[t, rows])).backward()
            sgd.step()
        ends.append(params)
    held = run.restore()[1]["params"]
    for name, value in start.items():
        mean = (ends[0][name] + ends[1][name]).detach() / 2
        torch.testing.assert_close(held[name], value + 0.7 * (mean - value), rtol=1e-5, atol=1e-6)


def test_minibatches_take_every_image_in_turn():
    found = reptile.minibatches(np.random.default_rng(0), tasks=2, images=6, steps=5, size=4)
    assert found.shape == (2, 5, 4)
    for row in found.reshape(2, -1).tolist():
        assert sorted(row[:6]) == sorted(row[6:12]) == sorted(row[12:18]) == list(range(6))
    assert found[0].tolist() != found[1].tolist()
    few = reptile.minibatches(np.random.default_rng(0), tasks=1, images=3, steps=2, size=10)
    assert [sorted(row) for row in few[0].tolist()] == [[0, 1, 2], [0, 1, 2]]


def test_the_outer_step_size_falls_to_nothing_over_the_iterations(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        reptile.training, "fit", lambda run, config, what, draw, step: seen.extend(map(what.step_size, range(4)))
    )
    source = Glyphs(ways=2, queries=1)
    config = reptile.Config(iterations=4, tasks=1, width=2, outer_step_size=2.0, strategy="loop", train_shots=2)
    run = Run.create(tmp_path / "run", learner="reptile", config=config, source=source, seed=0)
    reptile.train(config, source, run)
    assert seen == [2.0, 1.5, 1.0, 0.5]


def test_more_iterations_are_another_run(tmp_path):
    """The step size of every iteration depends on how many there are, so a run cannot be prolonged."""
    source = Glyphs(ways=2, queries=1)
    config = reptile.Config(iterations=2, tasks=1, width=2, strategy="loop", train_shots=2)
    run = Run.create(tmp_path / "run", learner="reptile", config=config, source=source, seed=0)
    reptile.train(config, source, run)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    longer = replace(config, iterations=3)
    with pytest.raises(
        UserError,
        match=r"config\.iterations is 2 there and 3 here; .* \(iterations too: this learner's schedule depends on",
    ):
        Run.resume(tmp_path / "run", learner="reptile", config=longer, source=source, seed=0)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_training_tasks_are_balanced_and_of_its_own_shots(tmp_path, monkeypatch):
    source = Glyphs(ways=4, min_ways=2, shots=2, min_shots=1, unbalanced=True, queries=3)
    seen = []

    def first_task(run, strategy, objective, meta, batch, draws):
        seen.append(batch[0].support_y)
        return outer.Plan()

    monkeypatch.setattr(reptile, "choose_plan", first_task)
    monkeypatch.setattr(reptile.training, "fit", lambda *_: None)
    config = reptile.Config(iterations=1, tasks=2, train_shots=6, width=2)
    run = Run.create(tmp_path / "run", learner="reptile", config=config, source=source, seed=0)
    reptile.train(config, source, run)
    assert seen[0].tolist() == [[c for c in range(4) for _ in range(6)]] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minibatch": 0}, "--minibatch is 0; it must be at least 1"),
        ({"train_shots": 0}, "--train-shots is 0"),
        ({"outer_step_size": 0.0}, "--outer-step-size is 0.0; it must be above 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        reptile.Config(**options)
