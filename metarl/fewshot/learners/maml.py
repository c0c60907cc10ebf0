"""MAML for supervised tasks (Finn et al. 2017, algorithm 2), through the same inner and outer loop as RL.

    minimise over theta:  mean over tasks of  L_query(theta - alpha grad L_support(theta))

Regression adapts a small perceptron on squared errors; classification adapts an encoder and a linear
head on cross-entropy. Losses are means over examples: where the authors' image code steps on their sum
over classes, the step size here is N times theirs (0.4 for 5 ways is 2.0). FOMAML, ANIL and Meta-SGD are
this file with other settings.

Deviations from cbfinn/maml: the head of the Omniglot network starts Glorot-uniform, there standard normal; so does
the sinusoid's network, there normal with SD .01; convolutions of stride 2 pad their images on all sides, there to the
right and below where one row is enough; batch normalisation adds 1e-5 to the variance, there 1e-3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.source import SupervisedSource
from metarl.fewshot.learners import encoder_choice, training
from metarl.fewshot.learners.adaptation import adapted_footprint, check_moves, learn, make_network, seeds
from metarl.fewshot.learners.initialisation import TrainedInitialisation, named_sizes, restored
from metarl.fewshot.learners.strategy import Strategy, choose_plan
from metarl.fewshot.learners.trained_classes import remember_classes
from metarl.fewshot.learners.training import halving
from metarl.fewshot.networks.backbones import Backbone
from metarl.fewshot.networks.network import Data, Network
from metarl.learning.footprint import Footprint
from metarl.learning.settings import check_range
from metarl.meta import inner, outer
from metarl.nets.params import Params
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.tasks import Tasks

BUT_NORMS = "*convolutions.* *shortcut.* *layers.* head.*"  # all but batch normalisation's shift and scale
FIRST_SIZES = (0.005, 0.1)  # learned step sizes start uniformly in this range (Li et al. 2017, from memory)


@dataclass(frozen=True)
class Config:
    """Settings of supervised MAML; the defaults are those of sinusoid regression (Finn et al. 2017)."""

    iterations: int = 20_000
    """Meta-iterations (Finn et al. 2017: 70,000 for sinusoids, 60,000 for images)."""
    tasks: int = 25
    """Tasks a meta-batch (cbfinn/maml: 25; Omniglot 32, 20-way 16; mini-ImageNet 4, the paper for 5 shots 2)."""
    inner_steps: int = 1
    """Gradient steps of the inner loop during training (Finn et al. 2017: 1; 20-way and mini-ImageNet 5)."""
    inner_step_size: float = 0.01
    """Step size, on the mean loss over the support set (Finn et al. 2017: 0.01, the default of its code 0.001;
    Omniglot 2.0, mini-ImageNet 0.05)."""
    order: Literal[1, 2] = 2
    """2 differentiates through the adaptation, 1 ignores its curvature."""
    lean: bool = False
    """Memory-lean second order: memory does not grow with the inner steps' graphs."""
    outer_step_size: float = 1e-3
    """Learning rate of Adam at first (Finn et al. 2017: 0.001)."""
    halve_every: int | None = None
    """Iterations after which the learning rate halves, again and again; None: never (Finn et al. 2017)."""
    train_queries: int | None = None
    """Images: query images a class in training; None: as in a test task (cbfinn/maml: Omniglot as many as support
    images, mini-ImageNet 15)."""
    hidden: tuple[int, ...] = (40, 40)
    """Regression: widths of the hidden layers (Finn et al. 2017: 40 40, relu)."""
    strategy: Strategy = "auto"
    """How the meta-gradient is computed. auto times all three once and config.json remembers; another machine may
    choose otherwise, so train other last digits. threads repeats bit for bit on any number of cores of one kind."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints."""
    log_every: int = 100
    """Iterations between lines of metrics.jsonl, which hold means over them."""
    moves: str = "*"
    """Name patterns of the parameters that adapt (cbfinn/maml: all but batch normalisation's shift)."""
    step_sizes: Literal["fixed", "learned", "layers"] = "fixed"
    """learned: a step size for every number in every moving parameter, trained with them (Meta-SGD). layers: one for
    every moving parameter in every inner step, `inner_step_size` at first (MAML++, Antoniou et al. 2019); steps beyond
    those trained with take the last one's."""
    backbone: Backbone = "conv4-strided"
    """Images: the encoder (cbfinn/maml: strided for Omniglot, pooled for mini-ImageNet)."""
    width: int = 64
    """Images: filters a layer (cbfinn/maml: 64, mini-ImageNet 32)."""
    encoder: str | None = None
    """Images: an encoder of your own in place of the backbone, as mypackage.module:Name; called with `image_shape`,
    (channels, height, width), it gives a torch.nn.Module from images (B, C, H, W) to features (B, F)."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Images: what query images are normalised with (cbfinn/maml: each other, so transductive)."""
    norm_scale: bool = False
    """Images: whether batch normalisation has a scale beside its shift (cbfinn/maml: no)."""
    clip: float | None = None
    """Every number of the meta-gradient is cut to this size (cbfinn/maml: 10 for mini-ImageNet, else none; its loss
    sums over 75 query images and divides by the shots, so 10/75 here for 1 shot, 10/15 for 5)."""

    def __post_init__(self) -> None:
        encoder_choice.check_encoder_name(self.encoder)
        counts = ("iterations", "tasks", "inner_steps", "checkpoint_every", "log_every", "width", "halve_every")
        check_range(self, *counts, "train_queries", least=1)
        check_range(self, "inner_step_size", "outer_step_size", "clip", above=0)

    def footprint(self, source: SupervisedSource) -> Footprint:
        """What a training needs at least; see `adapted_footprint`."""
        ways, shots = int(getattr(source, "ways", 1)), int(getattr(source, "shots", 1))
        queries = self.train_queries or int(getattr(source, "queries", 1))
        return adapted_footprint(self, source, self.tasks * ways * (shots + queries))


