"""The meta-step of MAML on few-shot pictures, ours and learn2learn's; rows of `benchmark_fewshot.py`."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from benchmark import Comparison, Row, Work
from peers import learn2learn
from torch import nn

from metarl.fewshot.batch import Batch
from metarl.fewshot.learners import maml
from metarl.fewshot.networks.backbones import Backbone, make_backbone
from metarl.fewshot.networks.classifier import Classifier, EncoderAndHead
from metarl.meta import inner, outer
from metarl.parallel import intra_op_threads
from metarl.seeding import Key

l2l = learn2learn()
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
TASKS, WAYS, SHOTS, QUERIES = 32, 5, 1, 1  # the meta-batch of the Omniglot rows
NEARLY = 0.95  # strategies this close to the fastest are as good


@dataclass(frozen=True)
class Shape:
    """What a meta-step is measured on: random pictures, since their content does not matter here."""

    name: str
    target: float
    backbone: Backbone
    width: int
    image: tuple[int, int, int]
    tasks: int
    queries: int
    steps: int

    @property
    def title(self) -> str:
        """The row's name without what is compared."""
        form = "strided" if self.backbone == "conv4-strided" else "pooled"
        return (
            f"{self.name}: Conv4-{self.width} {form}, {self.image[1]}x{self.image[2]}, {self.tasks} tasks, "
            f"{WAYS}-way {SHOTS}-shot, {self.queries} query, {self.steps} inner"
        )


OMNIGLOT = Shape("Omniglot", 1.6, "conv4-strided", 64, (1, 28, 28), TASKS, QUERIES, 1)
SHAPES = {
    "omniglot": OMNIGLOT,
    "many_queries": Shape("15 queries", 1.2, "conv4-strided", 64, (1, 28, 28), 32, 15, 1),
    "pooled": Shape("pooled, 5 steps", 1.1, "conv4", 64, (1, 28, 28), 16, 1, 5),
    "mini_imagenet": Shape("mini-ImageNet", 1.0, "conv4", 32, (3, 84, 84), 4, 15, 5),
}


@dataclass(frozen=True)
class Problem:
    """One network and one meta-batch, as both sides take them."""

    module: nn.Module
    params: dict[str, torch.Tensor]
    objective: outer.Objective
    batch: Batch
    steps: int

    def to(self, dtype: torch.dtype) -> Problem:
        """The same in another precision; the module is converted in place."""
        params = {name: value.to(dtype) for name, value in self.params.items()}
        batch = self.batch
        pictures = replace(batch, support_x=batch.support_x.to(dtype), query_x=batch.query_x.to(dtype))
        return replace(self, module=self.module.to(dtype), params=params, batch=pictures)

    def ours(self, plan: outer.Plan) -> float:
        """A meta-gradient by a plan."""
        outer.meta_gradient(self.objective, {"model": self.params}, maml.pairs(self.batch), plan)
        return 1.0

    def theirs(self, learner: Any) -> float:
        """The same by learn2learn's loop, left in the module's `.grad`."""
        self.module.zero_grad()
        for t in range(len(self.batch)):
            descend(learner, self.batch[t], self.steps, len(self.batch))
        return 1.0


def descend(learner: Any, task: Batch, steps: int, tasks: int) -> None:
    """learn2learn's part of one task: clone, adapt, query loss, backward."""
    clone = learner.clone()
    for _ in range(steps):
        clone.adapt(F.cross_entropy(clone(task.support_x), task.support_y))
    (F.cross_entropy(clone(task.query_x), task.query_y) / tasks).backward()


STEP_SIZE = 0.4


def network(shape: Shape) -> tuple[Classifier, dict[str, torch.Tensor], nn.Module]:
    """Our classifier, its parameters, and a module for learn2learn that holds the same numbers."""
    key = Key(0)("benchmark", shape.name)
    encoder = make_backbone(shape.backbone, shape.image, key("encoder").torch(), shape.width)
    classifier = Classifier(encoder, shape.image, WAYS)
    params = classifier.init(key("init").torch())
    module = EncoderAndHead(encoder, shape.image, WAYS)
    module.load_state_dict(params)
    return classifier, params, module


