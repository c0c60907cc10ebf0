"""A scikit-learn classifier that learns new classes from a few pictures.

    classifier = FewShotClassifier("runs/glyphs").fit(files, labels)
    classifier.predict(others)

`fit` keeps the pictures it is shown; `predict` puts them beside the new ones, as the support and query set of
one task, before the trained learner: the same computation as in the learner's evaluation.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import Tensor, nn

from metarl.ambient import plain_torch
from metarl.errors import UserError
from metarl.fewshot import LEARNERS
from metarl.fewshot.batch import Batch
from metarl.fewshot.datasets import make_dataset
from metarl.fewshot.datasets.archives import read_file, reading, warn
from metarl.fewshot.datasets.images import ImageSource
from metarl.fewshot.datasets.pictures import (
    ADVICE,
    BLANK,
    FRAMES,
    Preparation,
    blank,
    check_whole,
    has_frames,
    is_grey,
    opened,
)
from metarl.fewshot.learners import baseline_plus, maml
from metarl.fewshot.learners.logistic import Logistic
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.learners.transfer import FittedHead, HeadConfig
from metarl.fewshot.networks import chunks, embedding
from metarl.fewshot.networks.backbones import BatchNormMode
from metarl.fewshot.networks.embedding import EmbeddingNetwork
from metarl.fewshot.networks.functional import Classifier, check_ways
from metarl.parallel import has_device
from metarl.runs.run import Run

Trained = embedding.Trained | maml.Trained
QUERIES = 1000  # pictures classified together at most, so that memory does not grow with their number
Remarks = dict[str, list[str]]  # what stands out about which pictures
RULES: dict[str, Callable[[nn.Module, BatchNormMode], EmbeddingNetwork]] = {
    "centroid": ProtoNet,
    "logistic": partial(Logistic, c=1.0),
    "baseline": partial(FittedHead, config=HeadConfig(), scale=None),
    "baseline++": partial(FittedHead, config=HeadConfig(), scale=baseline_plus.TASK_SCALE),
}


class InputError(UserError, ValueError):
    """A mistake in what the user gave; a ValueError too, as scikit-learn's callers expect."""


