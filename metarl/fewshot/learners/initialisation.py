"""A trained initialisation, judged: a curve over the gradient steps it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.allocator import check_memory
from metarl.ambient import plain_torch, usable
from metarl.errors import UserError
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets.image_source import ImageSource
from metarl.fewshot.datasets.source import SupervisedSource
from metarl.fewshot.learners import training
from metarl.fewshot.networks import chunks
from metarl.fewshot.networks.classifier import Classifier, check_ways
from metarl.fewshot.networks.network import Network
from metarl.fewshot.networks.scores import known
from metarl.learning.contract import Budget, Scores
from metarl.learning.footprint import NUMBER
from metarl.meta import inner
from metarl.nets.params import Params
from metarl.ops import finite
from metarl.runs.run import Run
from metarl.seeding import Key
from metarl.tasks import Tasks

EVALUATION_CHUNK = 100  # tasks whose data is gathered together when a curve is measured
TEST_STEPS = 10  # of `log_probabilities` (cbfinn/maml tests after 10)


@dataclass(frozen=True)
class TrainedInitialisation:
    """A trained initialisation, adapted to new tasks by gradient descent.

    Attributes:
        network: what is adapted.
        params: where adaptation starts.
        rule: its steps; `steps` is how many `log_probabilities` takes, a curve takes its budget's.
        source: where its tasks come from.
    """

    network: Network
    params: Params
    rule: inner.Rule
    source: SupervisedSource

    @plain_torch()
    def adapt(self, task: Batch, steps: int) -> list[Params]:
        """The K+1 iterates of a task, without the task axis."""
        task = usable(task)
        data = (task.support_x, task.support_y)
        return inner.adapt(self.params, self.network.support_loss, data, replace(self.rule, steps=steps, order=1))

    @plain_torch()
    def curve(self, tasks: Tasks, budget: Budget, seed: int) -> Scores:
        """Score on the query data after 0..K gradient steps on the support set; NaN or infinite where they diverge.

        Raises:
            UserError: the tasks have other ways than the head, or the steps do not fit into memory.
            NonFiniteError: a score is not finite before any step.
        """
        if isinstance(self.network, Classifier) and (ways := tasks.arrays["classes"].shape[1]) != self.network.ways:
            raise UserError(
                f"these tasks have {ways} classes, this learner's head is for {self.network.ways}: train one"
            )

        numbers = sum(value.numel() for value in self.params.values())
        check_memory(NUMBER * numbers * budget.steps, f"{budget.steps:,} steps with {numbers:,} parameters need")

        def one(task: Batch) -> Tensor:
            return torch.stack([self.network.query_loss(params, task)[1] for params in self.adapt(task, budget.steps)])

        scores: list[Tensor] = []
        with torch.no_grad():
            together = self._tasks_together(tasks)
            for start in range(0, len(tasks), together):
                batch = self.source.batch(tasks[start : start + together], self.device)
                if isinstance(self.network, Classifier):  # adapted convolutions in one batch are slow on a CPU
                    scores += [one(batch[i])[None] for i in range(len(batch))]
                else:
                    scores.append(torch.func.vmap(one)(batch))
        shots, protocol = self._protocol(batch)
        values = torch.cat(scores).cpu().double()
        finite.check_rows({"score": values[:, :1]}, "the score before adaptation", tasks)
        return Scores(
            values=values.numpy(),
            gradient_steps=tuple(range(budget.steps + 1)),
            env_steps=None,
            shots=tuple(shots if k else 0 for k in range(budget.steps + 1)),
            kind=self.source.kind,
            protocol=protocol,
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(iter(self.params.values())).device

    def to(self, device: torch.device | str) -> TrainedInitialisation:
        """The same on a device; its network is moved itself."""
        sizes: Any = self.rule.step_size
        if not isinstance(sizes, float):
            sizes = pytree.tree_map(lambda value: value.to(device), sizes)
        params = {name: value.to(device) for name, value in self.params.items()}
        return replace(
            self, network=self.network.to(str(device)), params=params, rule=replace(self.rule, step_size=sizes)
        )

    def _tasks_together(self, tasks: Tasks) -> int:
        """How many tasks' data are gathered together: so many images as fit into `chunks.BYTES`."""
        if not isinstance(self.source, ImageSource):
            return EVALUATION_CHUNK
        images = tasks.arrays["support"].shape[1] + tasks.arrays["query"].shape[1]
        each = chunks.COPIES * images * math.prod(self.source.image_shape) * torch.float32.itemsize
        return int(max(1, min(EVALUATION_CHUNK, chunks.BYTES // each)))

    def _protocol(self, batch: Batch) -> tuple[int, str]:
        size = f" of {self.rule.step_size:g}" if isinstance(self.rule.step_size, float) else ""
        points = int(batch.support_x.shape[1])
        if not isinstance(self.network, Classifier):
            return points, f"gradient steps{size} on {points} support points"
        ways = self.network.ways
        return points // ways, (
            f"{ways}-way {points // ways}-shot, gradient steps{size} on {points} support images; "
            f"batch norm: {self.network.normalised_by}"
        )

    @plain_torch()
    def log_probabilities(self, batch: Batch, ways: int) -> Tensor:
        """Of the first `ways` classes for the query images, `(T, R, ways)`; query labels are not used.

        Raises:
            UserError: the head has fewer outputs.
            NonFiniteError: one is NaN: the adaptation diverges.
        """
        network = self.network
        if not isinstance(network, Classifier):
            raise ValueError("only a classifier has probabilities; this learner does regression")
        check_ways(ways, network.ways)
        with torch.no_grad():
            logits = [
                network.query_logits(self.adapt(batch[i], self.rule.steps)[-1], batch[i]) for i in range(len(batch))
            ]
        return known(torch.stack(logits)[..., :ways].log_softmax(-1))


def named_sizes(sizes: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Learned step sizes as a checkpoint holds them: `rule/NAME`, or `rule/STEP/NAME` where every step has its own."""
    if isinstance(sizes, Mapping):
        return {f"rule/{name}": value for name, value in sizes.items()}
    return {f"rule/{k}/{name}": value for k, step in enumerate(sizes) for name, value in step.items()}


def restored(network: Network, run: Run, source: SupervisedSource) -> TrainedInitialisation:
    """A network with the tensors of the run's last checkpoint.

    Raises:
        UserError: the run has no checkpoint yet, or it does not fit.
    """
    config, params = run.config, network.init(Key(run.seed)("loaded").torch())
    learned: dict[str, Tensor] | tuple[dict[str, Tensor], ...] | None = None
    if (kind := getattr(config, "step_sizes", "fixed")) != "fixed":
        moving = inner.Rule(0.0, moves=config.moves).moving(list(params))
        if kind == "learned":
            learned = {name: torch.zeros_like(params[name]) for name in moving}
        else:
            learned = tuple({name: params[name].new_zeros(()) for name in moving} for _ in range(config.inner_steps))
    training.put_back(params | network.still | named_sizes(learned or {}), training.saved(run), run)
    rule = inner.Rule(learned or config.inner_step_size, TEST_STEPS, config.moves, 1)
    return TrainedInitialisation(network, params, rule, source).to(run.device)
