"""How fast few-shot tasks are drawn and meta-gradients computed, beside learn2learn.

    scripts/setup_peers.sh
    METARL_DATA=... .venv-peers/bin/python scripts/benchmark_fewshot.py --json results/benchmarks/fewshot.json

Both sides work on the same pictures and the same network. learn2learn reads Omniglot as its own benchmark does, with
`FullOmniglot` over torchvision: the archives of METARL_DATA are unpacked into a temporary folder as torchvision lays
them out, so nothing is downloaded. Its tasks come from the transforms of its Omniglot benchmark (N ways, K shots, load,
remap and order the labels, rotate each class). One more row gives it the pictures as tensors in memory, decoded and
resized beforehand: what is left is its sampling alone.

The meta-step is `learn2learn.algorithms.MAML` as its examples use it (clone, adapt, query loss, backward, a task after
the other) on the very module that our strategies call. It gets the number of intra-op threads, one or all cores, that
is faster; ours the plan that `auto` chooses. Both gradients are compared, in float64, before anything is timed.

Where `auto` is judged, the rates are those of its choice and of the fastest strategy, timed in turn.

To add a row: write a function that returns a `Comparison` or a `Row` and put it into `ROWS`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from benchmark import Comparison, Row, Work, main
from peers import learn2learn
from torch import nn

from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.downloads import data_folder
from metarl.fewshot.datasets.omniglot import Omniglot
from metarl.fewshot.learners import maml
from metarl.fewshot.networks.backbones import Backbone, make_backbone
from metarl.fewshot.networks.classifier import Classifier, EncoderAndHead
from metarl.meta import inner, outer
from metarl.parallel import intra_op_threads
from metarl.seeding import Key

l2l = learn2learn()
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
TASKS, WAYS, SHOTS, QUERIES = 32, 5, 1, 1  # the meta-batch of the Omniglot rows
SOURCE = Omniglot(preset="maml", ways=WAYS, shots=SHOTS, queries=QUERIES)
RESIDENT = 150  # MB that Omniglot may take
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


# Meta-steps


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


# Tasks of Omniglot


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Omniglot as torchvision keeps it, from the archives of the data folder."""
    made = tempfile.TemporaryDirectory()
    home = Path(made.name) / "omniglot-py"
    home.mkdir()
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(data_folder(None) / "omniglot" / f"{name}.zip") as pictures:
            pictures.extractall(home)
    return made


