"""Reptile (Nichol et al. 2018): move the initialisation towards where plain training on each task ends.

    theta <- theta + epsilon mean over tasks of (phi_task - theta),   phi_task = K steps from theta

The steps are those of the one inner loop, on minibatches of the task's training images; epsilon falls
linearly to 0. Nothing is differentiated twice.

A run that was killed is resumed bit for bit, but its --iterations cannot be raised: epsilon falls to 0 over all of
them, as in the paper, so that a longer run takes other steps from its first iteration on. Train it anew.

Deviations from openai/supervised-reptile: the inner steps are plain gradient descent, there Adam without momentum
(beta1 = 0); at test time they use the whole support set, there minibatches of 5 to 15; the strided network averages
its features over space, there they are flattened; the pooled one pools whole windows (25 x width features of 84x84
pictures), there also those that stick out (36 x width); batch normalisation adds 1e-5 to the variance, there 1e-3; test
characters of Omniglot are turned as those of training are, there only the latter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.source import SupervisedSource
from metarl.fewshot.learners import encoder_choice, training
from metarl.fewshot.learners.adaptation import adapted_footprint, check_moves, learn, make_network, seeds
from metarl.fewshot.learners.initialisation import TrainedInitialisation, restored
from metarl.fewshot.learners.strategy import Strategy, choose_plan
from metarl.fewshot.learners.trained_classes import remember_classes
from metarl.fewshot.networks.backbones import Backbone
from metarl.fewshot.networks.network import Data, Network
from metarl.learning.footprint import Footprint
from metarl.learning.settings import check_range
from metarl.meta import inner, outer
from metarl.nets.params import Params
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.tasks import Tasks


@dataclass(frozen=True)
class Config:
    """Settings of Reptile; those of the paper's Omniglot 5-way experiments but for the inner step size."""

    iterations_may_grow: ClassVar[bool] = False  # the schedule of the outer step size depends on them

    iterations: int = 100_000
    """Meta-iterations, over which the outer step size falls to 0 (Nichol et al. 2018: 100,000; 20-way 200,000)."""
    tasks: int = 5
    """Tasks a meta-batch (Nichol et al. 2018: 5)."""
    inner_steps: int = 5
    """Gradient steps on each task (Nichol et al. 2018: Omniglot 5, 20-way 10, mini-ImageNet 8)."""
    inner_step_size: float = 0.5
    """Step size of gradient descent on mean cross-entropy (own choice; the paper's Adam: 0.001, 20-way 0.0005)."""
    minibatch: int = 10
    """Images a step (Nichol et al. 2018: 10; 20-way 20)."""
    train_shots: int = 10
    """Images a class of a training task (Nichol et al. 2018: Omniglot 10, mini-ImageNet 15)."""
    outer_step_size: float = 1.0
    """Epsilon at first; it falls linearly to 0 (Nichol et al. 2018: 1)."""
    strategy: Strategy = "auto"
    """How the tasks of a meta-batch are computed. auto times all three once and config.json remembers; another machine
    may choose otherwise, so train other last digits. threads repeats bit for bit on any number of cores of one kind."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints."""
    log_every: int = 100
    """Iterations between lines of metrics.jsonl, which hold means over them."""
    hidden: tuple[int, ...] = (64, 64)
    """Regression: widths of the hidden layers (Nichol et al. 2018, from memory: 64 64; tanh there, relu
    here)."""
    moves: str = "*"
    """Name patterns of the parameters that adapt (Nichol et al. 2018: all)."""
    backbone: Backbone = "conv4-strided"
    """Images: the encoder (openai/supervised-reptile: strided for Omniglot, pooled for mini-ImageNet)."""
    width: int = 64
    """Images: filters a layer (Nichol et al. 2018: 64, mini-ImageNet 32)."""
    encoder: str | None = None
    """Images: an encoder of your own in place of the backbone, as mypackage.module:Name; called with `image_shape`,
    (channels, height, width), it gives a torch.nn.Module from images (B, C, H, W) to features (B, F)."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Images: what query images are normalised with."""
    norm_scale: bool = True
    """Images: whether batch normalisation has a scale beside its shift."""

    def __post_init__(self) -> None:
        encoder_choice.check_encoder_name(self.encoder)
        counts = (
            "iterations",
            "tasks",
            "inner_steps",
            "minibatch",
            "train_shots",
            "checkpoint_every",
            "log_every",
            "width",
        )
        check_range(self, *counts, least=1)
        check_range(self, "inner_step_size", "outer_step_size", above=0)

    def footprint(self, source: SupervisedSource) -> Footprint:
        """What a training needs at least; see `adapted_footprint`."""
        return adapted_footprint(self, source, self.tasks * getattr(source, "ways", 1) * self.train_shots)


_MINI_IMAGENET = Config(tasks=5, inner_steps=8, train_shots=15, inner_step_size=0.1, backbone="conv4", width=32)
SHARED = "tasks"
DEFAULTS = {  # by data set
    "omniglot": Config(),
    "glyphs": Config(iterations=1000, checkpoint_every=100, log_every=10),
    "mini-imagenet": _MINI_IMAGENET,
    "cifar-fs": _MINI_IMAGENET,
    "folder": _MINI_IMAGENET,
    "sinusoid": Config(iterations=30_000, inner_step_size=0.02, outer_step_size=0.1, minibatch=10),
}
TEST_STEPS = 50  # of `log_probabilities` (Nichol et al. 2018)

