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

import statistics
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from benchmark import Comparison, Row, Work, main
from fewshot_meta_steps import (
    OMNIGLOT,
    QUERIES,
    SHAPES,
    SHOTS,
    STEP_SIZE,
    TASKS,
    WAYS,
    at_its_best,
    automatic,
    choice,
    descend,
    meta_step,
    network,
)
from peers import learn2learn

from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.downloads import data_folder
from metarl.fewshot.datasets.omniglot import Omniglot
from metarl.fewshot.learners import maml
from metarl.meta import inner, outer
from metarl.seeding import Key

l2l = learn2learn()
SOURCE = Omniglot(preset="maml", ways=WAYS, shots=SHOTS, queries=QUERIES)
RESIDENT = 150  # MB that Omniglot may take


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