class InMemory(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """All pictures decoded and resized, as float tensors."""

    def __init__(self) -> None:
        images = SOURCE.images
        self.pixels = torch.from_numpy(images.pixels).float() / 255
        self.labels = [c for c, count in enumerate(images.counts) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.pixels[index], self.labels[index]


def from_disk() -> Any:
    """learn2learn's FullOmniglot with the transforms of its benchmark."""
    from PIL.Image import LANCZOS
    from torchvision import datasets, transforms

    # It knows the archives by their checksum; SOURCE has verified the very pictures, however they are zipped.
    _ = SOURCE.images
    datasets.Omniglot._check_integrity = lambda self: True
    prepare = transforms.Compose(
        [transforms.Resize(28, interpolation=LANCZOS), transforms.ToTensor(), lambda x: 1.0 - x]
    )
    return l2l.vision.datasets.FullOmniglot(root=folder().name, transform=prepare, download=False)


def taskset(dataset: Any) -> Any:
    """The tasks of learn2learn's Omniglot benchmark over a data set; images of a class lie side by side."""
    meta = l2l.data.MetaDataset(dataset)
    steps = [
        l2l.data.transforms.FusedNWaysKShots(meta, n=WAYS, k=SHOTS + QUERIES),
        l2l.data.transforms.LoadData(meta),
        l2l.data.transforms.RemapLabels(meta),
        l2l.data.transforms.ConsecutiveLabels(meta),
        l2l.vision.transforms.RandomClassRotation(meta, [0.0, 90.0, 180.0, 270.0]),
    ]
    return l2l.data.TaskDataset(meta, task_transforms=steps, num_tasks=-1)


def meta_batch() -> Work:
    """Our side: a meta-batch of fresh tasks."""
    rng = Key(0)("benchmark", "tasks").numpy()
    SOURCE.batch(SOURCE.sample(1, rng))

    def work() -> float:
        SOURCE.batch(SOURCE.sample(TASKS, rng))
        return float(TASKS)

    return work


def one_task(tasks: Any) -> Work:
    """Their side: a task."""

    def work() -> float:
        tasks.sample()
        return 1.0

    return work


SAMPLING = f"Omniglot {WAYS}-way {SHOTS}-shot + {QUERIES} query, rotated classes; tasks/s"


def sampling() -> Comparison:
    """Drawing tasks, against learn2learn's Taskset as its benchmark makes it."""
    return Comparison(f"sampling / learn2learn's Taskset, {SAMPLING}", meta_batch(), one_task(taskset(from_disk())), 80)


def sampling_in_memory() -> Comparison:
    """Drawing tasks, against learn2learn's Taskset over pictures in memory."""
    title = f"sampling / learn2learn's Taskset over tensors in memory, {SAMPLING}"
    return Comparison(title, meta_batch(), one_task(taskset(InMemory())), 10)


def iteration() -> Comparison:
    """A whole iteration: fresh tasks, meta-gradient, Adam; against learn2learn's example on the same network."""
    classifier, params, module = network(OMNIGLOT)
    objective = maml.objective(classifier, inner.Rule(STEP_SIZE))
    rng = Key(0)("benchmark", "iteration").numpy()
    adam = torch.optim.Adam(params.values(), lr=1e-3)

    def ours() -> float:
        batch = SOURCE.batch(SOURCE.sample(TASKS, rng))
        result = outer.meta_gradient(objective, {"model": params}, maml.pairs(batch), plan)
        for name, gradient in result.gradient["model"].items():
            params[name].grad = gradient
        adam.step()
        return 1.0

    tasks, learner = taskset(from_disk()), l2l.algorithms.MAML(module, lr=STEP_SIZE)
    their_adam = torch.optim.Adam(module.parameters(), lr=1e-3)
    plan = automatic(OMNIGLOT)  # with the data sets in memory
    support = torch.arange(WAYS) * (SHOTS + QUERIES)

    def theirs() -> float:
        their_adam.zero_grad()
        for _ in range(TASKS):
            x, y = tasks.sample()
            descend(learner, Batch(x[support], y[support], x[support + 1], y[support + 1]), 1, TASKS)
        their_adam.step()
        return 1.0

    title = f"iteration ({plan.strategy}) / learn2learn's example, {OMNIGLOT.title}; iterations/s"
    return Comparison(title, ours, at_its_best(theirs), 2.5)


def resident() -> Row:
    """How much memory of the process is taken when Omniglot is loaded and a meta-batch drawn from it."""
    program = (
        "import os\n"
        "from pathlib import Path\n"
        "from metarl.fewshot.datasets.omniglot import Omniglot\n"
        "from metarl.seeding import Key\n"
        "def resident():\n"
        "    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6\n"
        "before = resident()\n"
        "source = Omniglot(preset='maml', queries=1)\n"
        "batch = source.batch(source.sample(32, Key(0).numpy()))\n"
        "source.images.pixels.sum()\n"
        "print(resident() - before)\n"
    )
    _ = SOURCE.images  # decoded once; from then on pictures come from the cache
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in "123"]
    megabytes = [float(run.stdout) for run in runs]
    ratios = [RESIDENT / value for value in megabytes]
    ratio = statistics.median(ratios)
    name = "room for Omniglot (MB) / what loading it, drawing 32 tasks and reading every picture takes (MB)"
    return Row(
        name, RESIDENT, statistics.median(megabytes), ratio, 1.0, ratio >= 1, len(runs), (min(ratios), max(ratios))
    )


EPISODES = """
import sys, time
import torch
from metarl.fewshot.learners import metric, protonet
from metarl.fewshot.datasets.omniglot import Omniglot
from metarl.fewshot.networks.scores import loss_and_accuracy
from metarl.allocator import keep_freed_memory
from metarl.seeding import Key

if sys.argv[1] == "kept" and not keep_freed_memory():
    raise SystemExit("this system's allocator cannot be told to keep what is freed")
torch.set_num_threads(1)
source = Omniglot()
config = protonet.DEFAULTS["omniglot"]
network = protonet.make(config, source, 0).train()
source = metric.training_source(config, source)
batch = source.batch(source.sample(1, Key(0).numpy()))
for i in range(7):
    if i == 2:
        start = time.perf_counter()
    network.zero_grad()
    loss_and_accuracy(network(batch, source.ways), batch.query_y)[0].backward()
print(5 / (time.perf_counter() - start))
"""


def kept_memory(repeats: int = 5) -> Row:
    """A training step of ProtoNet in a process that keeps freed memory, as the command line does, or does not."""
    _ = Omniglot().images  # decoded once; from then on pictures come from the cache
    rates: dict[str, list[float]] = {"kept": [], "given back": []}
    for _ in range(repeats):
        for way, result in rates.items():
            told = subprocess.run([sys.executable, "-c", EPISODES, way], capture_output=True, text=True, check=True)
            result.append(float(told.stdout))
    ratios = [kept / given_back for kept, given_back in zip(rates["kept"], rates["given back"], strict=True)]
    ratio = statistics.median(ratios)
    title = "freed memory kept / given back, ProtoNet's gradient on an episode of 60 classes, one thread; episodes/s"
    kept, given_back = (statistics.median(result) for result in rates.values())
    return Row(title, kept, given_back, ratio, 1.2, ratio >= 1.2, repeats, (min(ratios), max(ratios)))


def omniglot() -> Comparison:
    """The meta-step of Omniglot."""
    return meta_step(SHAPES["omniglot"])


def many_queries() -> Comparison:
    """With 15 queries a class."""
    return meta_step(SHAPES["many_queries"])


def pooled() -> Comparison:
    """With pooling, 16 tasks, 5 inner steps."""
    return meta_step(SHAPES["pooled"])


def mini_imagenet() -> Comparison:
    """At the shape of mini-ImageNet."""
    return meta_step(SHAPES["mini_imagenet"])


def auto_omniglot() -> Row:
    """Auto at Omniglot's shape."""
    return choice(SHAPES["omniglot"])


def auto_many_queries() -> Row:
    """Auto with 15 queries."""
    return choice(SHAPES["many_queries"])


def auto_pooled() -> Row:
    """Auto with pooling."""
    return choice(SHAPES["pooled"])


def auto_mini_imagenet() -> Row:
    """Auto at the shape of mini-ImageNet."""
    return choice(SHAPES["mini_imagenet"])


ROWS = [
    sampling,
    sampling_in_memory,
    omniglot,
    many_queries,
    pooled,
    mini_imagenet,
    iteration,
    auto_omniglot,
    auto_many_queries,
    auto_pooled,
    auto_mini_imagenet,
    resident,
    kept_memory,
]

if __name__ == "__main__":
    main(ROWS, __doc__)
