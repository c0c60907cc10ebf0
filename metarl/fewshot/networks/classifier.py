"""The network that adapts to classification tasks: an encoder and a head for N classes."""

from __future__ import annotations

import contextlib
import copy
import threading
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.errors import UserError
from metarl.fewshot.batch import Batch
from metarl.fewshot.networks.backbones import OURS, initialise
from metarl.fewshot.networks.encoders import check_basis, draws_in, feature_size, features, normalised_by
from metarl.fewshot.networks.network import Data
from metarl.fewshot.networks.scores import accuracy
from metarl.nets.params import Params
from metarl.seeding import Key, keyed_globals


class EncoderAndHead(nn.Module):
    """An encoder and a linear layer with an output a class; parameters `encoder.*` and `head.*`."""

    def __init__(self, encoder: nn.Module, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(feature_size(encoder, image_shape), classes)

    def forward(self, x: Tensor, basis: int | None = None) -> Tensor:
        """Logits `(B, classes)`."""
        logits: Tensor = self.head(features(self.encoder, x, basis))
        return logits


class _Skeleton(threading.local):
    """A module without data, one for each thread: calling it with given parameters changes it for a while."""

    def __init__(self, module: nn.Module) -> None:
        # Tensor by tensor, so that tied ones stay one; `module.to("meta")` would part them.
        empty: dict[int, Tensor] = {id(b): torch.empty_like(b, device="meta") for b in module.buffers()}
        for parameter in module.parameters():
            blank = torch.empty_like(parameter, device="meta")
            empty[id(parameter)] = nn.Parameter(blank, requires_grad=parameter.requires_grad)
        self.module = copy.deepcopy(module, empty)  # the copies made so far, by id

    def __reduce__(self) -> tuple[type[_Skeleton], tuple[nn.Module]]:
        """Copies and pickles begin with this thread's module."""
        return _Skeleton, (self.module,)


class Classifier:
    """An encoder and a linear head for N classes, with mean cross-entropy.

    A loss is a function of the parameters alone: buffers are as they were at each call. In training, what the query
    pass makes of them (running statistics, say) is reported, and `follow` takes it over between meta-batches.

    Args:
        encoder: any module from images `(B, C, H, W)` to features `(B, F)`, used in the mode it is in; it is
            copied. Its parameters that require no gradient are no parameters here.
        image_shape: (channels, height, width).
        ways: N.
        batch_norm: what the query images are normalised with: `transductive`, themselves;
            `support`, the support images. See `metarl.fewshot.networks.backbones`.

    Attributes:
        frozen: parameters that require no gradient.
        buffers: of the encoder, changed in place by `follow`.
        draws: whether it draws random numbers.
        normalised_by: what images are normalised with when it is judged, in words.

    Raises:
        UserError: the encoder does not fit.
    """

    metric = "query_accuracy"

    def __init__(
        self,
        encoder: nn.Module,
        image_shape: tuple[int, int, int],
        ways: int,
        batch_norm: Literal["transductive", "support"] = "transductive",
    ) -> None:
        check_basis(encoder, batch_norm)
        self.ways = ways
        self.batch_norm = batch_norm
        self.normalised_by = normalised_by(encoder, batch_norm)
        self.draws = not isinstance(encoder, OURS) and draws_in(encoder, image_shape, training=True)
        module = EncoderAndHead(encoder, image_shape, ways)
        parameters = {f"encoder.{name}": value for name, value in encoder.named_parameters()}
        self._encoder = {name: value.detach().clone() for name, value in parameters.items() if value.requires_grad}
        self.frozen = {name: value.detach().clone() for name, value in parameters.items() if not value.requires_grad}
        self.buffers = {name: value.detach().clone() for name, value in module.named_buffers()}
        self._head = copy.deepcopy(module.head)
        self._skeleton = _Skeleton(module)

    @property
    def still(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside the parameters, changed in place: frozen parameters and buffers."""
        return self.frozen | self.buffers

    def init(self, generator: torch.Generator) -> Params:
        """The encoder's parameters as they were given, and a fresh head."""
        initialise(self._head, generator)
        head = {f"head.{name}": value.detach().clone() for name, value in self._head.named_parameters()}
        return {name: value.clone() for name, value in self._encoder.items()} | head

    def to(self, device: str) -> Classifier:
        """Itself, what it holds being moved."""
        self.frozen = {name: value.to(device) for name, value in self.frozen.items()}
        self.buffers = {name: value.to(device) for name, value in self.buffers.items()}
        return self

    def logits(self, params: Params, x: Tensor, basis: int | None = None) -> Tensor:
        """`(B, N)` from images `(B, C, H, W)`."""
        return self._call(params, x, basis, None)[0]

    def _call(self, params: Params, x: Tensor, basis: int | None, key: Key | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and the buffers after the call."""
        # Copies that the module may change in place; under vmap they are batched as the images are, or it could not.
        tensors = {**self.frozen, **params}
        if self.buffers:
            one = torch.zeros_like(x.select(0, 0).sum(), dtype=torch.bool)
            tensors |= {name: torch.where(one, value, value) for name, value in self.buffers.items()}
        with contextlib.nullcontext() if key is None else keyed_globals(key):
            logits: Tensor = torch.func.functional_call(self._skeleton.module, tensors, (x, basis), strict=True)
        return logits, {name: tensors[name] for name in self.buffers}

    def query_logits(self, params: Params, task: Batch) -> Tensor:
        """`(R, N)` for a task's query images."""
        return self._query(params, task, None)[0]

    def _query(self, params: Params, task: Batch, key: Key | None) -> tuple[Tensor, dict[str, Tensor]]:
        if self.batch_norm == "transductive":
            return self._call(params, task.query_x, None, key)
        basis = task.support_x.shape[0]
        logits, buffers = self._call(params, torch.cat([task.support_x, task.query_x]), basis, key)
        return logits[basis:], buffers

    def support_loss(self, params: Params, data: Data) -> Tensor:
        """Mean cross-entropy over the support images, normalised with themselves; every step draws alike."""
        x, y = data[:2]
        key = Key(int(data[2]))("support") if len(data) > 2 else None
        return F.cross_entropy(self._call(params, x, None, key)[0], y)

    def query_loss(self, params: Params, task: Batch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and accuracy over the query images."""
        logits = self.query_logits(params, task)
        return F.cross_entropy(logits, task.query_y), accuracy(logits.detach(), task.query_y)

    def judge(self, params: Params, task: Batch, seed: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """In training: mean loss over the query images, and what to report: scalars, and `buffer/NAME` afterwards."""
        logits, buffers = self._query(params, task, None if seed is None else Key(int(seed))("query"))
        loss = F.cross_entropy(logits, task.query_y)
        report = {"loss/query": loss.detach(), f"score/{self.metric}": accuracy(logits.detach(), task.query_y)}
        return loss, report | {f"buffer/{name}": value.detach() for name, value in buffers.items()}

    def follow(self, buffers: dict[str, Tensor]) -> None:
        """Take over what the tasks made of the buffers, `(T, ...)`: the mean change; of whole numbers, the sum."""
        for name, each in buffers.items():
            value = self.buffers[name]
            if value.dtype == torch.bool:
                value.logical_xor_((each != value).any(0))
                continue
            change = torch.where(each == value, torch.zeros_like(each), each - value)  # also where it is infinite
            value.add_(change.mean(0) if value.is_floating_point() else change.sum(0))


def check_ways(ways: int, known: int) -> None:
    """Check that a head of `known` outputs can tell `ways` classes apart.

    Raises:
        UserError: there are more classes.
    """
    if ways > known:
        raise UserError(
            f"this learner's head tells {known} classes apart and was given {ways}: give at most {known}, train one "
            f"with --ways {ways}, or use a learner that takes any number of classes (protonet, centroid)"
        )