_OMNIGLOT = Config(iterations=60_000, tasks=32, inner_step_size=2.0, moves=BUT_NORMS)
_MINI_IMAGENET = Config(
    iterations=60_000,
    tasks=4,
    inner_steps=5,
    inner_step_size=0.05,
    moves=BUT_NORMS,
    backbone="conv4",
    width=32,
    clip=10 / 75,
)
Query = tuple[Any, ...]  # a task, and the seed of its draws where the network draws
SHARED = "tasks"
DEFAULTS = {  # a data set's name, or a setting of one; step sizes in mean-cross-entropy terms
    "sinusoid": Config(),
    "omniglot": _OMNIGLOT,
    "omniglot-20way": replace(_OMNIGLOT, tasks=16, inner_steps=5),
    "glyphs": replace(_OMNIGLOT, iterations=1000, tasks=16, checkpoint_every=100, log_every=10),
    "mini-imagenet": _MINI_IMAGENET,
    "mini-imagenet-5shot": replace(_MINI_IMAGENET, tasks=2, clip=10 / 15),
    "cifar-fs": _MINI_IMAGENET,
    "folder": _MINI_IMAGENET,
}


def objective(network: Network, rule: inner.Rule, *, lean: bool = False) -> outer.Objective:
    """The MAML objective on tasks as `pairs` gives them; reports loss and score on the query data."""

    def query_loss(params: Params, query: Query) -> tuple[Tensor, dict[str, Tensor]]:
        return network.judge(params, query[0], query[1] if len(query) > 1 else None)

    return outer.maml(network.support_loss, query_loss, rule, lean=lean)


def pairs(batch: Batch, seeds: Tensor | None = None) -> tuple[Data, Query]:
    """Support data, and all data: the query images may be normalised with the support images.

    Args:
        batch: T tasks.
        seeds: `(T,)` int64, of what the network draws at random on each.
    """
    more = () if seeds is None else (seeds,)
    return (batch.support_x, batch.support_y, *more), (batch, *more)


