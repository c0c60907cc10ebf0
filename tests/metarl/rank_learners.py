"""Small trainings of RL² and the few-shot learners on ranks, in a file that their processes can import."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metarl import registry
from metarl.envs import make_family
from metarl.errors import NonFiniteError, UserError
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.images import Images
from metarl.fewshot.datasets.sinusoid import Sinusoid
from metarl.fewshot.learners import encoder_choice, matchingnet, metric, transfer
from metarl.fewshot.networks.classifier import Classifier
from metarl.fewshot.networks.joint_norm import share_images
from metarl.fewshot.networks.regressor import Regressor
from metarl.nets.actor_critic import RecurrentPolicy
from metarl.ranks import Ranks
from metarl.runs.run import Run
from metarl.seeding import Key

Trained = tuple[dict[str, NDArray[Any]], list[dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class Blots(ImageSource):
    """Ten classes of six pictures of noise."""

    name: ClassVar[str] = "blots"
    queries: int = 2

    def load(self):
        drawn = np.random.default_rng(0).integers(0, 256, (60, 1, 16, 16), np.uint8)
        return Images(drawn, tuple(map(str, range(10))), (6,) * 10, ("",) * 10)

    def split_classes(self, images):
        return {"train": range(6), "validation": range(6, 8), "test": range(8, 10)}


class Normed(nn.Module):
    """An encoder of a user's with torch's batch normalisation, and dropout if asked."""

    def __init__(self, dropout: float = 0.0, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, bias=False),
            nn.BatchNorm2d(4, momentum=momentum),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(196, 8, bias=False),
        )
        for weight, stream in ((self.layers[0].weight, "convolution"), (self.layers[5].weight, "linear")):
            nn.init.normal_(weight, 0, 0.1, generator=Key(0)(stream).torch())

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


class Whitened(Normed):
    """One that subtracts the mean of the images beside."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class Counted(Normed):
    """One that remembers what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.sum()
        return super().forward(x)


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "normed": Normed,
    "averaged": lambda: Normed(momentum=None),
    "dropped": lambda: Normed(dropout=0.2),
    "whitened": Whitened,
    "counted": Counted,
}


def trainings(ranks: Ranks, cases: list[tuple[str, bool, dict[str, Any]]]) -> list[Trained]:
    """Parameters and metrics after 5 iterations of each learner, with its options, in double precision or not."""
    return [training(ranks, *case) for case in cases]


def training(ranks: Ranks, learner: str, double: bool, options: dict[str, Any]) -> Trained:
    """Those of one learner; of what is drawn at random nothing depends on the ranks."""
    module, states = registry.learner(learner), list[Callable[[], Any]]()
    options, encoder = dict(options), ENCODERS.get(options.get("encoder", ""))
    options.pop("encoder", None)
    source: Any = Sinusoid(shots=4, queries=4) if options.pop("waves", False) else Blots(ways=2)
    if acts := learner in ("rl2", "varibad"):
        source = make_family("metarl/BernoulliBandit-v0")
    config = module.Config(iterations=5, **options, **({} if acts else {"log_every": 1}))
    with tempfile.TemporaryDirectory() as folder, pytest_patches() as patch:
        if double:
            in_double(patch)
        run = Run.create(Path(folder) / "run", learner=learner, config=config, source=source, seed=0)
        run.ranks = ranks
        loop = run.loop

        def watched(total: int, *, checkpoint_every: int, state: Callable[[], Any]) -> Any:
            states.append(state)
            return loop(total, checkpoint_every=checkpoint_every, state=state)

        patch.setattr(run, "loop", watched)
        module.train(config, source, run, **({"encoder": encoder()} if encoder else {}))
        params = {name: value.detach().numpy().copy() for name, value in states[0]()["params"].items()}
        return params, run.metrics()


def drawn_anew(ranks: Ranks) -> NDArray[Any]:
    """The parameters after training an encoder that every process has drawn for itself."""
    drawn = Normed()
    nn.init.normal_(drawn.layers[0].weight, generator=Key(ranks.rank)("drawn").torch())
    ENCODERS["drawn"] = lambda: drawn
    options = {"tasks": 2, "train_ways": 3, "train_queries": 2, "encoder": "drawn"}
    params, _ = training(ranks, "protonet", False, options)
    return np.concatenate([value.ravel() for value in params.values()])


def pytest_patches() -> Any:
    """`pytest.MonkeyPatch`, for a while."""
    import pytest

    return pytest.MonkeyPatch.context()


def in_double(patch: Any) -> None:
    """Have parameters and images in double precision."""

    def doubled(kind: Any, name: str, change: Callable[[Any], Any]) -> None:
        before = getattr(kind, name)
        patch.setattr(kind, name, lambda *args, **options: change(before(*args, **options)))

    def tensors(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.double() if value.is_floating_point() else value for name, value in values.items()}

    for network in (Classifier, Regressor, RecurrentPolicy):
        doubled(network, "init", tensors)
    doubled(metric, "make_encoder", lambda encoder: encoder.double())
    doubled(transfer, "make_encoder", lambda encoder: encoder.double())
    doubled(transfer, "Head", lambda head: head.double())
    doubled(encoder_choice, "own", lambda encoder: encoder.double())
    doubled(matchingnet, "MatchingNet", lambda network: network.double())
    for source in (ImageSource, Sinusoid):
        doubled(source, "batch", lambda batch: replace(batch, **tensors(vars(batch))))
    doubled(transfer.BaseClasses, "draw", lambda drawn: (drawn[0].double(), drawn[1]))
    doubled(RecurrentPolicy, "start", lambda state: state.double())
    tell = RecurrentPolicy.tell
    patch.setattr(
        RecurrentPolicy, "tell", lambda self, params, task: tell(self, params, None if task is None else task.double())
    )
    for name in ("step", "act", "sequence"):
        before = getattr(RecurrentPolicy, name)
        patch.setattr(
            RecurrentPolicy,
            name,
            lambda self, params, obs, state, task=None, before=before: before(
                self, params, obs.double(), state.double(), None if task is None else task.double()
            ),
        )


def refusals(ranks: Ranks) -> list[str]:
    """What is said of encoders whose images cannot be shared."""
    said = []
    for name, together in (("dropped", True), ("whitened", True), ("counted", True), ("normed", False)):
        try:
            share_images(ENCODERS[name](), (1, 16, 16), ranks, together=together)
        except UserError as error:
            said.append(str(error))
    share_images(Normed(), (1, 16, 16), ranks, together=True)
    return said


def diverges(ranks: Ranks, learner: str, options: dict[str, Any], broken: int) -> tuple[list[int], int]:
    """The tasks that every rank blames where the task with index `broken` in the split has infinite data."""
    with pytest_patches() as patch:
        if learner == "rl2":
            from metarl.learning import recurrent_ppo

            prepare = recurrent_ppo.prepare

            def spoiled(*args: Any) -> Any:
                batch, explained = prepare(*args)
                batch.targets[:, broken] = torch.inf
                return batch, explained

            patch.setattr(recurrent_ppo, "prepare", spoiled)
        else:
            sample = Sinusoid.sample

            def spoilt(self: Any, n: int, rng: Any, split: str = "train") -> Any:
                tasks = sample(self, n, rng, split)
                arrays = {name: value.copy() for name, value in tasks.arrays.items()}
                arrays["amplitude"][broken] = 1e30
                return type(tasks)(arrays, split=tasks.split, indices=tasks.indices)

            patch.setattr(Sinusoid, "sample", spoilt)
        try:
            training(ranks, learner, False, options)
        except NonFiniteError as error:
            return error.tasks, error.of
    raise AssertionError("nothing diverged")