def problem(shape: Shape) -> Problem:
    """A meta-batch of random pictures."""
    classifier, params, module = network(shape)
    generator = Key(0)("benchmark", "pictures").torch()

    def part(images: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.rand(shape.tasks, WAYS * images, *shape.image, generator=generator)
        return x, torch.arange(WAYS).repeat_interleave(images).expand(shape.tasks, -1)

    objective = maml.objective(classifier, inner.Rule(STEP_SIZE, shape.steps))
    return Problem(module, params, objective, Batch(*part(SHOTS), *part(shape.queries)), shape.steps)


def automatic(shape: Shape) -> outer.Plan:
    """What `auto` chooses for a shape, here and now: what else the process holds changes what is fastest."""
    made = problem(shape)
    with intra_op_threads(CORES):
        return outer.choose(made.objective, {"model": made.params}, maml.pairs(made.batch))


def seconds(work: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def at_its_best(work: Work) -> Work:
    """With one intra-op thread or all cores, whichever is faster."""

    def with_threads(n: int) -> float:
        with intra_op_threads(n):
            return work()

    choices = [partial(with_threads, n) for n in sorted({1, CORES})]
    for choice in choices:
        choice()
    return min(choices, key=lambda choice: min(seconds(choice) for _ in range(2)))


def difference(shape: Shape, plan: outer.Plan) -> float:
    """How far our gradient and learn2learn's are apart, over the largest entry; in float64.

    In float32 rounding now and then decides on which side of zero a ReLU's input lies, which alone moves an
    entry by up to a hundredth.
    """
    made = problem(shape).to(torch.float64)
    made.theirs(l2l.algorithms.MAML(made.module, lr=STEP_SIZE))
    result = outer.meta_gradient(made.objective, {"model": made.params}, maml.pairs(made.batch), plan).gradient["model"]
    scale = max(float(value.abs().max()) for value in result.values())
    return max(float((result[n] - p.grad).abs().max()) for n, p in made.module.named_parameters()) / scale


def meta_step(shape: Shape) -> Comparison:
    """Our chosen strategy against learn2learn's loop."""
    made, plan = problem(shape), automatic(shape)
    error = difference(shape, plan)
    if error > 1e-5:
        raise SystemExit(f"{shape.name}: the two meta-gradients differ by {error:.1e}")
    title = f"meta-step ({plan.strategy}) / learn2learn's loop, {shape.title}; equal to {error:.0e}; meta-steps/s"
    learner = l2l.algorithms.MAML(made.module, lr=STEP_SIZE)
    theirs = at_its_best(partial(made.theirs, learner))
    return Comparison(title, partial(made.ours, plan), theirs, shape.target)


def choice(shape: Shape, repeats: int = 5) -> Row:
    """Auto's choice against the fastest of all strategies, each timed in turn."""
    made, chosen = problem(shape), automatic(shape)
    plans = [outer.Plan("loop", CORES), outer.Plan("vmap", CORES), outer.Plan("threads", min(CORES, shape.tasks))]
    times: dict[str, list[float]] = {plan.strategy: [] for plan in plans}
    for plan in plans:
        made.ours(plan)
    for _ in range(repeats):
        for plan in plans:
            times[plan.strategy].append(seconds(partial(made.ours, plan)))
    median = {strategy: statistics.median(values) for strategy, values in times.items()}
    fastest = min(median, key=lambda strategy: median[strategy])
    ratios = [b / a for a, b in zip(times[chosen.strategy], times[fastest], strict=True)]
    told = ", ".join(f"{strategy} {1000 * value:.0f} ms" for strategy, value in median.items())
    ratio = median[fastest] / median[chosen.strategy]
    return Row(
        name=f"auto chose {chosen.strategy} of {told}; {shape.title}; meta-steps/s",
        value=1 / median[chosen.strategy],
        baseline=1 / median[fastest],
        ratio=ratio,
        target=NEARLY,
        met=ratio >= NEARLY,
        repeats=repeats,
        spread=(min(ratios), max(ratios)),
    )