# Data, the indices `(K, B)` of each step's minibatch, and the seed of its draws where the network draws.
Task = tuple[Any, ...]


def objective(network: Network, rule: inner.Rule) -> outer.Objective:
    """Reptile as an objective: its "gradient" of a task is the way back from where training on it ends."""

    def ended(params: Params, task: Task) -> Params:
        batch, index, *seed = task

        def collect(_: Params, k: int) -> Data:
            return (batch.support_x[index[k]], batch.support_y[index[k]], *seed)

        return inner.adapt(params, network.support_loss, collect, rule)[-1]

    def judged(params: Params, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
        return network.judge(params, task[0], task[2] if len(task) > 2 else None)

    def loss(meta: dict[str, Params], task: Task) -> tuple[Tensor, dict[str, Tensor]]:
        return judged(ended(meta["model"], task), task)

    def gradient(meta: dict[str, Params], task: Task) -> tuple[Any, tuple[Tensor, dict[str, Tensor]]]:
        last = ended(meta["model"], task)
        back = {name: value - last[name] for name, value in meta["model"].items()}
        return {"model": back}, judged(last, task)

    return outer.Objective(loss, gradient)


def minibatches(rng: np.random.Generator, tasks: int, images: int, steps: int, size: int) -> Tensor:
    """Indices `(T, K, B)` into each task's images: shuffled, taken in turn, shuffled again when used up."""
    size = min(size, images)
    rounds = -(-steps * size // images)
    orders = rng.permuted(np.tile(np.arange(images), (tasks, rounds, 1)), axis=2)
    return torch.from_numpy(orders.reshape(tasks, -1)[:, : steps * size].reshape(tasks, steps, size).copy())


@plain_torch()
def train(config: Config, source: Any, run: Run, encoder: nn.Module | None = None) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one.

    Args:
        config: the settings.
        source: tasks of images, or of numbers; trained on with `config.train_shots` shots.
        run: where it is logged and saved.
        encoder: images: a module to start from, in place of the config's backbone; see `user_encoders`.
    """
    remember_classes(run, source)
    key = Key(run.seed)("reptile")
    encoder = encoder_choice.to_train(run, config, source, encoder)
    network = make_network(config, source, key, encoder).to(run.device)
    wanted: dict[str, Any] = {"shots": config.train_shots}
    if isinstance(source, ImageSource):
        wanted |= {"queries": 1, "min_shots": None, "min_ways": None, "unbalanced": False}
    source = replace(source, **wanted)
    params = {name: value.to(run.device) for name, value in network.init(key("init").torch()).items()}
    check_moves(config.moves, params)
    goal = objective(network, inner.Rule(config.inner_step_size, config.inner_steps, config.moves, order=1))
    descent = torch.optim.SGD(params.values(), lr=config.outer_step_size)

    def with_order(tasks: Tasks, rng: np.random.Generator) -> Tasks:
        images = source.batch(tasks[:1]).support_x.shape[1]
        order = minibatches(rng, len(tasks), images, config.inner_steps, config.minibatch)
        return Tasks({**tasks.arrays, "minibatches": order.numpy()})

    def data(tasks: Tasks, of: Key) -> Task:
        order = torch.tensor(tasks.arrays["minibatches"], device=run.device)
        drawn = seeds(network, of, tasks)
        return (source.batch(tasks, run.device), order, *(() if drawn is None else (drawn,)))

    first_tasks = with_order(source.fixed("train", config.tasks), key("first").numpy())
    first = data(first_tasks[run.ranks.share(config.tasks)], key("first draws"))
    plan = choose_plan(run, config.strategy, goal, {"model": params}, first, network.draws)

    def draw(iteration: int) -> Tasks:
        rng = key("tasks", iteration).numpy()
        return with_order(source.sample(config.tasks, rng), rng)

    def step(iteration: int, tasks: Tasks) -> dict[str, Tensor]:
        mine, _ = training.shared(tasks, run.ranks)
        result = outer.meta_gradient(goal, {"model": params}, data(mine, key("draws", iteration)), plan, run.ranks)
        for name, value in params.items():
            value.grad = result.gradient["model"][name]
        return learn(network, result.aux)

    def epsilon(iteration: int) -> float:
        return config.outer_step_size * (1 - iteration / config.iterations)

    training.fit(run, config, training.Learnable(lambda: params | network.still, descent, epsilon), draw, step)


@plain_torch()
def load(run: Run, source: Any, encoder: nn.Module | None = None) -> TrainedInitialisation:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    encoder = encoder_choice.to_judge(run, source, encoder)
    loaded = restored(make_network(run.config, source, Key(run.seed)("reptile"), encoder), run, source)
    return replace(loaded, rule=replace(loaded.rule, steps=TEST_STEPS))
