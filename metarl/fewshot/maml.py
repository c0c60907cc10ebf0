"""MAML for supervised tasks (Finn et al. 2017, algorithm 2), through the same inner and outer loop as RL.

The outer loop is Adam on the mean query loss after adaptation; the strategy that computes its
gradient is measured once and kept with the run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from metarl import inner, outer
from metarl.fewshot.batch import Batch
from metarl.learner import Budget, Scores, UserError
from metarl.policies import MLP, Params
from metarl.runs import Run
from metarl.seeding import Key
from metarl.tasks import Tasks

EVALUATION_CHUNK = 100  # tasks adapted together when a curve is measured


@dataclass(frozen=True)
class Config:
    """Settings of supervised MAML; the defaults are those of sinusoid regression (Finn et al. 2017)."""

    iterations: int = 20_000
    """Meta-iterations (Finn et al. 2017: 70,000)."""
    tasks: int = 25
    """Tasks a meta-batch (cbfinn/maml: 25)."""
    inner_steps: int = 1
    """Gradient steps of the inner loop during training (Finn et al. 2017: 1)."""
    inner_step_size: float = 0.01
    """Step size, on the mean loss over the support set (cbfinn/maml: 0.01)."""
    order: Literal[1, 2] = 2
    """2 differentiates through the adaptation, 1 ignores its curvature."""
    lean: bool = False
    """Memory-lean second order: memory does not grow with the inner steps' graphs."""
    outer_step_size: float = 1e-3
    """Learning rate of Adam (Finn et al. 2017: 0.001)."""
    hidden: tuple[int, ...] = (40, 40)
    """Widths of the hidden layers (Finn et al. 2017: 40 40, relu)."""
    strategy: Literal["auto", "loop", "threads", "vmap"] = "auto"
    """How the meta-gradient is computed; auto measures once and remembers."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints."""
    log_every: int = 100
    """Iterations between lines of metrics.jsonl, which hold means over them."""

    def __post_init__(self) -> None:
        for name in ("iterations", "tasks", "inner_steps", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1")
        for name in ("inner_step_size", "outer_step_size"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be above 0")


class SupervisedSource(Protocol):
    """A `Source` whose tasks become tensors."""

    kind: Any  # how its tasks are scored

    def fixed(self, split: str, n: int) -> Tasks:
        """The first n of the split's frozen tasks."""

    def sample(self, n: int, rng: Any, split: str = "train") -> Tasks:
        """Draw n fresh tasks."""

    def batch(self, tasks: Tasks, device: torch.device | str = "cpu") -> Batch:
        """Their support and query data."""


def squared_error(model: MLP, params: Params, data: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error over the points of one task."""
    x, y = data
    return ((model(params, x) - y) ** 2).mean()


def objective(model: MLP, rule: inner.Rule, *, lean: bool = False) -> outer.Objective:
    """The MAML objective on `(support, query)` pairs of `(x, y)`; reports the query loss."""

    def support_loss(params: Params, data: tuple[Tensor, Tensor]) -> Tensor:
        return squared_error(model, params, data)

    def query_loss(params: Params, data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        value = squared_error(model, params, data)
        return value, value.detach()

    return outer.maml(support_loss, query_loss, rule, lean=lean)


def pairs(batch: Batch) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Support and query as the objective wants them."""
    return (batch.support_x, batch.support_y), (batch.query_x, batch.query_y)


def _model(config: Config) -> MLP:
    return MLP((1, *config.hidden, 1), "relu")


def _plan(config: Config, run: Run, goal: outer.Objective, params: Params, batch: Batch) -> outer.Plan:
    """The run's remembered plan, or a new one: given, or measured."""
    stored = run.recall("meta_gradient")
    if stored is not None:
        return outer.Plan(**stored)
    if config.strategy == "auto":
        plan = outer.choose(goal, {"model": params}, pairs(batch))
    else:
        plan = outer.Plan(config.strategy, threads=1 if config.strategy != "threads" else 2)
    run.remember("meta_gradient", plan.to_json())
    return plan


def train(config: Config, source: SupervisedSource, run: Run) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one."""
    key, model = Key(run.seed)("maml"), _model(config)
    goal = objective(
        model, inner.Rule(config.inner_step_size, config.inner_steps, order=config.order), lean=config.lean
    )
    params = {name: value.to(run.device) for name, value in model.init(key("init").torch()).items()}
    adam = torch.optim.Adam(params.values(), lr=config.outer_step_size)
    restored = run.restore()
    if restored is not None:
        for name, value in restored[1]["params"].items():
            params[name].copy_(value)
        adam.load_state_dict(restored[1]["adam"])
    first = source.batch(source.fixed("train", config.tasks), run.device)
    plan = _plan(config, run, goal, params, first)

    def state() -> dict[str, Any]:
        return {"params": params, "adam": adam.state_dict(), "losses": losses}

    losses: list[float] = restored[1]["losses"] if restored is not None else []
    started = time.perf_counter()
    with run.loop(config.iterations, checkpoint_every=config.checkpoint_every, state=state) as loop:
        for iteration in loop:
            tasks = source.sample(config.tasks, key("tasks", iteration).numpy())
            found = outer.meta_gradient(goal, {"model": params}, pairs(source.batch(tasks, run.device)), plan)
            for name, value in params.items():
                value.grad = found.gradient["model"][name]
            adam.step()
            losses.append(float(found.loss))
            if (iteration + 1) % config.log_every == 0:
                loop.log({"score/query_mse": sum(losses) / len(losses)}, {"train_s": time.perf_counter() - started})
                losses, started = [], time.perf_counter()


@dataclass(frozen=True)
class Trained:
    """A trained initialisation, adapted to new tasks by gradient descent."""

    model: MLP
    params: Params
    config: Config
    source: SupervisedSource

    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Query error after 0..K gradient steps on the support set."""
        rule = replace(inner.Rule(self.config.inner_step_size, order=1), steps=budget.steps)

        def one(support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
            def loss(params: Params, data: tuple[Tensor, Tensor]) -> Tensor:
                return squared_error(self.model, params, data)

            iterates = inner.adapt(self.params, loss, support, rule)
            return torch.stack([loss(params, query) for params in iterates])

        found = []
        for start in range(0, len(tasks), EVALUATION_CHUNK):
            support, query = pairs(self.source.batch(tasks[start : start + EVALUATION_CHUNK]))
            with torch.no_grad():
                found.append(torch.func.vmap(one)(support, query))
        shots = int(support[0].shape[1])
        return Scores(
            values=torch.cat(found).double().numpy(),
            gradient_steps=tuple(range(budget.steps + 1)),
            env_steps=None,
            shots=tuple(shots if k else 0 for k in range(budget.steps + 1)),
            kind=self.source.kind,
            protocol=f"gradient steps of {self.config.inner_step_size:g} on {shots} support points",
        )


def load(run: Run, source: SupervisedSource) -> Trained:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    restored = run.restore()
    if restored is None:
        raise UserError(f"{run.folder} has no checkpoint yet: train it first")
    return Trained(_model(run.config), restored[1]["params"], run.config, source)