def load_run(folder: str | Path, batch_norm: BatchNormMode | None = None) -> tuple[Run, Trained]:
    """A few-shot run and its trained learner, from its last checkpoint; the data set itself is not read.

    Args:
        folder: of the run.
        batch_norm: another mode than the run's: `transductive` and `support` may stand for each other.

    Raises:
        UserError: there is no such run, it has no checkpoint, or it does not classify images.
    """
    name = Run.open(folder).learner
    if name not in LEARNERS:
        raise UserError(f"{folder} is a run of {name}, which classifies no images; give one of {', '.join(LEARNERS)}")
    learner = importlib.import_module(LEARNERS[name][0])
    run = Run.open(folder, learner.Config)
    try:
        source = make_dataset(run.source["name"], **run.source["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} names a data set that cannot be made: {error}") from None
    if not isinstance(source, ImageSource):
        raise UserError(f"{folder} was trained on {run.source['name']}, which has no classes; give a run on images")
    if batch_norm is not None and batch_norm != run.config.batch_norm:
        if "running" in (batch_norm, run.config.batch_norm):
            raise UserError(f"{folder} was trained with batch norm {run.config.batch_norm}, which cannot be changed")
        run.config = replace(run.config, batch_norm=batch_norm)
    return run, learner.load(run, source)


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Learns classes from a few pictures each, as a scikit-learn estimator.

    Pictures are files or PIL images in any sequence or iterator (a list, tuple, array, pandas.Series, generator, ...),
    of any sizes and modes where the learner or `size` says how large they become; or an array: `(N, height, width)`,
    `(N, height, width, channels)`, or flat `(N, height * width * channels)`, of bytes 0..255 (uint8) or floats in
    [0, 1]. They are seen as a person sees them (`metarl.fewshot.datasets.pictures`) and prepared as the learner's data
    set prepared its own: size, channels, and for letters the ink turned light (Omniglot, glyphs: give dark ink on light
    paper). A picture of a single colour is named in a warning. Classes may have different numbers of pictures.

    A learner that compares embeddings takes any number of classes; one that adapts a head (MAML, FOMAML,
    ANIL, Meta-SGD, Reptile) takes up to the ways it was trained with. In the batch-norm mode `transductive` a
    prediction depends on the other pictures of the call, up to 1,000 of them; in the other modes it does not.

    Args:
        learner: a run folder; what a few-shot learner's `load` returns; or any `nn.Module` from images
            `(B, channels, height, width)` to features `(B, F)`. None: the pixels themselves.
        rule: how features become classes: `centroid`, `logistic`, `baseline` or `baseline++`, as the learners
            of these names do it. None: the learner's own; `centroid` for an encoder.
        batch_norm: what images are normalised with, see `metarl.fewshot.networks.backbones`. None: as the learner was
            trained; `running` for an encoder. A learner that is already loaded keeps its own.
        preparation: how pictures become images. None: as the learner's data set has it. An encoder without one gets
            pictures as they are: bytes in units of 255, other numbers unchanged, flat rows flat.
        size: an encoder's pictures are resized to it, (height, width) or one number for both, with Pillow's LANCZOS
            filter. None: they stay as large as they are, and must be equally large.
        grey: an encoder's pictures get one channel (True) or three (False). None: one if all of those learned from
            are grey, else three.
        device: where it computes, such as "cuda". None: where the learner lies.

    Attributes:
        classes_: the labels, sorted.
        batch_norm_: the batch-norm mode in use.
        n_features_in_: numbers in a picture, where `fit` was given flat ones.
    """

    def __init__(
        self,
        learner: Any = None,
        rule: str | None = None,
        batch_norm: BatchNormMode | None = None,
        preparation: Preparation | None = None,
        size: int | tuple[int, int] | None = None,
        grey: bool | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.learner = learner
        self.rule = rule
        self.batch_norm = batch_norm
        self.preparation = preparation
        self.size = size
        self.grey = grey
        self.device = device

    @plain_torch()
    def fit(self, X: Any, y: Any) -> FewShotClassifier:  # noqa: N803 - scikit-learn's name
        """Learn classes from labelled pictures.

        Args:
            X: N pictures, see the class.
            y: their N labels, strings or integers, of at least two classes.

        Raises:
            ValueError: pictures or labels are not as described.
            UserError: pictures (all of them are named) or the run cannot be read, or there are more classes than a
                head tells apart.
        """
        X, y = listed(X, "pictures"), listed(y, "labels")  # noqa: N806 - scikit-learn's name
        if _flat(X):
            X, y = validate_data(self, X, y, dtype="numeric")  # noqa: N806 - scikit-learn's name
        else:
            y = column_or_1d(y, warn=True)
            check_consistent_length(X, y)
        check_classification_targets(y)
        self._model, self._preparation = self._loaded()
        self._mode_seen = self._preparation is None and self.grey is None  # taken from the pictures learned from
        if self._preparation is None:
            self._preparation = self._asked_for(X)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError("these labels are of 1 class; a classifier needs at least 2")
        network: Any = self._model.network if isinstance(self._model, Trained) else self._model
        if isinstance(network, Classifier):
            check_ways(len(self.classes_), network.ways)
        self.batch_norm_ = network.batch_norm
        self._support = self._tensor(images(X, self._preparation))
        self._together = min(QUERIES, self._affordable(network))
        self._labels = torch.from_numpy(index.astype(np.int64)).to(self._support.device)
        return self

    @plain_torch()
    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803 - scikit-learn's name
        """Probabilities `(N, classes)`, in the order of `classes_`; a row sums to 1.

        Raises:
            ValueError: the pictures are not as described, or do not fit those learned from.
            UserError: pictures cannot be read (all of them are named).
            NonFiniteError: a feature or a probability is NaN.
        """
        check_is_fitted(self)
        X = listed(X, "pictures")  # noqa: N806 - scikit-learn's name
        if _flat(X):
            X = validate_data(self, X, dtype="numeric", reset=False)  # noqa: N806 - scikit-learn's name
        preparation = self._preparation
        if preparation is None and _named_or_opened(X):  # learned from numbers, asked about files
            preparation = Preparation("L" if self._support.shape[1] == 1 else "RGB", None)
        if self._mode_seen and preparation is not None and preparation.mode == "L" and _coloured(X, preparation.size):
            raise InputError("these pictures have colours, those learned from are grey: give grey=True or grey=False")
        found, errors = [], []
        remarks: Remarks = defaultdict(list)
        for start in range(0, max(len(X), 1), self._together):
            values, broken = _images(X[start : start + self._together], preparation, remarks, start)
            errors += broken
            if not errors:
                found.append(self._probabilities(self._fitting(values)))
        check_whole(errors, len(X))
        warn("the pictures to classify", remarks)
        return np.concatenate(found)

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803 - scikit-learn's name
        """The likeliest label of each picture `(N,)`; raises what `predict_proba` raises."""
        likeliest = self.predict_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[likeliest]
        return labels

    def _probabilities(self, query: Tensor) -> NDArray[np.float64]:
        blank = torch.zeros(1, len(query), dtype=torch.int64, device=query.device)
        batch = Batch(self._support[None], self._labels[None], query[None], blank)
        found = self._model.log_probabilities(batch, len(self.classes_))[0].double().softmax(-1)
        return np.asarray(found.cpu().numpy())

    def _fitting(self, values: NDArray[Any]) -> Tensor:
        """Images to classify as tensors, if they are as large as those learned from."""
        query = self._tensor(values)
        if query.shape[1:] != self._support.shape[1:]:
            shapes = [tuple(each.shape[1:]) for each in (query, self._support)]
            raise InputError(
                f"these images are {shapes[0]}, those learned from are {shapes[1]}; give a preparation with one size"
            )
        return query

    def _asked_for(self, pictures: Any) -> Preparation | None:
        """How an encoder's pictures become images; None: numbers, taken as they are."""
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if size is None and self.grey is None and not _named_or_opened(pictures):
            return None
        colours = _coloured(pictures, size) if self.grey is None else not self.grey
        return Preparation("RGB" if colours else "L", size)

    def _affordable(self, network: Any) -> int:
        """Pictures that may be classified together within `chunks.BYTES`."""
        model: Any = self._model
        shape, like = self._support.shape[1:], self._support
        each = chunks.COPIES * like[0].numel() * like.element_size()
        if network.batch_norm != "running":
            encode = partial(network.logits, model.params) if isinstance(model, maml.Trained) else network.encoder
            each += chunks.bytes_per_image(encode, shape, like)
        return max(1, chunks.BYTES // each)

    def _loaded(self) -> tuple[Trained | EmbeddingNetwork, Preparation | None]:
        """The learner under its rule, and how pictures become its images."""
        given, rule, device = self.learner, self.rule, self.device
        if self.preparation is not None and (self.size is not None or self.grey is not None):
            raise InputError("preparation already says size and mode: give it, or size and grey")
        if rule is not None and rule not in RULES:
            raise InputError(f"there is no rule {rule!r}; choose from {', '.join(RULES)}")
        if given is None or isinstance(given, nn.Module):
            encoder = nn.Flatten() if given is None else copy.deepcopy(given)
            return _moved(
                RULES[rule or "centroid"](encoder, self.batch_norm or "running").eval(), device
            ), self.preparation
        if isinstance(given, str | Path):
            given = load_run(given, self.batch_norm)[1]
        elif device is not None:
            given = copy.deepcopy(given)  # the caller's stays where it is
        if not isinstance(given, Trained) or not isinstance(given.source, ImageSource):
            raise InputError(
                f"a learner is a run folder, a loaded learner of images or an nn.Module, not {given!r:.100}"
            )
        if self.size is not None or self.grey is not None:
            raise InputError("size and grey are for an encoder: a learner prepares pictures as its data set did")
        preparation = self.preparation or given.source.preparation
        if rule is None:
            return _moved(given, device), preparation
        if isinstance(given, maml.Trained):
            raise InputError(
                f"rule {rule!r} is for learners with an encoder; this one adapts its network, leave it out"
            )
        made = RULES[rule](given.network.encoder, given.network.batch_norm).eval()
        return _moved(made, device), preparation

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """Images as the learner takes them: its device and its floating-point type, bytes in units of 255."""
        if isinstance(self._model, maml.Trained):
            held = list(self._model.params.values())
        else:
            module = self._model.network if isinstance(self._model, Trained) else self._model
            held = list(module.parameters())
        like = held[0] if held else torch.zeros((), dtype=torch.float64)
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(like)
        return tensor / 255 if values.dtype == np.uint8 else tensor


def _moved(model: Any, device: str | torch.device | None) -> Any:
    """A model on a device; it is moved itself.

    Raises:
        InputError: this machine has no such device.
    """
    if device is None:
        return model
    if not has_device(device):
        raise InputError(f"this machine has no device {str(device)!r}; device='cpu' always works")
    if isinstance(model, maml.Trained):
        model.network.to(str(device))
        return replace(model, params={name: value.to(device) for name, value in model.params.items()})
    (model.network if isinstance(model, embedding.Trained) else model).to(device)
    return model


def listed(values: Any, what: str) -> Any:
    """Pictures or labels in something that has a length and can be cut: arrays and tables as they are, else a list.

    Raises:
        InputError: it is a single picture, or has no order.
    """
    if isinstance(values, str | bytes | os.PathLike | Image.Image):
        raise InputError(f"{what} come as a list, also where there is only one; got {values!r:.100}")
    if isinstance(values, Mapping | Set) and not hasattr(values, "shape"):
        raise InputError(f"{what} come in an order, which a {type(values).__name__} has not; give a list")
    if hasattr(values, "__array__") and getattr(values, "ndim", None) == 1:  # pandas.Series and its like
        return np.asarray(values)
    if hasattr(values, "shape") or isinstance(values, list | tuple) or not isinstance(values, Iterable):
        return values
    return list(values)


def images(pictures: Any, preparation: Preparation | None) -> NDArray[Any]:
    """Pictures as images `(N, channels, height, width)`; flat rows stay flat where there is no preparation.

    Raises:
        InputError: they are not as `FewShotClassifier` describes them.
        UserError: some cannot be read.
    """
    remarks: Remarks = defaultdict(list)
    made, broken = _images(pictures, preparation, remarks)
    check_whole(broken, len(pictures))
    warn("the pictures", remarks)
    return made


def _images(
    pictures: Any, preparation: Preparation | None, remarks: Remarks, first: int = 0
) -> tuple[NDArray[Any], list[str]]:
    """`images`, and what was wrong with pictures that cannot be read (then there may be no images).

    Args:
        pictures: some of all that were given.
        preparation: see `FewShotClassifier`.
        remarks: what stands out is added.
        first: the place of the first of them.
    """
    if _named_or_opened(pictures):
        return _read(pictures, preparation or Preparation("RGB", None), remarks, first)
    values = check_array(pictures, dtype="numeric", ensure_2d=False, allow_nd=True)
    if preparation is None:
        return np.array(values if values.ndim == 2 else _with_channels(values).transpose(0, 3, 1, 2)), []
    if values.ndim == 2:
        if preparation.size is None:
            raise InputError("flat pictures have no height and width: give size, or pictures of two dimensions")
        channels, height, width = preparation.image_shape
        if values.shape[1] != channels * height * width:
            raise InputError(
                f"flat pictures for this learner have {height} x {width} x {channels} numbers, not {values.shape[1]}"
            )
        values = values.reshape(-1, height, width, channels)
    values = _with_channels(values)
    if values.shape[3] not in (1, 3):
        raise InputError(f"a picture has 1 or 3 channels, on the last axis; these are {values.shape[1:]}")
    made = np.stack([preparation.of(Image.fromarray(each)) for each in _bytes(values)])
    remarks[BLANK] += [f"picture {first + i}" for i in np.flatnonzero(blank(made))]
    return made, []


def _read(
    pictures: Sequence[Any], preparation: Preparation, remarks: Remarks, first: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """`_images` of files or PIL images."""
    made, names, broken = [], [], []
    for i, picture in enumerate(pictures, first):
        name = picture if isinstance(picture, str) else os.fspath(picture) if _is_file(picture) else f"picture {i}"
        try:
            with _seen(picture, str(name)) as each:
                if has_frames(each):
                    remarks[FRAMES].append(str(name))
                made.append(preparation.of(each))
                names.append(str(name))
        except InputError:
            raise
        except UserError as error:
            broken.append(str(error))
    if broken:
        return np.empty(0, np.uint8), broken
    shapes = sorted({each.shape for each in made})
    if len(shapes) > 1:
        raise InputError(f"pictures of different shapes, {shapes[0]} and {shapes[-1]}: give size=, such as size=84")
    stacked = np.stack(made)
    remarks[BLANK] += [name for name, single in zip(names, blank(stacked), strict=True) if single]
    return stacked, []


def _is_file(picture: Any) -> bool:
    return isinstance(picture, str | os.PathLike)


@contextlib.contextmanager
def _seen(picture: Any, name: str) -> Iterator[Image.Image]:
    """A file or a PIL image, opened; any damage that shows is a `UserError` that names it."""
    if _is_file(picture):
        with reading(name, ADVICE):
            data = read_file(Path(picture))
        with opened(data, name) as file:
            yield file
    elif isinstance(picture, Image.Image):
        with reading(name, ADVICE):
            yield picture
    else:
        raise InputError(f"{name} is a {type(picture).__name__}; give only files, or only PIL images, or one array")


def _coloured(pictures: Any, size: tuple[int, int] | None) -> bool:
    """Whether any of the pictures has colours; those that cannot be read have none, and are refused elsewhere."""
    if _named_or_opened(pictures):
        for i, picture in enumerate(pictures):
            with contextlib.suppress(UserError), _seen(picture, f"picture {i}") as each:
                if not is_grey(each):
                    return True
        return False
    shape = np.shape(pictures)
    if len(shape) == 2 and size is not None:
        return bool(shape[1] == 3 * size[0] * size[1])
    return len(shape) == 4 and shape[3] != 1


def _with_channels(values: NDArray[Any]) -> NDArray[Any]:
    """`(N, height, width, channels)`."""
    return values[..., None] if values.ndim == 3 else values


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pictures as Pillow takes them: `(N, height, width)` grey or `(N, height, width, 3)`, uint8."""
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > 1:
            raise InputError(f"pictures are uint8, or in [0, 1]; these go from {values.min():g} to {values.max():g}")
        values = np.round(values * 255.0).astype(np.uint8)
    return values[..., 0] if values.shape[3] == 1 else values


def _named_or_opened(pictures: Any) -> bool:
    """Whether pictures come as files or PIL images rather than as numbers."""
    if not isinstance(pictures, list | tuple | np.ndarray) or len(pictures) == 0:
        return False
    return isinstance(pictures[0], str | os.PathLike | Image.Image)


def _flat(pictures: Any) -> bool:
    """Whether scikit-learn's rules for tables apply."""
    return not _named_or_opened(pictures) and np.asarray(pictures).ndim not in (3, 4)