def first_parameters(config: Config, network: Network, key: Key, device: str) -> dict[str, Any]:
    """Meta-parameters before training: `{"model": ...}`, with learned step sizes `"rule"` too."""
    model = {name: value.to(device) for name, value in network.init(key("init").torch()).items()}
    if config.step_sizes == "fixed":
        return {"model": model}
    moving = inner.Rule(0.0, moves=config.moves).moving(list(model))
    if config.step_sizes == "layers":
        sizes = [{n: model[n].new_tensor(config.inner_step_size) for n in moving} for _ in range(config.inner_steps)]
        return {"model": model, "rule": tuple(sizes)}
    low, high = FIRST_SIZES
    generator = key("step sizes").torch()
    each = {n: low + (high - low) * torch.rand(model[n].shape, generator=generator) for n in moving}
    return {"model": model, "rule": {name: value.to(device) for name, value in each.items()}}


def named(meta: dict[str, Any]) -> dict[str, Tensor]:
    """Meta-parameters as a checkpoint holds them: the model's by their names, step sizes as `named_sizes` has them."""
    model: dict[str, Tensor] = meta["model"]
    return model | named_sizes(meta.get("rule", {}))


@plain_torch()
def train(config: Config, source: SupervisedSource, run: Run, encoder: nn.Module | None = None) -> None:
    """Train until `config.iterations`, from the run's last checkpoint if there is one.

    Args:
        config: the settings.
        source: tasks of images, or of numbers.
        run: where it is logged and saved.
        encoder: images: a module to start from, in place of the config's backbone; see `user_encoders`. Of its
            parameters that require a gradient those adapt whose names match `config.moves`; "*" is all of them.
    """
    remember_classes(run, source)
    key = Key(run.seed)("maml")
    encoder = encoder_choice.to_train(run, config, source, encoder)
    network = make_network(config, source, key, encoder).to(run.device)
    if config.train_queries is not None and isinstance(source, ImageSource):
        source = replace(source, queries=config.train_queries)
    rule = inner.Rule(config.inner_step_size, config.inner_steps, config.moves, config.order)
    check_moves(config.moves, network.init(key("init").torch()))
    meta = first_parameters(config, network, key, run.device)
    goal = objective(network, rule, lean=config.lean)

    def data(tasks: Tasks, of: Key) -> tuple[Data, Query]:
        return pairs(source.batch(tasks, run.device), seeds(network, of, tasks))

    first = data(source.fixed("train", config.tasks)[run.ranks.share(config.tasks)], key("first"))
    plan = choose_plan(run, config.strategy, goal, meta, first, network.draws)
    tensors = named(meta)
    adam = torch.optim.Adam(tensors.values(), lr=config.outer_step_size)

    def draw(iteration: int) -> Tasks:
        return source.sample(config.tasks, key("tasks", iteration).numpy())

    def step(iteration: int, tasks: Tasks) -> dict[str, Tensor]:
        mine, _ = training.shared(tasks, run.ranks)
        result = outer.meta_gradient(goal, meta, data(mine, key("draws", iteration)), plan, run.ranks)
        for name, gradient in named(result.gradient).items():
            tensors[name].grad = gradient
        return learn(network, result.aux)

    rate = halving(config.outer_step_size, config.halve_every)
    what = training.Learnable(lambda: tensors | network.still, adam, rate, config.clip)
    training.fit(run, config, what, draw, step)


@plain_torch()
def load(run: Run, source: SupervisedSource, encoder: nn.Module | None = None) -> TrainedInitialisation:
    """The learner of a run, from its last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    config: Config = run.config
    encoder = encoder_choice.to_judge(run, source, encoder)
    return restored(make_network(config, source, Key(run.seed)("maml"), encoder), run, source)
